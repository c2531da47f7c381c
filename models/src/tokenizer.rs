//! Text to token ids and back, as the model's GGUF metadata says.
//!
//! Special tokens are split off here, because whether their text counts as the
//! token is the caller's choice, text by text. What is between them is merged
//! in one of two ways: `byte_level` by a list of merges, `scores` by the scores
//! of pieces. docs/spec/text.md, 4, has the rules. Start at [`Tokenizer::encode`].

use crate::gguf::{Gguf, GgufError};

mod byte_level;
mod scores;
mod whole;

use byte_level::ByteLevel;
use scores::Scores;
use whole::Whole;

/// How a special token's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// As ordinary text: what a client wrote stays text.
    AsText,
    /// As the token: for rendered chat templates.
    Parse,
}

/// The model's tokenizer.
pub struct Tokenizer {
    merges: Merges,
    pieces: Pieces,
    kinds: Vec<PieceKind>,
    /// What is split off before merging where special tokens are text, and where they are parsed.
    user_defined: Whole,
    whole: Whole,
}

/// The bytes of each id.
type Pieces = Vec<Box<[u8]>>;

/// How characters become longer and longer pieces.
enum Merges {
    ByteLevel(ByteLevel),
    Scores(Scores),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Normal,
    /// Split off only when special tokens are parsed; never part of an answer.
    Control,
    /// Split off always, but ordinary text.
    UserDefined,
    /// One byte of a character that has no piece.
    Byte,
    /// Never made from text.
    Unused,
}

/// Why a tokenizer can't be built.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// An entry of the file.
    #[error("reading the vocabulary")]
    Entry(#[source] GgufError),
    /// A tokenizer model that we don't have.
    #[error("the tokenizer `{0}` isn't supported")]
    Model(String),
    /// A pre-tokenizer that we don't have.
    #[error("the pre-tokenizer `{0}` isn't supported")]
    PreTokenizer(String),
    /// A vocabulary by scores that wants a space in front of texts.
    #[error("a space in front of texts (`add_space_prefix`) isn't supported")]
    SpacePrefix,
    /// Lists that don't fit each other.
    #[error("the vocabulary is inconsistent: {0}")]
    Vocabulary(&'static str),
    /// The merges.
    #[error("building the merge table")]
    Merges(#[source] tokenizers::Error),
}

impl Tokenizer {
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Tokenizer, TokenizerError> {
        let model = gguf
            .text("tokenizer.ggml.model")
            .map_err(TokenizerError::Entry)?;
        let tokens = gguf
            .texts("tokenizer.ggml.tokens")
            .map_err(TokenizerError::Entry)?;
        let kinds = gguf
            .numbers("tokenizer.ggml.token_type")
            .map_err(TokenizerError::Entry)?;
        let kinds: Vec<PieceKind> = kinds.iter().copied().map(PieceKind::of).collect();
        if kinds.len() != tokens.len() {
            return Err(TokenizerError::Vocabulary("not one type for each token"));
        }
        let (merges, pieces) = match model {
            "gpt2" => {
                let (merges, pieces) = ByteLevel::from_gguf(gguf, &tokens, &kinds)?;
                (Merges::ByteLevel(merges), pieces)
            }
            "llama" => {
                let (merges, pieces) = Scores::from_gguf(gguf, &tokens, &kinds)?;
                (Merges::Scores(merges), pieces)
            }
            other => return Err(TokenizerError::Model(other.to_owned())),
        };
        Tokenizer::new(merges, pieces, kinds)
    }

    fn new(
        merges: Merges,
        pieces: Pieces,
        kinds: Vec<PieceKind>,
    ) -> Result<Tokenizer, TokenizerError> {
        let of = |wanted: &[PieceKind]| {
            let all = (0_u32..).zip(&pieces).zip(&kinds);
            let ours = all.filter(|(_, kind)| wanted.contains(kind));
            Whole::new(ours.map(|((id, piece), _)| (id, piece.as_ref())))
                .ok_or(TokenizerError::Vocabulary("a special token is empty"))
        };
        Ok(Tokenizer {
            user_defined: of(&[PieceKind::UserDefined])?,
            whole: of(&[PieceKind::UserDefined, PieceKind::Control])?,
            merges,
            pieces,
            kinds,
        })
    }

    /// The ids of a text. Nothing is added to it; bytes that a byte-level vocabulary lacks (a few
    /// control characters in some models) are dropped, as other implementations do.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let whole = match special {
            Special::AsText => &self.user_defined,
            Special::Parse => &self.whole,
        };
        let mut rest = text;
        while let Some((at, id)) = whole.first_in(rest.as_bytes()) {
            self.merge(&rest[..at], &mut ids);
            ids.push(id);
            rest = &rest[at + self.pieces[id as usize].len()..];
        }
        self.merge(rest, &mut ids);
        ids
    }

    /// The bytes of ids, special tokens as their text; ids past the vocabulary give nothing.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let pieces = ids.iter().filter_map(|&id| self.piece(id));
        pieces.flatten().copied().collect()
    }

    /// The bytes of one id, if it is in the vocabulary.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        self.pieces.get(id as usize).map(AsRef::as_ref)
    }

    /// Whether the id is a special token, whose text isn't part of an answer.
    pub fn is_special(&self, id: u32) -> bool {
        self.kinds.get(id as usize) == Some(&PieceKind::Control)
    }

    /// Ids there are: 0 to this, exclusive.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The special tokens whose text is one of `texts`.
    pub(crate) fn specials_named(&self, texts: &[&str]) -> Vec<u32> {
        let ids = texts
            .iter()
            .filter_map(|text| self.whole.id(text.as_bytes()));
        ids.filter(|id| self.is_special(*id)).collect()
    }

    fn merge(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        match &self.merges {
            Merges::ByteLevel(merges) => merges.encode(text, ids),
            Merges::Scores(merges) => merges.encode(text, ids),
        }
    }
}

impl PieceKind {
    /// By its number in the file.
    fn of(number: i64) -> PieceKind {
        match number {
            2 | 3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => PieceKind::Normal,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
