//! From what a request asks to the ids that the model reads first.
//!
//! The engine and a replay both take their prompts from here, so that
//! `prompt_tokens_sha256` can't come to mean two things. Start at
//! [`Model::prompt_tokens`].

use std::borrow::Cow;

use protocol::api::{Ask, Prompt};

use crate::conversation;
use crate::model::Model;
use crate::template::TemplateError;
use crate::tokenizer::Special;

impl Model {
    /// The prompt's ids. `date` is the day that the chat template is told, if it asks.
    pub fn prompt_tokens(&self, ask: &Ask, date: Option<&str>) -> Result<Vec<u32>, TemplateError> {
        let text = self.prompt_text(ask, date)?;
        Ok(match (&ask.prompt, text) {
            (Prompt::Tokens(tokens), _) => tokens.clone(),
            (Prompt::Text(_), Some(text)) => self.begun(self.encode_prompt(&text)),
            (_, text) => self.encode_prompt(&text.unwrap_or_default()),
        })
    }

    /// The text that is tokenized; none where the request names ids.
    pub fn prompt_text<'a>(
        &self,
        ask: &'a Ask,
        date: Option<&str>,
    ) -> Result<Option<Cow<'a, str>>, TemplateError> {
        match &ask.prompt {
            Prompt::Messages(messages) => {
                let (template, tools) = (self.template(), ask.tools.as_ref());
                let kwargs = &ask.chat_template_kwargs;
                let text = match (template.knows_tools(), tools) {
                    (true, Some(tools)) => {
                        template.render_with(messages, &tools.functions, kwargs, date)?
                    }
                    (true, None) => template.render(messages, kwargs, date)?,
                    (false, tools) => {
                        template.render(&conversation::told(messages, tools), kwargs, date)?
                    }
                };
                Ok(Some(text.into()))
            }
            Prompt::Text(text) => Ok(Some(text.into())),
            Prompt::Tokens(_) => Ok(None),
        }
    }

    /// The ids of a prompt's text. Special tokens are read as such, as vLLM does.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.tokenizer().encode(text, Special::Parse)
    }

    /// With the token that begins every plain text of this model, if there is one. (A
    /// chat template writes its own.)
    pub fn begun(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.config().bos
            && tokens.first() != Some(&bos)
        {
            tokens.insert(0, bos);
        }
        tokens
    }
}
