//! One choice of a request inside the batch: its tokens, its KV cache, and
//! what its reader may already see.

use std::collections::VecDeque;
use std::time::Instant;

use models::ModelConfig;
use models::output::{OutputText, Released, ends};
use protocol::receipt::Finish;
use protocol::sampling::Sampling;

use crate::mailbox::{Delta, TokenLogprob};
use crate::prefixes::{BlockKey, BlockKeys};
use crate::scheduler::{SequenceId, SequenceView};

/// A sequence. `C` is the model's KV cache.
pub(super) struct Sequence<C> {
    pub id: SequenceId,
    /// Prompt and output together.
    pub tokens: Vec<u32>,
    prompt: usize,
    /// None: it waits, and holds nothing.
    pub cache: Option<C>,
    /// Names its full blocks.
    pub keys: BlockKeys,
    /// Of its full blocks, which are those kept under their keys.
    pub kept: Vec<bool>,
    cached: usize,
    decoding: bool,
    copies: u8,
    pub last_step: u64,
    /// When its latest token was drawn.
    pub drawn_at: Option<Instant>,
    text: OutputText,
    /// Of tokens whose text isn't out yet.
    logprobs: VecDeque<TokenLogprob>,
}

impl<C> Sequence<C> {
    /// The first choice of a request; the others come from [`Sequence::fork`].
    pub(super) fn new(
        arrival: u64,
        prompt: &[u32],
        sampling: &Sampling,
        mut keys: BlockKeys,
    ) -> Self {
        keys.of(prompt);
        Self {
            id: SequenceId { arrival, choice: 0 },
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            cache: None,
            keys,
            kept: Vec::new(),
            cached: 0,
            decoding: false,
            copies: sampling.n,
            last_step: 0,
            drawn_at: None,
            text: OutputText::new(&sampling.stop),
            logprobs: VecDeque::new(),
        }
    }

    pub(super) fn view(&self, parked: bool, tail_shared: bool) -> SequenceView {
        let count = |tokens: usize| u32::try_from(tokens).expect("a sequence fits its context");
        SequenceView {
            id: self.id,
            cached: count(self.cached),
            pending: count(self.tokens.len() - self.cached),
            decoding: self.decoding,
            copies: u32::from(self.copies),
            parked,
            last_step: self.last_step,
            tail_shared,
        }
    }

    /// Names the blocks of its beginning that needn't be computed if they are known:
    /// at least one token is left, for the row that the next one is drawn from.
    pub(super) fn prefix_keys(&self, block_tokens: usize) -> &[BlockKey] {
        let keys = self.keys.known();
        &keys[..keys.len().min((self.tokens.len() - 1) / block_tokens)]
    }

    /// Takes a cache in which so many of its tokens are.
    pub(super) fn begin(&mut self, cache: C, cached: usize) {
        self.cache = Some(cache);
        self.cached = cached;
    }

    /// What the model reads next, at most so many tokens.
    pub(super) fn next(&self, tokens: u32) -> &[u32] {
        &self.tokens[self.cached..][..tokens as usize]
    }

    /// Whether the next token can be drawn when so many more are read.
    pub(super) fn draws_after(&self, tokens: u32) -> bool {
        self.cached + tokens as usize == self.tokens.len()
    }

    /// The model has read so many more tokens; gives how many of them are the prompt's.
    pub(super) fn read(&mut self, tokens: u32, step: u64) -> usize {
        let before = self.cached.min(self.prompt);
        self.cached += tokens as usize;
        self.decoding = self.cached == self.tokens.len();
        self.last_step = step;
        self.cached.min(self.prompt) - before
    }

    /// Gives the cache back, to begin again from the tokens.
    pub(super) fn preempt(&mut self) {
        self.cache = None;
        self.cached = 0;
        self.decoding = false;
    }

    /// The request's other choices, which share the prompt so far.
    pub(super) fn fork(&mut self, sampling: &Sampling, copy: impl Fn(&C) -> C) -> Vec<Self> {
        let copies = std::mem::replace(&mut self.copies, 1);
        (1..copies)
            .map(|choice| Self {
                id: SequenceId { choice, ..self.id },
                tokens: self.tokens.clone(),
                cache: self.cache.as_ref().map(&copy),
                keys: self.keys.clone(),
                kept: self.kept.clone(),
                text: OutputText::new(&sampling.stop),
                logprobs: VecDeque::new(),
                copies: 1,
                ..*self
            })
            .collect()
    }

    /// Everything is read: its next token is due.
    pub(super) fn drawing(&self) -> bool {
        self.cached == self.tokens.len()
    }

    /// Tokens in its KV cache.
    pub(super) fn held(&self) -> usize {
        self.cached
    }

    pub(super) fn output(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    pub(super) fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    /// The choices that its next tokens are for: until its prompt is in, those that
    /// will be forked from it too.
    pub(super) fn choices(&self) -> std::ops::Range<u8> {
        self.id.choice..self.id.choice + self.copies
    }

    /// Takes the token that was drawn; `bytes` is what it says.
    pub(super) fn push(
        &mut self,
        token: u32,
        bytes: &[u8],
        logprob: Option<TokenLogprob>,
        sampling: &Sampling,
        model: &ModelConfig,
    ) -> Delta {
        self.tokens.push(token);
        let drawn = self.output().len();
        // The terminating token says nothing, so it has no log-probability either.
        if !ends(token, sampling, model) {
            self.logprobs.extend(logprob);
        }
        let (released, finish) = self.text.take(token, bytes, drawn, sampling, model);
        self.delta(vec![token], released, finish)
    }

    /// Ends the choice before the model did: what was held back is released.
    pub(super) fn cut(&mut self, finish: Finish) -> Delta {
        let released = self.text.finish();
        self.delta(Vec::new(), released, Some(finish))
    }

    fn delta(&mut self, tokens: Vec<u32>, released: Released, finish: Option<Finish>) -> Delta {
        let logprobs = released
            .offsets
            .into_iter()
            .filter_map(|offset| {
                let logprob = self.logprobs.pop_front()?;
                Some(TokenLogprob { offset, ..logprob })
            })
            .collect();
        Delta {
            choice: self.id.choice,
            text: released.text,
            tokens,
            logprobs,
            finish,
            checkpoint: None,
        }
    }
}
