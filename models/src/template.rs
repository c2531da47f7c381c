//! The model's chat template: a conversation becomes a prompt.

use protocol::api::Message;
use serde_json::{Map, Value};

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {}

/// Why a conversation can't be rendered: the client's fault, all of them.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template refuses the conversation, in its own words.
    #[error("the model's chat template refuses this: {0}")]
    Refused(String),
    /// An entry of `chat_template_kwargs` that the template may not be given.
    #[error("`chat_template_kwargs` must not contain `{0}`")]
    Reserved(String),
    /// The template fails on it.
    #[error("the model's chat template can't render this: {0}")]
    Render(String),
}

impl ChatTemplate {
    /// Whether the template asks for the day, which is then an input.
    pub fn asks_for_date(&self) -> bool {
        todo!()
    }

    /// The prompt for `messages`, ready for the assistant's turn. `today` is `YYYY-MM-DD`; a
    /// template that asks for the day without being told fails.
    pub fn render(
        &self,
        messages: &[Message],
        kwargs: &Map<String, Value>,
        today: Option<&str>,
    ) -> Result<String, TemplateError> {
        let _ = (messages, kwargs, today);
        todo!()
    }
}
