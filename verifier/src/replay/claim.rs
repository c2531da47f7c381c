//! One choice of a receipt, as a replay takes it, and the search for its ids.

use std::sync::Arc;

use models::{Grammar, Model, Sampler, Special};
use protocol::Digest;
use protocol::receipt::{Finish, Output};
use protocol::sampling::Sampling;
use protocol::verdict::Ids;

use super::blocks_for;

/// One choice to be computed again.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Whose it is, for the caller.
    pub case: usize,
    /// Its number in the request.
    pub number: u8,
    pub prompt: Arc<[u32]>,
    pub sampling: Arc<Sampling>,
    pub sampler: Arc<Sampler>,
    /// What it must follow, if anything.
    pub grammar: Option<Arc<Grammar>>,
    /// What the receipt says of it.
    pub claim: Output,
    /// Its ids, where they are known: they have the claim's hash.
    pub known: Option<Vec<u32>>,
    pub ids: Ids,
    /// Counts of tokens at which the receipt's checkpoints were signed, ascending.
    pub marks: Vec<u32>,
    /// Its text, which helps where the ids aren't known.
    pub text: Option<String>,
    /// Whether that is all of it.
    pub whole: bool,
}

impl Choice {
    /// The part of the prompt that no token is drawn from.
    pub fn shared_prompt(&self) -> &[u32] {
        &self.prompt[..self.prompt.len() - 1]
    }

    /// Blocks that it takes at most.
    pub fn blocks_max(&self) -> usize {
        blocks_for(self.prompt.len() + self.claim.tokens as usize)
    }
}

/// The ids of a choice, if the response shows them or its text, spelled as the
/// tokenizer spells it, has the receipt's hash.
pub fn known_ids(
    model: &Model,
    sampling: &Sampling,
    claim: &Output,
    shown: Option<&Vec<u32>>,
    text: Option<&str>,
) -> Option<(Vec<u32>, Ids)> {
    let is_it = |ids: &[u32]| {
        ids.len() == claim.tokens as usize && Digest::of_tokens(ids) == claim.tokens_sha256
    };
    if let Some(shown) = shown.filter(|ids| is_it(ids)) {
        return Some((shown.clone(), Ids::Response));
    }
    if claim.tokens == 0 {
        return is_it(&[]).then(|| (Vec::new(), Ids::Text));
    }
    let text = text?;
    let spell = |text: &str| model.tokenizer().encode(text, Special::AsText);
    let mut spellings = vec![spell(text)];
    if claim.finish == Finish::Stop {
        let stopped = sampling.stop.iter();
        spellings.extend(stopped.map(|stop| spell(&format!("{text}{stop}"))));
        let ends = model.config().eos.iter().chain(&sampling.stop_token_ids);
        let plain = spellings[0].clone();
        spellings.extend(ends.map(|end| [plain.as_slice(), &[*end]].concat()));
    }
    spellings
        .into_iter()
        .find(|ids| is_it(ids))
        .map(|ids| (ids, Ids::Text))
}
