//! A model's tokens as llguidance knows them, and what a grammar may cost.

use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use crate::model::ModelConfig;
use crate::tokenizer::Tokenizer;

/// A model's tokens by their bytes.
pub(crate) struct Vocabulary {
    parsers: ParserFactory,
    ends: Vec<u32>,
}

impl Vocabulary {
    pub(crate) fn new(tokenizer: &Tokenizer, config: &ModelConfig) -> Vocabulary {
        let ids = 0..u32::try_from(config.vocab).expect("token ids are 32-bit");
        // What says nothing, no grammar can allow.
        let says = |id: u32| match tokenizer.is_special(id) || config.eos.contains(&id) {
            true => Vec::new(),
            false => tokenizer.piece(id).unwrap_or_default().to_vec(),
        };
        Vocabulary::of(&ids.map(says).collect::<Vec<_>>(), &config.eos)
    }

    /// `words` are the bytes that each token says.
    pub(super) fn of(words: &[Vec<u8>], ends: &[u32]) -> Vocabulary {
        let vocab = u32::try_from(words.len()).expect("token ids are 32-bit");
        let info = TokRxInfo::new(vocab, ends.first().copied().unwrap_or(0));
        // Not canonical: every way to split an allowed text into tokens is allowed.
        let trie: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, words)));
        let slices = SlicedBiasComputer::general_slices();
        let mut parsers = ParserFactory::new(&trie, InferenceCapabilities::default(), &slices)
            .expect("llguidance's own slices are regular expressions");
        parsers.quiet();
        *parsers.limits_mut() = ParserLimits {
            max_items_in_row: 2_000,
            initial_lexer_fuel: 1_000_000,
            step_lexer_fuel: 200_000,
            step_max_items: 50_000,
            max_lexer_states: 50_000,
            max_grammar_size: 100_000,
            precompute_large_lexemes: false,
            verbose_errors: false,
        };
        Vocabulary {
            parsers,
            ends: ends.to_vec(),
        }
    }

    /// A grammar before the first token, or why it isn't one.
    pub(super) fn matcher(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let parser = self.parsers.create_parser(grammar);
        let mut matcher = Matcher::new(parser);
        if let Some(error) = matcher.get_error() {
            return Err(error);
        }
        match matcher.grammar_warnings().into_iter().next() {
            Some(warning) => Err(warning),
            None => Ok(matcher),
        }
    }

    pub(super) fn trie(&self) -> TokEnv {
        Arc::clone(self.parsers.tok_env())
    }

    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }
}
