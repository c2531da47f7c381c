//! Choices of `/v1/completions`.

use protocol::receipt::Finish;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Form, finish_reason, shown};
use crate::mailbox::{Delta, TokenLogprob};

pub(super) const OBJECT: &str = "text_completion";

/// A choice, in a chunk or in a whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Choice<'a> {
    index: u8,
    text: &'a str,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    /// Here, and not around the choices as in chat: so vLLM has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<&'a [u32]>,
}

#[derive(Debug, Default, Serialize)]
struct Logprobs {
    text_offset: Vec<usize>,
    token_logprobs: Vec<f64>,
    tokens: Vec<String>,
    /// The likeliest tokens and the drawn one, by their text.
    top_logprobs: Vec<Map<String, Value>>,
}

impl<'a> Choice<'a> {
    /// The same, with the prompt's ids, where they were asked for.
    pub(super) fn prompt(mut self, ids: Option<&'a [u32]>) -> Self {
        self.prompt_token_ids = ids;
        self
    }
}

pub(super) fn text<'a>(form: &Form, delta: &'a Delta) -> Choice<'a> {
    Choice {
        index: delta.choice,
        text: &delta.text,
        logprobs: logprobs(form, &delta.logprobs),
        finish_reason: None,
        prompt_token_ids: None,
        token_ids: form.token_ids(&delta.tokens),
    }
}

pub(super) fn finish<'a>(form: &Form, index: u8, finish: Finish, tokens: &'a [u32]) -> Choice<'a> {
    Choice {
        index,
        text: "",
        logprobs: None,
        finish_reason: Some(finish_reason(finish)),
        prompt_token_ids: None,
        token_ids: form.token_ids(tokens),
    }
}

pub(super) fn whole<'a>(form: &'a Form, choice: &'a super::whole::Choice) -> Choice<'a> {
    Choice {
        index: choice.index,
        text: &choice.text,
        logprobs: logprobs(form, &choice.logprobs),
        finish_reason: Some(finish_reason(choice.finish)),
        prompt_token_ids: form.prompt_token_ids(),
        token_ids: form.token_ids(&choice.tokens),
    }
}

fn logprobs(form: &Form, tokens: &[TokenLogprob]) -> Option<Logprobs> {
    form.logprobs.then(|| {
        let mut lists = Logprobs::default();
        for drawn in tokens {
            lists.text_offset.push(drawn.offset);
            lists.token_logprobs.push(shown(drawn.logprob));
            lists.tokens.push(form.name(drawn.token));
            let mut top = Map::new();
            // Different tokens may have the same text: the likeliest is kept.
            for (token, logprob) in drawn.top.iter().chain([&(drawn.token, drawn.logprob)]) {
                top.entry(form.name(*token))
                    .or_insert_with(|| shown(*logprob).into());
            }
            lists.top_logprobs.push(top);
        }
        lists
    })
}
