//! The shape of answers: OpenAI's, with a receipt.
//!
//! [`Form`] says what one answer looks like; `chat` and `completion` write its
//! choices, `stream` the events and `whole` the single body.

mod calls;
mod chat;
mod completion;
mod stream;
mod whole;

use std::sync::Arc;

use models::Model;
use protocol::RequestId;
use protocol::api::Kind;
use protocol::receipt::{Finish, SignedReceipt};
use serde::Serialize;

use crate::mailbox::Usage;
use crate::prepare::Prepared;

pub(crate) use stream::body as stream;
pub(crate) use whole::whole;

/// What an answer looks like.
#[derive(Debug)]
pub(crate) struct Form {
    pub id: RequestId,
    pub kind: Kind,
    pub created_s: u64,
    pub model_id: String,
    pub n: u8,
    pub include_usage: bool,
    pub logprobs: bool,
    pub token_ids: bool,
    /// Whether the text may be calls.
    pub calls: bool,
    /// Empty if the ids weren't asked for.
    pub prompt: Vec<u32>,
    pub model: Arc<Model>,
}

impl Form {
    pub(crate) fn new(
        id: RequestId,
        created_s: u64,
        prepared: &Prepared,
        model: Arc<Model>,
    ) -> Self {
        let ask = &prepared.ask;
        Self {
            id,
            kind: ask.kind,
            created_s,
            model_id: ask.model.clone(),
            n: ask.n,
            include_usage: ask.include_usage,
            logprobs: ask.logprobs.is_some(),
            token_ids: ask.return_token_ids,
            calls: prepared.sampling.may_call(),
            prompt: match ask.return_token_ids {
                true => prepared.prompt.clone(),
                false => Vec::new(),
            },
            model,
        }
    }

    /// A token as people read it, special ones too.
    fn name(&self, token: u32) -> String {
        String::from_utf8_lossy(self.piece(token)).into_owned()
    }

    fn piece(&self, token: u32) -> &[u8] {
        self.model.tokenizer().piece(token).unwrap_or_default()
    }

    /// What a chunk calls itself.
    fn chunk(&self) -> &'static str {
        match self.kind {
            Kind::Chat => chat::CHUNK,
            Kind::Completion => completion::OBJECT,
        }
    }

    /// The choice's ids, where they were asked for.
    fn token_ids<'a>(&self, tokens: &'a [u32]) -> Option<&'a [u32]> {
        self.token_ids.then_some(tokens)
    }

    /// The prompt's ids, where they were asked for.
    fn prompt_token_ids(&self) -> Option<&[u32]> {
        self.token_ids(&self.prompt)
    }
}

/// What every object of an answer has around its choices.
#[derive(Debug, Serialize)]
struct Envelope<'a, C> {
    id: &'a RequestId,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: &'a [C],
    /// `null` on the chunks before the one that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageObject>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
}

impl<'a, C: Serialize> Envelope<'a, C> {
    fn new(form: &'a Form, object: &'static str, choices: &'a [C]) -> Self {
        Self {
            id: &form.id,
            object,
            created: form.created_s,
            model: &form.model_id,
            choices,
            usage: None,
            prompt_token_ids: None,
            receipt: None,
        }
    }

    fn receipt(mut self, receipt: Option<&'a SignedReceipt>) -> Self {
        self.receipt = receipt.map(SignedReceipt::compact);
        self
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("strings, numbers and lists are always JSON")
    }
}

/// OpenAI's `usage`.
#[derive(Debug, Serialize)]
struct UsageObject {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Debug, Serialize)]
struct PromptTokensDetails {
    cached_tokens: u32,
}

impl From<Usage> for UsageObject {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt,
            completion_tokens: usage.completion,
            total_tokens: usage.prompt + usage.completion,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached,
            },
        }
    }
}

/// OpenAI knows two ways in which an answer ends well.
fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        _ => "stop",
    }
}

/// A log-probability that JSON can hold; OpenAI writes -9999 for "never".
fn shown(logprob: f32) -> f64 {
    f64::from(logprob.max(-9999.0))
}
