//! Which tokens may be drawn at a position: one bit for each id.
//!
//! `grammar` makes them, the sampler obeys them.

/// A set of token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocab: usize,
}

impl TokenMask {
    /// The empty set, for a vocabulary of this size.
    pub fn none(vocab: usize) -> TokenMask {
        TokenMask {
            words: vec![0; vocab.div_ceil(32)],
            vocab,
        }
    }

    /// The set of these ids; those past the vocabulary are left out.
    pub fn of(vocab: usize, ids: impl IntoIterator<Item = u32>) -> TokenMask {
        let mut mask = TokenMask::none(vocab);
        ids.into_iter().for_each(|id| mask.allow(id));
        mask
    }

    /// The set whose bits are these words, as [`TokenMask::words`] gives them.
    pub(crate) fn of_words(vocab: usize, words: &[u32]) -> TokenMask {
        let mut mask = TokenMask::none(vocab);
        for (ours, theirs) in mask.words.iter_mut().zip(words) {
            *ours = *theirs;
        }
        if let Some(last) = mask.words.last_mut()
            && !vocab.is_multiple_of(32)
        {
            *last &= (1 << (vocab % 32)) - 1;
        }
        mask
    }

    /// Adds an id; one past the vocabulary is left out.
    pub fn allow(&mut self, id: u32) {
        if (id as usize) < self.vocab {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
    }

    /// Takes an id out.
    pub fn forbid(&mut self, id: u32) {
        if (id as usize) < self.vocab {
            self.words[id as usize / 32] &= !(1 << (id % 32));
        }
    }

    /// Whether the set has this id.
    pub fn allows(&self, id: u32) -> bool {
        let word = self.words.get(id as usize / 32);
        word.is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// How many ids it has.
    pub fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// The ids, ascending.
    pub fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.words).flat_map(|(at, &word)| {
            let bits = (0..32).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| 32 * at + bit)
        })
    }

    /// The bits: id `i` is bit `i mod 32` of word `i / 32`, and bits past the vocabulary are 0.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Ids there are, in the set or not.
    pub fn vocab(&self) -> usize {
        self.vocab
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_a_set_of_ids() {
        let mut mask = TokenMask::of(70, [0, 31, 32, 69, 70, u32::MAX]);
        assert_eq!(mask.ids().collect::<Vec<_>>(), [0, 31, 32, 69]);
        assert_eq!((mask.count(), mask.words().len()), (4, 3));
        mask.forbid(31);
        mask.forbid(70);
        assert!(!mask.allows(31) && mask.allows(69) && !mask.allows(70) && !mask.allows(4000));
        assert_eq!(TokenMask::none(70).count(), 0);
    }
}
