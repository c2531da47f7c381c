//! How a token fared that somebody says was drawn: by how much it lost, or
//! which rule excluded it. A verifier's evidence.

use super::survivors::{Last, Survivors};
use super::{Adjusted, Input, Noise, SCRATCH, SampleError, Sampler};
use crate::token_mask::TokenMask;

/// What is drawn at a position, and how another token fared there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// The token that is drawn.
    pub drawn: u32,
    /// How the claimed one fared.
    pub standing: Standing,
}

/// How a token fared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// It is the one that is drawn.
    Drawn,
    /// It took part, and lost.
    Lost {
        /// By how much: the winner's distance and noise together, less its own (spec 6.3), so in
        /// the logits' units divided by the temperature; at temperature 0, of adjusted logits.
        /// 0 if it is an equal with a higher id.
        by: f64,
    },
    /// It didn't take part.
    Excluded(Rule),
}

/// Why a token took no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Its id isn't in the vocabulary.
    Vocabulary,
    /// The mask doesn't allow it (spec 3.5).
    Mask,
    /// It ends the answer before `min_tokens` (spec 3.6).
    MinTokens,
    /// Spec 5.2.
    TopK,
    /// Spec 5.3.
    MinP,
    /// Spec 5.4.
    TopP,
}

impl Sampler {
    /// Draws like [`Sampler::sample_masked`], and says how the token `claimed` fared.
    #[allow(clippy::too_many_arguments, reason = "those of a draw, and one")]
    pub fn weigh(
        &self,
        choice: u8,
        position: u32,
        logits: &[f32],
        prompt: &[u32],
        output_so_far: &[u32],
        mask: Option<&TokenMask>,
        claimed: u32,
    ) -> Result<Weighed, SampleError> {
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
            let value = adjusted.value(claimed);
            let excluded = || match claimed {
                _ if claimed as usize >= self.vocab => Some(Rule::Vocabulary),
                _ if mask.is_some_and(|mask| !mask.allows(claimed)) => Some(Rule::Mask),
                _ => (value == f64::NEG_INFINITY).then_some(Rule::MinTokens),
            };
            if self.parameters.temperature == 0.0 {
                let (drawn, best) = adjusted.best;
                let standing = match excluded() {
                    Some(rule) => Standing::Excluded(rule),
                    None if drawn == claimed => Standing::Drawn,
                    None => Standing::Lost { by: best - value },
                };
                return Ok(Weighed { drawn, standing });
            }
            let survivors = Survivors::of(&adjusted, &self.parameters, found);
            let noise = Noise::new(self, &input);
            let (drawn, score) = noise.winner(&adjusted, survivors.last());
            let distance = adjusted.distance(value);
            let left_out = |last: Last| !last.admits(distance, claimed);
            let standing = match excluded() {
                Some(rule) => Standing::Excluded(rule),
                None if drawn == claimed => Standing::Drawn,
                None if left_out(survivors.top_k) => Standing::Excluded(Rule::TopK),
                None if left_out(survivors.min_p) => Standing::Excluded(Rule::MinP),
                None if left_out(survivors.top_p) => Standing::Excluded(Rule::TopP),
                None => Standing::Lost {
                    by: score - (distance + noise.of(claimed)),
                },
            };
            Ok(Weighed { drawn, standing })
        })
    }
}
