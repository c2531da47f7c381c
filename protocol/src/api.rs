//! The bodies of requests, read strictly: what a client asks for, typed.
//!
//! An unknown parameter is refused anywhere, since a receipt over an ignored
//! one would mislead; the documented ones without effect are accepted. Start
//! at [`parse_chat`] and [`parse_completion`]. The gateway routes by an
//! [`Ask`], the engine runs it, the client checks a receipt against it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use crate::ids::Kind;

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
}

impl Role {
    /// The name that a chat template knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
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
        }
    }
}

/// Reads the body of `/v1/chat/completions`.
pub fn parse_chat(body: &[u8], limits: &Limits) -> Result<Ask, ApiError> {
    let _ = (body, limits);
    todo!()
}

/// Reads the body of `/v1/completions`.
pub fn parse_completion(body: &[u8], limits: &Limits) -> Result<Ask, ApiError> {
    let _ = (body, limits);
    todo!()
}

/// Reads the body of `/tokenize`.
pub fn parse_tokenize(body: &[u8]) -> Result<TokenizeAsk, ApiError> {
    let _ = body;
    todo!()
}

/// Reads the body of `/detokenize`.
pub fn parse_detokenize(body: &[u8]) -> Result<DetokenizeAsk, ApiError> {
    let _ = body;
    todo!()
}
