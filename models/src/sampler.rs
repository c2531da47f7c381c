//! Draws tokens: position-addressed, without any state.
//!
//! Normative in `docs/spec/sampling.md`. Start at [`Sampler::sample`].

use protocol::sampling::Sampling;

use crate::model::ModelConfig;

/// Draws the tokens of one request.
#[derive(Debug, Clone)]
pub struct Sampler {}

/// A drawn token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
}

/// Why no token could be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The logits contain NaN or infinity, or are all excluded.
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

/// Raw log-probabilities at one position, before any sampling parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprobs {
    /// The chosen token's.
    pub chosen: f32,
    /// The likeliest tokens', descending, ties by id.
    pub top: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler for these parameters and this model.
    pub fn new(sampling: &Sampling, model: &ModelConfig) -> Sampler {
        let _ = (sampling, model);
        todo!()
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
        let _ = (choice, position, logits, prompt, output_so_far);
        todo!()
    }
}

/// Log-softmax of the logits: the chosen token's, and the `k` likeliest.
pub fn log_softmax_top(logits: &[f32], k: usize, chosen: u32) -> Logprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&l| f64::from(crate::math::exp(l - max)))
        .sum();
    let log_sum = libm::log(sum);
    let logprob = |id: u32| (f64::from(logits[id as usize] - max) - log_sum) as f32;
    let top = crate::sampler::top(logits, k)
        .into_iter()
        .map(|id| (id, logprob(id)))
        .collect();
    Logprobs {
        chosen: logprob(chosen),
        top,
    }
}

fn top(logits: &[f32], k: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ids.truncate(k);
    ids
}
