//! Draws the next tokens of one part of a step.
//!
//! Pure, and run on the model's own threads while the row is in its memory:
//! what a drawn token does to its request is `engine`'s. Start at [`Draw::all`].

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use models::{GrammarError, GrammarState, SampleError, Sampler, Scored, Trace, log_softmax_top};

use crate::mailbox::TokenLogprob;

/// What the next tokens depend on, beside the row.
pub(super) struct Draw<'a> {
    pub sampler: &'a Sampler,
    /// How many of the most likely tokens to name beside each drawn one, if any.
    pub logprobs: Option<u8>,
    pub prompt: &'a [u32],
    pub output: &'a [u32],
    /// The choices that go on from this row.
    pub choices: Range<u8>,
    /// Every choice's trace so far.
    pub traces: &'a [Trace],
    /// Where every choice is in the request's grammar; empty without one.
    pub grammars: &'a [Mutex<GrammarState>],
}

/// Why no token could be drawn.
#[derive(Debug, thiserror::Error)]
pub(super) enum DrawError {
    /// The logits or the parameters.
    #[error("sampling")]
    Sample(#[source] SampleError),
    /// The grammar.
    #[error("asking the grammar")]
    Grammar(#[source] GrammarError),
}

/// A choice's next token.
#[derive(Debug)]
pub(super) struct Drawn {
    pub choice: u8,
    pub token: u32,
    /// The choice's trace with this token.
    pub trace: Trace,
    pub logprob: Option<TokenLogprob>,
}

impl Draw<'_> {
    /// Draws the token of every choice.
    pub(super) fn all(&self, row: &Scored<'_>) -> Result<Vec<Drawn>, DrawError> {
        self.choices
            .clone()
            .map(|choice| self.one(choice, row))
            .collect()
    }

    fn one(&self, choice: u8, row: &Scored<'_>) -> Result<Drawn, DrawError> {
        let position = self.prompt.len() + self.output.len();
        let position = u32::try_from(position).expect("a sequence fits its context");
        let (prompt, output) = (self.prompt, self.output);
        let mask = match self.grammars.get(usize::from(choice)) {
            Some(grammar) => {
                let mut grammar = grammar.lock().unwrap_or_else(PoisonError::into_inner);
                grammar.mask().map_err(DrawError::Grammar)?
            }
            None => None,
        };
        let drawn = self
            .sampler
            .sample_masked(choice, position, row.logits, prompt, output, mask.as_ref())
            .map_err(DrawError::Sample)?;
        let mut trace = self.traces[usize::from(choice)].clone();
        trace.absorb(drawn.token, row.hidden);
        let logprob = self.logprobs.map(|k| {
            let found = log_softmax_top(row.logits, usize::from(k), drawn.token);
            TokenLogprob {
                token: drawn.token,
                logprob: found.chosen,
                top: found.top,
                offset: 0,
            }
        });
        Ok(Drawn {
            choice,
            token: drawn.token,
            trace,
            logprob,
        })
    }
}
