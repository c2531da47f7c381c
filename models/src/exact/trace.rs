//! The chain that binds output tokens to the hidden states they were drawn
//! from (spec 7).

use protocol::Digest;
use protocol::digest::Hasher;

/// A receipt's `trace` while tokens are drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace(Digest);

impl Trace {
    /// Before the first token.
    pub fn new() -> Self {
        Self(Digest::of(b"countersign-trace/1"))
    }

    /// Adds a token and the final hidden state whose logits it was drawn from.
    pub fn absorb(&mut self, token: u32, hidden: &[f32]) {
        let mut hash = Hasher::new();
        hash.update(self.0.as_bytes());
        hash.update_token(token);
        // A hash is updated faster with some bytes at a time.
        for numbers in hidden.chunks(64) {
            let mut bytes = [0; 256];
            for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
                *bytes = x.to_bits().to_le_bytes();
            }
            hash.update(&bytes[..4 * numbers.len()]);
        }
        self.0 = hash.finish();
    }

    /// The trace of the tokens so far.
    pub fn digest(&self) -> Digest {
        self.0
    }

    /// What a receipt states for these choices, in order of index (spec 7.2); none
    /// if no token was drawn.
    pub fn claim(choices: &[Trace]) -> Option<Digest> {
        if choices.iter().all(|choice| *choice == Trace::new()) {
            return None;
        }
        if let [one] = choices {
            return Some(one.0);
        }
        let mut hash = Hasher::new();
        for choice in choices {
            hash.update(choice.0.as_bytes());
        }
        Some(hash.finish())
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python's hashlib and struct.
    #[test]
    fn a_trace_is_as_specified() {
        let mut trace = Trace::new();
        let hidden: Vec<f32> = (0..100).map(|i| i as f32 * 0.25 - 7.0).collect();
        trace.absorb(5, &hidden);
        trace.absorb(70_000, &hidden[..3]);
        assert_eq!(trace.digest().to_string(), EXPECTED);
    }

    /// Made with Python's hashlib.
    #[test]
    fn choices_share_one_claim() {
        let (untouched, mut drawn) = (Trace::new(), Trace::new());
        drawn.absorb(5, &[1.5]);
        assert_eq!(Trace::claim(&[untouched.clone(), untouched.clone()]), None);
        assert_eq!(Trace::claim(&[drawn.clone()]), Some(drawn.digest()));
        let both = Trace::claim(&[drawn, untouched]).unwrap();
        assert_eq!(both.to_string(), OF_TWO);
    }

    const OF_TWO: &str = "83340c87b9b0f7847a8df865dbcf6a233bd3db8fd31351faca8b4987097921a7";

    const EXPECTED: &str = "9425406408086b902d8bcf98107716bb44eb99921547c459be60e4b212a628e7";
}
