//! What rows must be, as fingerprints, and what rows were.
//!
//! Logits of 100,000 positions don't fit into memory, so each row is kept as
//! 128 bits. A row that differs in one number always has another fingerprint;
//! rows that differ are kept, and counted number by number in the end.

use models::exact::{Chunk, ExactModel, Output, Want};

/// The fingerprints of all windows.
pub struct Expected {
    windows: Vec<Vec<u32>>,
    rows: Vec<Vec<u128>>,
}

impl Expected {
    /// Computes each window alone and in one chunk.
    pub fn compute(model: &ExactModel, windows: Vec<Vec<u32>>) -> anyhow::Result<Self> {
        let mut rows = Vec::new();
        for tokens in &windows {
            let mut prints = Vec::with_capacity(tokens.len());
            let mut cache = model.new_cache();
            let mut work = [Chunk {
                cache: &mut cache,
                tokens,
                logits: Want::All,
            }];
            model.forward_each(&mut work, &mut |row| {
                prints.push(fingerprint(row.hidden, row.logits));
            })?;
            rows.push(prints);
        }
        Ok(Self { windows, rows })
    }

    /// The first windows, at least `tokens` tokens together.
    pub fn first(&self, tokens: usize) -> Self {
        let mut count = 0;
        let mut windows = Vec::new();
        for window in &self.windows {
            if count >= tokens {
                break;
            }
            let part = &window[..usize::min(window.len(), tokens - count)];
            windows.push(part.to_vec());
            count += part.len();
        }
        let rows = self.rows.iter().zip(&windows);
        let rows = rows.map(|(rows, window)| rows[..window.len()].to_vec());
        Self {
            rows: rows.collect(),
            windows,
        }
    }

    /// The windows.
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// Tokens of all windows.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }
}

/// A row that isn't what it must be.
struct Wrong {
    window: usize,
    position: usize,
    hidden: Vec<f32>,
    logits: Vec<f32>,
}

/// Wrong rows that are kept; of more, each counts as one wrong value.
const KEPT: usize = 64;

/// Rows of one way to compute the windows.
pub struct Comparison<'a> {
    expected: &'a Expected,
    tokens: usize,
    wrong: Vec<Wrong>,
    more_wrong: u64,
}

impl<'a> Comparison<'a> {
    /// Nothing seen yet.
    pub fn with(expected: &'a Expected) -> Self {
        Self {
            expected,
            tokens: 0,
            wrong: Vec::new(),
            more_wrong: 0,
        }
    }

    /// Compares one row.
    pub fn see(&mut self, window: usize, position: usize, hidden: &[f32], logits: &[f32]) {
        self.tokens += 1;
        if fingerprint(hidden, logits) == self.expected.rows[window][position] {
            return;
        }
        if self.wrong.len() == KEPT {
            self.more_wrong += 1;
            return;
        }
        self.wrong.push(Wrong {
            window,
            position,
            hidden: hidden.to_vec(),
            logits: logits.to_vec(),
        });
    }

    /// Rows seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many numbers differ from what `witness`, which computed what is
    /// expected, gives for the wrong rows.
    pub fn differing_values(self, witness: &ExactModel) -> anyhow::Result<u64> {
        let mut count = self.more_wrong;
        for wrong in &self.wrong {
            let tokens = &self.expected.windows[wrong.window][..=wrong.position];
            let mut cache = witness.new_cache();
            let mut work = [Chunk {
                cache: &mut cache,
                tokens,
                logits: Want::Last,
            }];
            let Output { hidden, logits } = witness.forward(&mut work)?.swap_remove(0);
            let differing =
                differing(&wrong.hidden, &hidden[0]) + differing(&wrong.logits, &logits[0]);
            // Different when seen, so at least one: even if the witness errs now.
            count += differing.max(1);
        }
        Ok(count)
    }
}

fn differing(a: &[f32], b: &[f32]) -> u64 {
    let pairs = a.iter().zip(b);
    let count = pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    (count + a.len().abs_diff(b.len())) as u64
}

/// 128 bits of a row. Every step is a bijection of its lane's state, so a
/// change of one number always changes the end; changes of several cancel each
/// other with a chance of about 2⁻⁶⁴.
pub fn fingerprint(hidden: &[f32], logits: &[f32]) -> u128 {
    let mut lanes: [u64; 8] = std::array::from_fn(|i| 0x9E37_79B9_7F4A_7C15 ^ i as u64);
    for part in [hidden, logits] {
        let (chunks, rest) = part.as_chunks::<16>();
        for chunk in chunks {
            mix(&mut lanes, chunk);
        }
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        mix(&mut lanes, &last);
    }
    let fold = |lanes: &[u64]| {
        let step =
            |state, lane: &u64| u64::wrapping_mul(u64::rotate_left(state, 29) ^ lane, FACTOR);
        lanes.iter().fold(0, step)
    };
    u128::from(fold(&lanes[..4])) << 64 | u128::from(fold(&lanes[4..]))
}

const FACTOR: u64 = 0xD6E8_FEB8_6659_FD93;

#[inline]
fn mix(lanes: &mut [u64; 8], numbers: &[f32; 16]) {
    for (i, lane) in lanes.iter_mut().enumerate() {
        let (low, high) = (numbers[2 * i].to_bits(), numbers[2 * i + 1].to_bits());
        let state = (*lane ^ (u64::from(high) << 32 | u64::from(low))).wrapping_mul(FACTOR);
        *lane = state ^ state >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_changed_bit_changes_the_fingerprint() {
        let hidden: Vec<f32> = (0..37).map(|i| i as f32).collect();
        let logits: Vec<f32> = (0..53).map(|i| i as f32 * 0.5).collect();
        let expected = fingerprint(&hidden, &logits);
        for at in 0..90 {
            for bit in [0, 13, 31] {
                let (mut hidden, mut logits) = (hidden.clone(), logits.clone());
                let number = match at < 37 {
                    true => &mut hidden[at],
                    false => &mut logits[at - 37],
                };
                *number = f32::from_bits(number.to_bits() ^ 1 << bit);
                assert_ne!(fingerprint(&hidden, &logits), expected);
            }
        }
        let mut swapped = logits.clone();
        swapped.swap(3, 4);
        assert_ne!(fingerprint(&hidden, &swapped), expected);
    }

    #[test]
    fn every_differing_number_counts() {
        assert_eq!(differing(&[1.0, 0.0, 3.0], &[1.0, -0.0, 2.0]), 2);
        assert_eq!(differing(&[1.0], &[]), 1);
    }
}
