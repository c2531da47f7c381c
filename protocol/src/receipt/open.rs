//! A receipt while its answer is being written: hashes what goes in and out,
//! and becomes a [`Receipt`] when closed.
//!
//! Consuming: nothing can be absorbed after [`OpenReceipt::close`].

use crate::calls::CallText;
use crate::did::Did;
use crate::digest::{Digest, Hasher};
use crate::ids::{JobId, RequestId};
use crate::receipt::{Finish, Input, ModelRef, Numerics, Output, Receipt, RequestLine, Salt};
use crate::sampling::Sampling;
use crate::time::UnixMs;

/// What is known when a job begins to read a request.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The request's id.
    pub jti: RequestId,
    /// The job.
    pub job: JobId,
    /// The job's key.
    pub iss: Did,
    /// The client's key, if the request was signed.
    pub sub: Option<Did>,
    /// 128 fresh random bits.
    pub salt: Salt,
    /// Now.
    pub from_ms: UnixMs,
    /// The request: the verified signature's line, or [`RequestLine::unsigned`].
    pub request: RequestLine,
    /// The digest of the body's bytes.
    pub body_sha256: Digest,
    /// The job's model.
    pub model: ModelRef,
    /// The job's arithmetic.
    pub numerics: Numerics,
    /// The digest of the job's credential.
    pub cred: Digest,
}

/// What is known when the output is closed.
#[derive(Debug, Clone)]
pub struct Closing {
    /// Now.
    pub to_ms: UnixMs,
    /// The finish of every choice that [`OpenReceipt::finish`] wasn't told about.
    pub unfinished: Finish,
    /// The job's counter: receipts are numbered in the order of signing.
    pub seq: u64,
    /// The digest of the job's previous receipt; none if `seq` is 0.
    pub prev: Option<Digest>,
    /// The chain over hidden states, in exact profiles.
    pub trace: Option<Digest>,
}

/// A receipt whose output isn't closed.
#[derive(Debug, Clone)]
pub struct OpenReceipt {
    opening: Opening,
    prompt_tokens_sha256: Digest,
    prompt_tokens: u32,
    sampling: Option<Sampling>,
    choices: Vec<Choice>,
}

#[derive(Debug, Clone)]
struct Choice {
    text: Hasher,
    /// Where the answer may call tools: what is hashed is made of the text.
    calls: Option<CallText>,
    token_ids: Hasher,
    tokens: u32,
    finish: Option<Finish>,
}

impl OpenReceipt {
    /// Begins with an empty prompt, no sampling and one empty choice: what a
    /// request refused before it is understood gets.
    pub fn begin(opening: Opening) -> Self {
        OpenReceipt {
            opening,
            prompt_tokens_sha256: Digest::of_tokens(&[]),
            prompt_tokens: 0,
            sampling: None,
            choices: vec![Choice::new()],
        }
    }

    /// The request's id.
    pub fn jti(&self) -> &RequestId {
        &self.opening.jti
    }

    /// States the prompt's tokens.
    pub fn prompt(&mut self, tokens: &[u32]) {
        self.prompt_tokens_sha256 = Digest::of_tokens(tokens);
        self.prompt_tokens =
            u32::try_from(tokens.len()).expect("a prompt fits a context, and that a u32");
    }

    /// States the parameters in force, and with them how many choices there
    /// are. Before the first token.
    pub fn sampling(&mut self, sampling: Sampling) {
        self.choices.clear();
        self.choices
            .resize_with(usize::from(sampling.n.max(1)), Choice::new);
        if sampling.may_call() {
            for choice in &mut self.choices {
                choice.calls = Some(CallText::default());
            }
        }
        self.sampling = Some(sampling);
    }

    /// One token of a choice (from 0), and the text that is released with it:
    /// possibly none, never what a stop text or half a character holds back.
    pub fn absorb(&mut self, choice: u8, token: u32, text: &str) {
        let choice = &mut self.choices[usize::from(choice)];
        choice.token_ids.update_token(token);
        choice.tokens += 1;
        choice.say(text);
    }

    /// Text of a choice that is released without a token, such as at its end.
    pub fn absorb_text(&mut self, choice: u8, text: &str) {
        self.choices[usize::from(choice)].say(text);
    }

    /// Why a choice ended. The first word counts.
    pub fn finish(&mut self, choice: u8, finish: Finish) {
        self.choices[usize::from(choice)]
            .finish
            .get_or_insert(finish);
    }

    /// States what there is so far as checkpoint `part`, from 1: every choice that
    /// hasn't ended is open, whatever `closing` says. The receipt stays open too.
    ///
    /// # Panics
    ///
    /// If every choice has ended, or `part` is 0.
    pub fn checkpoint(&self, part: u32, closing: Closing) -> Receipt {
        let goes_on = self.choices.iter().any(|choice| choice.finish.is_none());
        assert!(part > 0 && goes_on, "a checkpoint is of what goes on");
        let unfinished = Finish::Open;
        self.clone().state(
            part,
            Closing {
                unfinished,
                ..closing
            },
        )
    }

    /// Closes the output; sign what comes out.
    pub fn close(self, closing: Closing) -> Receipt {
        self.state(0, closing)
    }

    fn state(self, part: u32, closing: Closing) -> Receipt {
        let opening = self.opening;
        Receipt {
            v: 1,
            domain: super::domain(self.sampling.as_ref()).to_owned(),
            salt: opening.salt,
            jti: opening.jti,
            part,
            job: opening.job,
            seq: closing.seq,
            prev: closing.prev,
            iss: opening.iss,
            sub: opening.sub,
            from_ms: opening.from_ms,
            // The clock may have been set back meanwhile.
            to_ms: closing.to_ms.max(opening.from_ms),
            input: Input {
                request: opening.request,
                body_sha256: opening.body_sha256,
                prompt_tokens_sha256: self.prompt_tokens_sha256,
                prompt_tokens: self.prompt_tokens,
            },
            output: self
                .choices
                .into_iter()
                .map(|choice| choice.close(closing.unfinished))
                .collect(),
            model: opening.model,
            sampling: self.sampling,
            numerics: opening.numerics,
            trace: closing.trace,
            cred: opening.cred,
        }
    }
}

impl Choice {
    fn new() -> Self {
        Choice {
            text: Hasher::new(),
            calls: None,
            token_ids: Hasher::new(),
            tokens: 0,
            finish: None,
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.calls {
            Some(calls) => self.text.update(calls.push(text).as_bytes()),
            None => self.text.update(text.as_bytes()),
        }
    }

    fn close(mut self, unfinished: Finish) -> Output {
        let finish = self.finish.unwrap_or(unfinished);
        // What goes on has no end yet.
        if let Some(calls) = self.calls.filter(|_| finish != Finish::Open) {
            self.text.update(calls.end().as_bytes());
        }
        Output {
            text_sha256: self.text.finish(),
            tokens_sha256: self.token_ids.finish(),
            tokens: self.tokens,
            finish,
        }
    }
}

#[cfg(test)]
mod tests;
