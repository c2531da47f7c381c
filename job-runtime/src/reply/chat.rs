//! Choices of `/v1/chat/completions`.

use protocol::receipt::Finish;
use serde::Serialize;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
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
    content: &'a str,
    refusal: Option<&'static str>,
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

pub(super) fn role(index: u8) -> ChunkChoice<'static> {
    ChunkChoice {
        index,
        delta: Delta {
            role: Some("assistant"),
            content: Some(""),
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
            role: None,
            content: Some(&delta.text),
        },
        logprobs: logprobs(form, &delta.logprobs),
        finish_reason: None,
        token_ids: form.token_ids(&delta.tokens),
    }
}

pub(super) fn finish<'a>(
    form: &Form,
    index: u8,
    finish: Finish,
    tokens: &'a [u32],
) -> ChunkChoice<'a> {
    ChunkChoice {
        index,
        delta: Delta::default(),
        logprobs: None,
        finish_reason: Some(finish_reason(finish)),
        token_ids: form.token_ids(tokens),
    }
}

pub(super) fn whole<'a>(form: &Form, choice: &'a super::whole::Choice) -> WholeChoice<'a> {
    WholeChoice {
        index: choice.index,
        message: Message {
            role: "assistant",
            content: &choice.text,
            refusal: None,
        },
        logprobs: logprobs(form, &choice.logprobs),
        finish_reason: finish_reason(choice.finish),
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
