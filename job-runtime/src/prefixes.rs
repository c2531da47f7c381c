//! The beginnings of sequences that needn't be computed again.
//!
//! Keeps full KV blocks by a hash over everything that they depend on: who
//! may share them, and all tokens up to their end. A block that a sequence
//! holds stays; the others stay until their memory is wanted, least recently
//! used first, and a block never goes before those that continue it. A hit
//! saves time and changes no bit, but its speed tells that somebody has sent
//! the same beginning: hence [`PrefixSharing`]. Start at [`Prefixes::take`].

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use protocol::digest::Hasher;
use protocol::{Did, Digest};
use serde::{Deserialize, Serialize};

/// Whose requests may begin with what was computed for another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixSharing {
    /// Nobody's.
    Off,
    /// A client's own. Unsigned requests share nothing: nobody knows whose they are.
    #[default]
    Client,
    /// Everybody's. A client can then find out, by how soon its answer begins, whether
    /// somebody else has sent the same beginning.
    All,
}

impl FromStr for PrefixSharing {
    type Err = NotASharing;

    fn from_str(text: &str) -> Result<Self, NotASharing> {
        match text {
            "off" => Ok(Self::Off),
            "client" => Ok(Self::Client),
            "all" => Ok(Self::All),
            _ => Err(NotASharing),
        }
    }
}

/// A text that names no [`PrefixSharing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is off, client or all")]
pub struct NotASharing;

/// Those who share prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope(Digest);

impl PrefixSharing {
    /// With whom a request shares; none: with no other request.
    pub(crate) fn scope(self, client: Option<&Did>) -> Option<Scope> {
        let whose = match self {
            Self::Off => return None,
            Self::Client => client?.to_string(),
            Self::All => "all".to_owned(),
        };
        Some(Scope(Digest::of(whose.as_bytes())))
    }
}

/// Names a block: its scope and all tokens up to its end.
pub(crate) type BlockKey = Digest;

/// The keys of a sequence's full blocks, for as many tokens as it has.
#[derive(Debug, Clone)]
pub(crate) struct BlockKeys {
    scope: Option<Scope>,
    block_tokens: usize,
    keys: Vec<BlockKey>,
}

impl BlockKeys {
    pub(crate) fn new(scope: Option<Scope>, block_tokens: usize) -> Self {
        Self {
            scope,
            block_tokens,
            keys: Vec::new(),
        }
    }

    /// The keys of the full blocks among `tokens`, which only ever grow. None without a scope.
    pub(crate) fn of(&mut self, tokens: &[u32]) -> &[BlockKey] {
        let Some(Scope(scope)) = self.scope else {
            return &[];
        };
        let blocks = tokens.chunks_exact(self.block_tokens);
        for block in blocks.skip(self.keys.len()) {
            let mut hash = Hasher::new();
            hash.update(self.keys.last().unwrap_or(&scope).as_bytes());
            block.iter().for_each(|token| hash.update_token(*token));
            self.keys.push(hash.finish());
        }
        &self.keys
    }

    /// The keys so far.
    pub(crate) fn known(&self) -> &[BlockKey] {
        &self.keys
    }
}

/// Full blocks by their keys. `B` is the model's block.
pub(crate) struct Prefixes<B> {
    blocks: HashMap<BlockKey, Kept<B>>,
    /// Those that no sequence holds, by when one last did.
    idle: BTreeMap<u64, BlockKey>,
    clock: u64,
}

struct Kept<B> {
    block: Arc<B>,
    /// Sequences that hold it.
    holders: usize,
    /// Its place in `idle` when there are none.
    left: u64,
}

impl<B> Prefixes<B> {
    pub(crate) fn new() -> Self {
        Self {
            blocks: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Blocks that are kept and no sequence holds.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// How many blocks, from the first on, are here, and how many of those are idle.
    pub(crate) fn find(&self, keys: &[BlockKey]) -> (usize, usize) {
        let found = keys.iter().map_while(|key| self.blocks.get(key));
        found.fold((0, 0), |(all, idle), kept| {
            (all + 1, idle + usize::from(kept.holders == 0))
        })
    }

    /// Gives the blocks that are here, from the first on, to a sequence.
    pub(crate) fn take(&mut self, keys: &[BlockKey]) -> Vec<Arc<B>> {
        let (found, _) = self.find(keys);
        keys[..found].iter().map(|key| self.hold(key)).collect()
    }

    /// Counts one more sequence that holds a block that is kept.
    pub(crate) fn hold(&mut self, key: &BlockKey) -> Arc<B> {
        let kept = self.blocks.get_mut(key).expect("what is held is kept");
        if kept.holders == 0 {
            self.idle.remove(&kept.left);
        }
        kept.holders += 1;
        Arc::clone(&kept.block)
    }

    /// Keeps a block that a sequence has filled and holds; false if another block of the
    /// same content is kept already.
    pub(crate) fn keep(&mut self, key: BlockKey, block: &Arc<B>) -> bool {
        let vacant = !self.blocks.contains_key(&key);
        if vacant {
            let kept = Kept {
                block: Arc::clone(block),
                holders: 1,
                left: 0,
            };
            self.blocks.insert(key, kept);
        }
        vacant
    }

    /// A sequence lets go of blocks that it held, in order of position.
    pub(crate) fn release<'a>(&mut self, keys: impl DoubleEndedIterator<Item = &'a BlockKey>) {
        // The last one first: what continues a block goes before it.
        for key in keys.rev() {
            let kept = self.blocks.get_mut(key).expect("what is held is kept");
            kept.holders -= 1;
            if kept.holders == 0 {
                self.clock += 1;
                kept.left = self.clock;
                self.idle.insert(self.clock, *key);
            }
        }
    }

    /// Gives the memory of the block back that was idle for longest; false if there is none.
    pub(crate) fn evict(&mut self) -> bool {
        let Some((_, key)) = self.idle.pop_first() else {
            return false;
        };
        self.blocks.remove(&key).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(scope: PrefixSharing, client: Option<u8>, tokens: &[u32]) -> Vec<BlockKey> {
        let did = client.map(|seed| protocol::SigningKey::from_seed([seed; 32]).did());
        let mut keys = BlockKeys::new(scope.scope(did.as_ref()), 2);
        keys.of(&tokens[..tokens.len() / 2]);
        keys.of(tokens).to_vec()
    }

    #[test]
    fn a_key_is_of_everything_before_it_and_of_who_asks() {
        use PrefixSharing::{All, Client, Off};
        let tokens = [1, 2, 3, 4, 5];
        let mine = keys(Client, Some(1), &tokens);
        assert_eq!(mine.len(), 2, "the third block isn't full");
        assert_eq!(mine, keys(Client, Some(1), &[1, 2, 3, 4, 9]));
        assert_eq!(mine[0], keys(Client, Some(1), &[1, 2, 9])[0]);
        assert_ne!(mine[1], keys(Client, Some(1), &[9, 2, 3, 4])[1]);
        assert_ne!(mine[0], keys(Client, Some(2), &tokens)[0]);
        assert_eq!(keys(All, Some(1), &tokens), keys(All, None, &tokens));
        assert!(keys(Client, None, &tokens).is_empty());
        assert!(keys(Off, Some(1), &tokens).is_empty());
    }

    #[test]
    fn the_longest_idle_goes_first_and_never_before_what_continues_it() {
        let key = |n: u8| Digest::of(&[n]);
        let (a, b, c) = (key(1), key(2), key(3));
        let mut prefixes = Prefixes::new();
        // a, b by one sequence; a, c by another.
        for key in [a, b, c] {
            assert!(prefixes.keep(key, &Arc::new(())));
        }
        assert!(!prefixes.keep(a, &Arc::new(())), "one is enough");
        prefixes.hold(&a);
        assert!(!prefixes.evict(), "all are held");
        prefixes.release([a, b].iter());
        assert_eq!((prefixes.idle(), prefixes.find(&[a, b])), (1, (2, 1)));
        prefixes.release([a, c].iter());
        assert_eq!(prefixes.find(&[a, c]), (2, 2));
        assert_eq!(prefixes.take(&[a, b]).len(), 2);
        prefixes.release([a, b].iter());
        for (left, gone) in [(2, c), (1, b), (0, a)] {
            assert!(prefixes.evict());
            assert_eq!((prefixes.idle(), prefixes.find(&[gone])), (left, (0, 0)));
        }
        assert!(!prefixes.evict());
    }
}
