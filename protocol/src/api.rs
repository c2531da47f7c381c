//! The bodies of requests, read strictly: what a client asks for, typed.
//!
//! An unknown parameter is refused anywhere, since a receipt over an ignored
//! one would mislead; the documented ones without effect are accepted. Start
//! at [`parse_chat`] and [`parse_completion`]. The gateway routes by an
//! [`Ask`], the engine runs it, the client checks a receipt against it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use crate::ids::Kind;

mod fields;
mod prompt;
mod sampling;
mod tools;
mod without_effect;

use fields::Fields;
pub use tools::{Function, GRAMMAR_ENGINE, ResponseFormat, ToolChoice, Tools};

/// The tokens of a completion that names no limit.
const COMPLETION_TOKENS: u32 = 16;

/// What one request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The model's id.
    pub model: String,
    /// Which endpoint's shape the answer has.
    pub kind: Kind,
    /// What to complete.
    pub prompt: Prompt,
    /// Choices, from 1.
    pub n: u8,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the stream ends with a usage chunk.
    pub include_usage: bool,
    /// Tokens at most, for each choice; none: what the context leaves.
    /// A completion that names none gets 16, as everywhere.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn.
    pub sampling: SamplingAsk,
    /// Log-probabilities of each token and of that many most likely ones.
    pub logprobs: Option<u8>,
    /// Whether the answer holds the ids of prompt and output.
    pub return_token_ids: bool,
    /// Variables for the chat template.
    pub chat_template_kwargs: Map<String, Value>,
    /// What the model may call; none: nothing.
    pub tools: Option<Tools>,
    /// What the text must be; none: any text.
    pub response_format: Option<ResponseFormat>,
}

/// What to complete.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, for the chat template.
    Messages(Vec<Message>),
    /// A text, for the tokenizer.
    Text(String),
    /// Token ids, as they are.
    Tokens(Vec<u32>),
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; the parts of a list are joined by line feeds.
    pub content: String,
    /// What the assistant called.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool answers.
    pub tool_call_id: Option<String>,
}

/// A call that an assistant's message reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Its id.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments, a JSON text.
    pub arguments: String,
}

impl Message {
    /// A message that says something.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

/// Who speaks in a conversation. `developer` is read as [`Role::System`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The instructions.
    System,
    /// The client.
    User,
    /// The model.
    Assistant,
    /// What the client ran because the model called it.
    Tool,
}

impl Role {
    /// The name that a chat template knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// The sampling parameters that a request names. Absent is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingAsk {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// Above 0, to 1.
    pub top_p: Option<f64>,
    /// 0 (also written -1) is off.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// Any 64-bit integer; a negative one counts as its two's complement.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Tokens that end the answer.
    pub stop_token_ids: Vec<u32>,
    /// Tokens before the model may end its answer.
    pub min_tokens: Option<u32>,
    /// Whether the model's end token is drawn through.
    pub ignore_eos: bool,
    /// Above 0, to 2.
    pub repetition_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -100 to 100, by token id.
    pub logit_bias: BTreeMap<u32, f64>,
}

/// A text to tokenize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeAsk {
    /// The model's id; none: the job's.
    pub model: Option<String>,
    /// The text.
    pub prompt: String,
    /// Whether the tokens that begin every prompt of this model are added.
    pub add_special_tokens: bool,
}

/// Tokens to put back together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetokenizeAsk {
    /// The model's id; none: the job's.
    pub model: Option<String>,
    /// The token ids.
    pub tokens: Vec<u32>,
}

/// Why a body is refused: always the client's fault, a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// A sentence that is safe to show.
    pub message: String,
    /// The parameter, as a path such as `messages[3].role`.
    pub param: Option<String>,
    /// The stable name of the reason.
    pub code: &'static str,
}

impl ApiError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

/// What a body may ask for at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Choices.
    pub n: u8,
    /// Stop texts.
    pub stop: usize,
    /// Bytes of one stop text.
    pub stop_bytes: usize,
    /// Stop tokens.
    pub stop_token_ids: usize,
    /// Messages of a conversation.
    pub messages: usize,
    /// Most likely tokens shown at each position.
    pub logprobs: u8,
    /// Biased tokens.
    pub logit_bias: usize,
    /// Tools, and calls in one message.
    pub tools: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            n: 8,
            stop: 16,
            stop_bytes: 256,
            stop_token_ids: 128,
            messages: 4096,
            logprobs: 20,
            logit_bias: 1024,
            tools: 128,
        }
    }
}

/// Reads the body of `/v1/chat/completions`.
pub fn parse_chat(body: &[u8], limits: &Limits) -> Result<Ask, ApiError> {
    let mut fields = Fields::of_body(
        body,
        &[("messages", limits.messages), ("tools", limits.tools)],
    )?;
    let messages = prompt::messages(&mut fields, limits)?;
    let chat_template_kwargs = prompt::template_kwargs(&mut fields)?;
    let logprobs = chat_logprobs(&mut fields, limits)?;
    without_effect::chat(&mut fields)?;
    let tools = tools::tools(&mut fields, limits)?;
    let response_format = tools::response_format(&mut fields)?;
    let ask = Ask {
        logprobs,
        chat_template_kwargs,
        tools,
        response_format,
        ..common(&mut fields, limits, Kind::Chat, Prompt::Messages(messages))?
    };
    if ask.sampling.ignore_eos && ask.grammar().is_some() {
        let message = "can't be set where tools or response_format say how the answer ends";
        return Err(fields.refuse("ignore_eos", "invalid_value", message));
    }
    fields.finish()?;
    Ok(ask)
}

/// Reads the body of `/v1/completions`.
pub fn parse_completion(body: &[u8], limits: &Limits) -> Result<Ask, ApiError> {
    let mut fields = Fields::of_body(body, &[])?;
    let prompt = prompt::one(&mut fields)?;
    let logprobs = fields.integer("logprobs", 0, limits.logprobs.into())?;
    without_effect::completion(&mut fields)?;
    let ask = Ask {
        logprobs: logprobs.map(narrow),
        ..common(&mut fields, limits, Kind::Completion, prompt)?
    };
    fields.finish()?;
    Ok(ask)
}

/// Reads the body of `/tokenize`.
pub fn parse_tokenize(body: &[u8]) -> Result<TokenizeAsk, ApiError> {
    let mut fields = Fields::of_body(body, &[])?;
    let ask = TokenizeAsk {
        model: fields.string("model")?,
        prompt: fields.required("prompt", Fields::string)?,
        add_special_tokens: fields.boolean("add_special_tokens")?.unwrap_or(true),
    };
    fields.finish()?;
    Ok(ask)
}

/// Reads the body of `/detokenize`.
pub fn parse_detokenize(body: &[u8]) -> Result<DetokenizeAsk, ApiError> {
    let mut fields = Fields::of_body(body, &[])?;
    let ask = DetokenizeAsk {
        model: fields.string("model")?,
        tokens: fields.required("tokens", |fields, name| fields.token_ids(name, usize::MAX))?,
    };
    fields.finish()?;
    Ok(ask)
}

/// What both kinds of completion share.
fn common(
    fields: &mut Fields,
    limits: &Limits,
    kind: Kind,
    prompt: Prompt,
) -> Result<Ask, ApiError> {
    let model = fields.required("model", Fields::string)?;
    let n = fields.integer("n", 1, limits.n.into())?.map_or(1, narrow);
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let include_usage = stream_options(fields, stream)?;
    let max_tokens = max_tokens(fields, kind)?;
    let sampling = sampling::read(fields, limits, max_tokens)?;
    Ok(Ask {
        model,
        kind,
        prompt,
        n,
        stream,
        include_usage,
        max_tokens,
        sampling,
        logprobs: None,
        return_token_ids: fields.boolean("return_token_ids")?.unwrap_or(false),
        chat_template_kwargs: Map::new(),
        tools: None,
        response_format: None,
    })
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(mut options) = fields.object("stream_options")? else {
        return Ok(false);
    };
    if !stream {
        return Err(fields.refuse(
            "stream_options",
            "invalid_value",
            "is only for requests with stream set to true",
        ));
    }
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    options.only_if("include_obfuscation", "false", |value| *value == false)?;
    options.finish()?;
    Ok(include_usage)
}

fn max_tokens(fields: &mut Fields, kind: Kind) -> Result<Option<u32>, ApiError> {
    let most = u32::MAX.into();
    let old = fields.integer("max_tokens", 1, most)?.map(narrow);
    if kind == Kind::Completion {
        return Ok(Some(old.unwrap_or(COMPLETION_TOKENS)));
    }
    let new = fields
        .integer("max_completion_tokens", 1, most)?
        .map(narrow);
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        return Err(fields.refuse(
            "max_tokens",
            "invalid_value",
            "contradicts max_completion_tokens",
        ));
    }
    Ok(new.or(old))
}

fn chat_logprobs(fields: &mut Fields, limits: &Limits) -> Result<Option<u8>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0, limits.logprobs.into())?;
    match (wanted, top) {
        (false, Some(1..)) => Err(fields.refuse(
            "top_logprobs",
            "invalid_value",
            "is only for requests with logprobs set to true",
        )),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.map_or(0, narrow))),
    }
}

/// A number that a range check has made fit.
fn narrow<T: TryFrom<i64>>(number: i64) -> T {
    T::try_from(number)
        .ok()
        .expect("the range check kept it within the type")
}

#[cfg(test)]
mod tests;
