//! Draws tokens: position-addressed, without any state.
//!
//! Every number is a pure function of the parameters, the logits and the
//! position, so that a verifier can check any position alone. Normative in
//! `docs/spec/sampling.md`, whose rules are cited here; what is faster than the
//! rules must give the same. Start at [`Sampler::sample`]; a draw goes through
//! `adjusted` (section 3 and 4), `survivors` (5) and `noise` (6).

use std::cell::RefCell;

use protocol::sampling::Sampling;

use crate::exact::Level;
use crate::model::ModelConfig;
use crate::token_mask::TokenMask;

mod adjusted;
mod blocks;
mod logprobs;
mod noise;
mod survivors;
mod weigh;

use adjusted::{Adjusted, Scratch};
use noise::Noise;
use survivors::Survivors;

pub use logprobs::{Logprobs, log_softmax_top};
pub use weigh::{Rule, Standing, Weighed};

/// Draws the tokens of one request.
#[derive(Debug, Clone)]
pub struct Sampler {
    parameters: Sampling,
    vocab: usize,
    /// What may not be drawn before `min_tokens`.
    ends: Vec<u32>,
    level: Level,
}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
}

/// Why no token could be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The logits contain NaN or infinity, or the parameters make them so.
    #[error("the logits aren't finite numbers")]
    NotFinite,
    /// Every token is excluded.
    #[error("every token is excluded")]
    Nothing,
    /// Not one logit for each token.
    #[error("{found} logits for a vocabulary of {expected}")]
    Length {
        /// Tokens in the vocabulary.
        expected: usize,
        /// Logits given.
        found: usize,
    },
}

/// What a draw starts from, beside the parameters (spec 2).
#[derive(Clone, Copy)]
struct Input<'a> {
    choice: u8,
    position: u32,
    logits: &'a [f32],
    prompt: &'a [u32],
    output: &'a [u32],
    mask: Option<&'a TokenMask>,
}

thread_local! {
    /// Memory for a draw, so that none is taken for each.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Sampler {
    /// A sampler for these parameters and this model.
    pub fn new(sampling: &Sampling, model: &ModelConfig) -> Sampler {
        let mut ends = sampling.stop_token_ids.clone();
        if !sampling.ignore_eos {
            ends.extend_from_slice(&model.eos);
        }
        Sampler {
            parameters: sampling.clone(),
            vocab: model.vocab,
            ends,
            level: Level::detect(),
        }
    }

    /// Draws the token at `position` (its index in prompt and output together) for `choice`.
    ///
    /// A pure function of its arguments: any position can be checked alone.
    pub fn sample(
        &self,
        choice: u8,
        position: u32,
        logits: &[f32],
        prompt: &[u32],
        output_so_far: &[u32],
    ) -> Result<Drawn, SampleError> {
        self.sample_masked(choice, position, logits, prompt, output_so_far, None)
    }

    /// Like [`Sampler::sample`], where only the tokens of `mask` may be drawn.
    pub fn sample_masked(
        &self,
        choice: u8,
        position: u32,
        logits: &[f32],
        prompt: &[u32],
        output_so_far: &[u32],
        mask: Option<&TokenMask>,
    ) -> Result<Drawn, SampleError> {
        let input = Input {
            choice,
            position,
            logits,
            prompt,
            output: output_so_far,
            mask,
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let (adjusted, found) = Adjusted::new(self, &input, scratch)?;
            if self.parameters.temperature == 0.0 {
                return Ok(Drawn {
                    token: adjusted.best.0, // spec 4.1
                });
            }
            let survivors = Survivors::of(&adjusted, &self.parameters, found);
            let noise = Noise::new(self, &input);
            let (token, _) = noise.winner(&adjusted, survivors.last());
            Ok(Drawn { token })
        })
    }
}

#[cfg(test)]
mod tests;
