//! Choices of `/v1/chat/completions`.

use std::borrow::Cow;

use protocol::receipt::Finish;
use serde::Serialize;

use super::calls::{self, Call, CallDelta, Calls, Part};
use super::{Form, finish_reason, shown};
use crate::mailbox::TokenLogprob;

pub(super) const OBJECT: &str = "chat.completion";
pub(super) const CHUNK: &str = "chat.completion.chunk";

/// A choice in a chunk.
#[derive(Debug, Serialize)]
pub(super) struct ChunkChoice<'a> {
    index: u8,
    delta: Delta<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Debug, Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// `null` first where calls may follow instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[&'a CallDelta; 1]>,
}

/// A choice of a whole answer.
#[derive(Debug, Serialize)]
pub(super) struct WholeChoice<'a> {
    index: u8,
    message: Message<'a>,
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Option<Cow<'a, str>>,
    refusal: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Debug, Serialize)]
struct Logprobs {
    content: Vec<Logprob>,
    refusal: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Logprob {
    #[serde(flatten)]
    chosen: Candidate,
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Serialize)]
struct Candidate {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

pub(super) fn role(form: &Form, index: u8) -> ChunkChoice<'static> {
    ChunkChoice {
        index,
        delta: Delta {
            role: Some("assistant"),
            content: Some((!form.calls).then_some("")),
            tool_calls: None,
        },
        logprobs: None,
        finish_reason: None,
        token_ids: None,
    }
}

pub(super) fn text<'a>(form: &Form, delta: &'a crate::mailbox::Delta) -> ChunkChoice<'a> {
    ChunkChoice {
        index: delta.choice,
        delta: Delta {
            content: Some(Some(&delta.text)),
            ..Delta::default()
        },
        logprobs: logprobs(form, &delta.logprobs),
        finish_reason: None,
        token_ids: form.token_ids(&delta.tokens),
    }
}

/// A part of what `delta` says, or nothing of it; `tells`: with what is known of its tokens.
pub(super) fn part<'a>(
    form: &Form,
    delta: &'a crate::mailbox::Delta,
    part: Option<&'a Part>,
    tells: bool,
) -> ChunkChoice<'a> {
    let said = match part {
        None => Delta::default(),
        Some(Part::Content(text)) => Delta {
            content: Some(Some(text)),
            ..Delta::default()
        },
        Some(Part::Call(call)) => Delta {
            tool_calls: Some([call]),
            ..Delta::default()
        },
    };
    let chunk = text(form, delta);
    ChunkChoice {
        delta: said,
        logprobs: chunk.logprobs.filter(|_| tells),
        token_ids: chunk.token_ids.filter(|_| tells),
        ..chunk
    }
}

pub(super) fn finish<'a>(
    form: &Form,
    index: u8,
    finish_reason: &'static str,
    tokens: &'a [u32],
) -> ChunkChoice<'a> {
    ChunkChoice {
        index,
        delta: Delta::default(),
        logprobs: None,
        finish_reason: Some(finish_reason),
        token_ids: form.token_ids(tokens),
    }
}

pub(super) fn whole<'a>(form: &Form, choice: &'a super::whole::Choice) -> WholeChoice<'a> {
    let (content, tool_calls) = match form.calls {
        true => Calls::whole(&form.id, choice.index, &choice.text),
        false => (None, Vec::new()),
    };
    let content = match form.calls {
        true => content.map(Cow::Owned),
        false => Some(Cow::Borrowed(choice.text.as_str())),
    };
    let finish_reason = match choice.finish {
        Finish::Stop if !tool_calls.is_empty() => calls::FINISH_REASON,
        finish => finish_reason(finish),
    };
    WholeChoice {
        index: choice.index,
        message: Message {
            role: "assistant",
            content,
            refusal: None,
            tool_calls,
        },
        logprobs: logprobs(form, &choice.logprobs),
        finish_reason,
        token_ids: form.token_ids(&choice.tokens),
    }
}

fn logprobs(form: &Form, tokens: &[TokenLogprob]) -> Option<Logprobs> {
    let candidate = |token: u32, logprob: f32| Candidate {
        token: form.name(token),
        logprob: shown(logprob),
        bytes: form.piece(token).to_vec(),
    };
    form.logprobs.then(|| Logprobs {
        content: tokens
            .iter()
            .map(|drawn| Logprob {
                chosen: candidate(drawn.token, drawn.logprob),
                top_logprobs: drawn.top.iter().map(|(id, p)| candidate(*id, *p)).collect(),
            })
            .collect(),
        refusal: None,
    })
}
