//! Tokens that are split off a text before merging: found by their text, the
//! longest where several begin.

use std::collections::HashMap;

/// Some tokens, by text.
pub struct Whole {
    ids: HashMap<Box<[u8]>, u32>,
    /// Lengths of the texts that begin with a byte, longest first.
    lengths: Vec<Vec<usize>>,
}

impl Whole {
    /// Of tokens with the same text, the first counts. None if a text is empty.
    pub fn new<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Option<Whole> {
        let mut ids = HashMap::new();
        let mut lengths = vec![Vec::new(); 256];
        for (id, text) in tokens {
            lengths[usize::from(*text.first()?)].push(text.len());
            ids.entry(text.into()).or_insert(id);
        }
        for lengths in &mut lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Some(Whole { ids, lengths })
    }

    /// The token with this text.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// The first token in a text, and where it begins.
    pub fn first_in(&self, text: &[u8]) -> Option<(usize, u32)> {
        (0..text.len()).find_map(|at| {
            let lengths = self.lengths[usize::from(text[at])].iter();
            let mut here = lengths.filter_map(|length| text.get(at..at + length));
            Some((at, here.find_map(|text| self.id(text))?))
        })
    }
}
