//! Which tokens a request's grammar allows next.
//!
//! A pure function of the request's body, the tokenizer and the tokens drawn so
//! far: the engine asks token by token, a replay may ask at any position alone
//! ([`Grammar::state_after`]), and both get the same mask. Normative in
//! `docs/spec/grammar.md`. Start at [`Grammar::for_ask`].

use std::sync::{Mutex, PoisonError};

use llguidance::Matcher;
use llguidance::api::StopReason;
use llguidance::toktrie::TokEnv;
use protocol::api::Ask;
use protocol::calls::BEGIN;

use crate::model::Model;
use crate::token_mask::TokenMask;

mod source;
mod vocabulary;

pub use source::GrammarRefused;
pub(crate) use vocabulary::Vocabulary;

/// The grammar of one request.
pub struct Grammar {
    /// Before the first token; only ever cloned.
    beginning: Mutex<Matcher>,
    /// Text that doesn't begin with [`BEGIN`] is free.
    or_free: bool,
    vocabulary: Words,
}

/// Where in its grammar one choice's output is. A clone goes its own way.
pub struct GrammarState {
    matcher: Matcher,
    at: At,
    vocabulary: Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The text is that many bytes of [`BEGIN`], and may still become free.
    Undecided(usize),
    /// The grammar's.
    Bound,
    /// Any text.
    Free,
    /// An end token was drawn.
    Ended,
}

/// Of the model, what a state needs.
#[derive(Clone)]
struct Words {
    trie: TokEnv,
    ends: Vec<u32>,
}

/// Why there is no mask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// The token isn't one that the grammar allows here.
    #[error("the grammar doesn't allow token {0} here")]
    Token(u32),
    /// The grammar costs more than its limits allow, or has no way on.
    #[error("the grammar can't go on: {0}")]
    Stuck(String),
}

impl Grammar {
    /// The grammar that a request asks for; none where any text will do.
    pub fn for_ask(ask: &Ask, model: &Model) -> Result<Option<Grammar>, GrammarRefused> {
        if ask.grammar().is_none() {
            return Ok(None);
        }
        let vocabulary = model.vocabulary();
        let matcher = source::compile(ask, |grammar| vocabulary.matcher(grammar))?;
        Ok(Some(Grammar::new(
            matcher,
            source::or_free(ask),
            vocabulary,
        )))
    }

    fn new(matcher: Matcher, or_free: bool, vocabulary: &Vocabulary) -> Grammar {
        Grammar {
            beginning: Mutex::new(matcher),
            or_free,
            vocabulary: Words {
                trie: vocabulary.trie(),
                ends: vocabulary.ends().to_vec(),
            },
        }
    }

    /// Before the first token of a choice.
    pub fn begin(&self) -> GrammarState {
        // A deep clone shares no cache, so that what one choice costs can't limit another.
        let beginning = self
            .beginning
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        GrammarState {
            matcher: beginning.deep_clone(),
            at: match self.or_free {
                true => At::Undecided(0),
                false => At::Bound,
            },
            vocabulary: self.vocabulary.clone(),
        }
    }

    /// After these tokens of a choice; an error names the first that isn't allowed.
    pub fn state_after(&self, output: &[u32]) -> Result<GrammarState, GrammarError> {
        let mut state = self.begin();
        for &token in output {
            state.advance(token)?;
        }
        Ok(state)
    }
}

impl GrammarState {
    /// The tokens that may come next; none: any.
    pub fn mask(&mut self) -> Result<Option<TokenMask>, GrammarError> {
        match self.at {
            At::Free => Ok(None),
            At::Ended => Ok(Some(self.ends())),
            At::Bound => self.bound().map(Some),
            At::Undecided(said) => {
                let bound = self.bound()?;
                let rest = &BEGIN.as_bytes()[said..];
                let trie = self.vocabulary.trie.tok_trie();
                let count = trie.vocab_size();
                // Only what completes the mark must go on as the grammar says.
                let allowed = |id: &u32| !trie.token(*id).starts_with(rest) || bound.allows(*id);
                let ids = (0..count as u32).filter(allowed);
                Ok(Some(TokenMask::of(count, ids)))
            }
        }
    }

    /// Takes the token that was drawn.
    pub fn advance(&mut self, token: u32) -> Result<(), GrammarError> {
        if self.vocabulary.ends.contains(&token) {
            if self.at == At::Bound && !self.complete() {
                return Err(GrammarError::Token(token));
            }
            self.at = At::Ended;
            return Ok(());
        }
        match self.at {
            At::Free => Ok(()),
            At::Ended => Err(GrammarError::Token(token)),
            At::Bound => self.consume(token),
            At::Undecided(said) => {
                let bytes = self.bytes(token).to_vec();
                let rest = &BEGIN.as_bytes()[said..];
                if bytes.starts_with(rest) {
                    self.at = At::Bound;
                } else if rest.starts_with(&bytes) {
                    self.at = At::Undecided(said + bytes.len());
                } else {
                    self.at = At::Free;
                    return Ok(());
                }
                match bytes.is_empty() {
                    true => Ok(()),
                    false => self.consume(token),
                }
            }
        }
    }

    /// Whether the output may end here.
    pub fn complete(&mut self) -> bool {
        self.at != At::Bound
            || self.matcher.is_stopped() && self.matcher.stop_reason().is_ok()
            || self.matcher.is_accepting().unwrap_or(false)
    }

    /// The bytes that a token says: none for a special one.
    fn bytes(&self, token: u32) -> &[u8] {
        let trie = self.vocabulary.trie.tok_trie();
        match (token as usize) < trie.vocab_size() {
            true => trie.token(token),
            false => &[],
        }
    }

    fn ends(&self) -> TokenMask {
        let vocab = self.vocabulary.trie.tok_trie().vocab_size();
        TokenMask::of(vocab, self.vocabulary.ends.iter().copied())
    }

    /// The grammar's own mask: end tokens exactly where its text is complete.
    fn bound(&mut self) -> Result<TokenMask, GrammarError> {
        if self.matcher.is_stopped() {
            return match self.matcher.stop_reason().is_ok() {
                true => Ok(self.ends()),
                false => Err(self.stuck()),
            };
        }
        let found = self.matcher.compute_mask().map_err(|_| self.stuck())?;
        let accepting = self.matcher.is_accepting().map_err(|_| self.stuck())?;
        let vocab = self.vocabulary.trie.tok_trie().vocab_size();
        let mut mask = TokenMask::of_words(vocab, found.as_slice());
        for &end in &self.vocabulary.ends {
            match accepting {
                true => mask.allow(end),
                false => mask.forbid(end),
            }
        }
        Ok(mask)
    }

    fn consume(&mut self, token: u32) -> Result<(), GrammarError> {
        let vocab = self.vocabulary.trie.tok_trie().vocab_size();
        if self.matcher.is_stopped() || token as usize >= vocab || self.bytes(token).is_empty() {
            return Err(GrammarError::Token(token));
        }
        match self.matcher.validate_tokens(&[token]) {
            Ok(1) => self.matcher.consume_token(token).map_err(|_| self.stuck()),
            Ok(_) => Err(GrammarError::Token(token)),
            Err(_) => Err(self.stuck()),
        }
    }

    fn stuck(&self) -> GrammarError {
        let why = match self.matcher.stop_reason() {
            StopReason::NoExtensionBias => "no token of the vocabulary goes on".to_owned(),
            reason => reason.to_string(),
        };
        GrammarError::Stuck(why)
    }
}

impl Clone for GrammarState {
    fn clone(&self) -> Self {
        GrammarState {
            matcher: self.matcher.deep_clone(),
            at: self.at,
            vocabulary: self.vocabulary.clone(),
        }
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GrammarState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("GrammarState");
        debug.field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
