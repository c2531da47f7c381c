//! Remembers what may be used once, for as long as it could be used again.

use std::collections::{BTreeSet, HashSet};

use protocol::{Digest, UnixMs};

/// A memory of used values, by their digest.
#[derive(Debug, Default)]
pub(crate) struct SingleUse {
    used: HashSet<Digest>,
    /// The same values, the first to be forgotten first.
    until: BTreeSet<(UnixMs, Digest)>,
}

impl SingleUse {
    /// Uses a value; false if it was used before. It is remembered until after `until`.
    pub(crate) fn spend(&mut self, value: Digest, until: UnixMs, now: UnixMs) -> bool {
        self.forget(now);
        let fresh = self.used.insert(value);
        if fresh {
            self.until.insert((until, value));
        }
        fresh
    }

    fn forget(&mut self, now: UnixMs) {
        while let Some((until, value)) = self.until.first().copied()
            && until < now
        {
            self.until.pop_first();
            self.used.remove(&value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_used_once_until_it_is_forgotten() {
        let mut memory = SingleUse::default();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut spend = |value, until, now| memory.spend(value, UnixMs(until), UnixMs(now));
        assert!(spend(a, 10, 0));
        assert!(!spend(a, 99, 10), "still remembered at its last moment");
        assert!(spend(b, 30, 10));
        assert!(
            spend(a, 40, 11),
            "forgotten, since nothing accepts it any more"
        );
        assert!(!spend(b, 30, 12));
        assert_eq!(memory.used.len(), memory.until.len());
    }
}
