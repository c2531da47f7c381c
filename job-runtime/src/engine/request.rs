//! One request inside the engine: its open receipt, its reader, its clock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use models::{Grammar, GrammarError, GrammarState, ModelConfig, Sampler, Trace};
use protocol::receipt::{Finish, OpenReceipt};
use protocol::sampling::Sampling;

use crate::mailbox::{AnswerWriter, Cut, Delta, End, ReaderState, Usage};
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::prefixes::Scope;

use super::draw::Draw;
use super::sequence::Sequence;

/// What the API hands to the engine. The receipt already states prompt and sampling.
#[derive(Debug)]
pub(crate) struct Submission {
    pub open: OpenReceipt,
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// What the answer must follow, if anything.
    pub grammar: Option<Grammar>,
    /// How many of the most likely tokens to name beside each drawn one, if any.
    pub logprobs: Option<u8>,
    /// With whom it shares prefixes.
    pub scope: Option<Scope>,
    /// Tokens between two checkpoints; 0: none.
    pub checkpoint_tokens: u32,
    pub answer: AnswerWriter,
    /// When the job began to read the request.
    pub began: Instant,
}

/// Where the checkpoints of a request are.
struct Checkpoints {
    /// Tokens from one to the next; 0: there are none.
    every: u32,
    /// How many there are.
    part: u32,
    /// Tokens that the last one states.
    stated: u32,
}

/// A request that is alive.
pub(super) struct Request {
    open: OpenReceipt,
    answer: AnswerWriter,
    sampler: Sampler,
    pub sampling: Sampling,
    logprobs: Option<u8>,
    /// One for each choice.
    traces: Vec<Trace>,
    /// One for each choice, or none without a grammar. A preempted sequence keeps it.
    grammars: Vec<Mutex<GrammarState>>,
    /// Choices that haven't ended.
    choices: u8,
    usage: Usage,
    checkpoints: Checkpoints,
    began: Instant,
    /// It has been in the batch.
    admitted: bool,
    first_token: Option<Instant>,
    parked_since: Option<Instant>,
}

impl Request {
    pub(super) fn new(submission: Submission, model: &ModelConfig) -> Self {
        let prompt = u32::try_from(submission.prompt.len()).expect("a prompt fits its context");
        Self {
            sampler: Sampler::new(&submission.sampling, model),
            traces: vec![Trace::new(); usize::from(submission.sampling.n)],
            grammars: match &submission.grammar {
                Some(grammar) => (0..submission.sampling.n)
                    .map(|_| Mutex::new(grammar.begin()))
                    .collect(),
                None => Vec::new(),
            },
            choices: submission.sampling.n,
            open: submission.open,
            answer: submission.answer,
            sampling: submission.sampling,
            logprobs: submission.logprobs,
            usage: Usage {
                prompt,
                ..Usage::default()
            },
            checkpoints: Checkpoints {
                every: submission.checkpoint_tokens,
                part: 0,
                stated: 0,
            },
            began: submission.began,
            admitted: false,
            first_token: None,
            parked_since: None,
        }
    }

    /// Looks after the reader: whether the request must end for its sake.
    pub(super) fn look(&mut self, now: Instant, stall: Duration) -> Option<Cut> {
        match self.answer.reader() {
            ReaderState::Gone => return Some(Cut::Cancelled),
            ReaderState::Ready => self.parked_since = None,
            ReaderState::Behind => {}
            ReaderState::Full => {
                self.parked_since.get_or_insert(now);
            }
        }
        let since = self.parked_since?;
        (now.duration_since(since) >= stall).then_some(Cut::Stalled)
    }

    /// Whether it sits out because its reader is behind.
    pub(super) fn parked(&self) -> bool {
        self.parked_since.is_some()
    }

    /// What the next tokens of a sequence depend on.
    pub(super) fn draw<'a, C>(&'a self, sequence: &'a Sequence<C>) -> Draw<'a> {
        Draw {
            sampler: &self.sampler,
            logprobs: self.logprobs,
            prompt: sequence.prompt(),
            output: sequence.output(),
            choices: sequence.choices(),
            traces: &self.traces,
            grammars: &self.grammars,
        }
    }

    /// It entered the batch, with so many tokens of its prompt computed before. (What it
    /// finds when it comes back after a preemption was its own work.)
    pub(super) fn began_with(&mut self, cached: usize, metrics: &Metrics) {
        if std::mem::replace(&mut self.admitted, true) {
            return;
        }
        self.usage.cached = u32::try_from(cached).expect("a prompt fits its context");
        let queried = u64::from(self.usage.prompt);
        metrics.prefix_cache_queries_total.inc_by(queried);
        metrics.prefix_cache_hits_total.inc_by(cached as u64);
    }

    /// A choice's trace, with the token that was drawn last.
    pub(super) fn trace(&mut self, choice: u8, trace: Trace) {
        self.traces[usize::from(choice)] = trace;
    }

    /// Takes a token that didn't end a choice into its grammar.
    pub(super) fn advance(&mut self, choice: u8, token: u32) -> Result<(), GrammarError> {
        match self.grammars.get_mut(usize::from(choice)) {
            Some(grammar) => {
                let grammar = grammar.get_mut().unwrap_or_else(PoisonError::into_inner);
                grammar.advance(token)
            }
            None => Ok(()),
        }
    }

    /// Passes on what a token did to a choice; true when that ended the last one.
    pub(super) fn absorb(&mut self, delta: &Delta, now: Instant, metrics: &Metrics) -> bool {
        match delta.tokens.as_slice() {
            [] => self.open.absorb_text(delta.choice, &delta.text),
            [token] => self.open.absorb(delta.choice, *token, &delta.text),
            _ => unreachable!("a step draws one token for each choice"),
        }
        self.usage.completion += u32::try_from(delta.tokens.len()).unwrap_or_default();
        if self.first_token.is_none() && !delta.tokens.is_empty() {
            self.first_token = Some(now);
            metrics
                .time_to_first_token_seconds
                .observe(now.duration_since(self.began).as_secs_f64());
        }
        if let Some(finish) = delta.finish {
            self.open.finish(delta.choice, finish);
            self.choices -= 1;
        }
        self.choices == 0
    }

    /// Shows a delta that [`Request::absorb`] took and that didn't end the request, with
    /// a checkpoint if one is due.
    pub(super) fn show(&mut self, mut delta: Delta, notary: &Notary) {
        let drawn = self.usage.completion;
        let Checkpoints {
            every,
            part,
            stated,
        } = &mut self.checkpoints;
        if *every > 0 && drawn - *stated >= *every {
            (*part, *stated) = (*part + 1, drawn);
            // So that a very long answer doesn't leave more and more of them.
            if part.is_multiple_of(PARTS_AT_A_DISTANCE) {
                *every = every.saturating_mul(2);
            }
            let signed = notary.checkpoint(&self.open, *part, Trace::claim(&self.traces));
            delta.checkpoint = Some(Box::new(signed));
        }
        self.answer.push(delta);
    }

    /// Signs, and shows the last deltas with the receipt.
    pub(super) fn close(
        self,
        last: Vec<Delta>,
        cut: Option<Cut>,
        notary: &Notary,
        metrics: &Metrics,
    ) {
        let unfinished = cut.map_or(Finish::Error, Cut::finish);
        let receipt = notary.close(self.open, unfinished, Trace::claim(&self.traces));
        metrics
            .e2e_request_latency_seconds
            .observe(self.began.elapsed().as_secs_f64());
        let end = End {
            receipt,
            usage: self.usage,
            cut,
        };
        self.answer.end(last, end);
    }
}

/// After so many checkpoints, the next ones are twice as far apart.
const PARTS_AT_A_DISTANCE: u32 = 32;
