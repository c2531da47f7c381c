//! Text to token ids and back, as the model's GGUF metadata says.
//!
//! Merging is done by the `tokenizers` crate. Special tokens are split off
//! here, because whether their text counts as the token is the caller's
//! choice, text by text. Start at [`Tokenizer::encode`].

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::gguf::{Gguf, GgufError};

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
    merges: tokenizers::Tokenizer,
    /// The bytes of each id.
    pieces: Vec<Box<[u8]>>,
    kinds: Vec<PieceKind>,
    /// Ids that are split off before merging, longest text first.
    whole: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Normal,
    /// Split off only when special tokens are parsed; never part of an answer.
    Control,
    /// Split off always, but ordinary text.
    UserDefined,
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
        if model != "gpt2" {
            return Err(TokenizerError::Model(model.to_owned()));
        }
        let pre = gguf
            .text("tokenizer.ggml.pre")
            .map_err(TokenizerError::Entry)?;
        let split: Vec<PreTokenizerWrapper> = match pre {
            "smollm" => vec![
                Digits::new(true).into(),
                ByteLevel::new(false, false, true).into(),
            ],
            other => return Err(TokenizerError::PreTokenizer(other.to_owned())),
        };
        let tokens = gguf
            .texts("tokenizer.ggml.tokens")
            .map_err(TokenizerError::Entry)?;
        let kinds = gguf
            .numbers("tokenizer.ggml.token_type")
            .map_err(TokenizerError::Entry)?;
        let merges = gguf
            .texts("tokenizer.ggml.merges")
            .map_err(TokenizerError::Entry)?;

        let mut merger = tokenizers::Tokenizer::new(merge_table(&tokens, &merges)?);
        merger.with_pre_tokenizer(Some(Sequence::new(split)));
        Tokenizer::new(merger, &tokens, &kinds)
    }

    fn new(
        merges: tokenizers::Tokenizer,
        tokens: &[&str],
        kinds: &[i64],
    ) -> Result<Tokenizer, TokenizerError> {
        if kinds.len() != tokens.len() {
            return Err(TokenizerError::Vocabulary("not one type for each token"));
        }
        let kinds: Vec<PieceKind> = kinds
            .iter()
            .map(|kind| match kind {
                3 => PieceKind::Control,
                4 => PieceKind::UserDefined,
                _ => PieceKind::Normal,
            })
            .collect();
        let alphabet = byte_alphabet();
        let mut pieces = Vec::with_capacity(tokens.len());
        for (token, kind) in tokens.iter().zip(&kinds) {
            pieces.push(match kind {
                PieceKind::Normal => spelled_bytes(token, &alphabet).ok_or(
                    TokenizerError::Vocabulary("a token has a character that is no byte"),
                )?,
                _ => token.as_bytes().into(),
            });
        }
        let mut whole: Vec<u32> = (0u32..)
            .zip(&kinds)
            .filter(|(_, kind)| **kind != PieceKind::Normal)
            .map(|(id, _)| id)
            .collect();
        if whole.iter().any(|&id| pieces[id as usize].is_empty()) {
            return Err(TokenizerError::Vocabulary("a special token is empty"));
        }
        whole.sort_by_key(|&id| std::cmp::Reverse(pieces[id as usize].len()));
        Ok(Tokenizer {
            merges,
            pieces,
            kinds,
            whole,
        })
    }

    /// The ids of a text. Nothing is added to it; bytes that the vocabulary lacks (a few control
    /// characters in some models) are dropped, as other implementations do.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut rest = text;
        while let Some((at, id)) = self.next_whole(rest, special) {
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
    pub(crate) fn specials_named<'a>(
        &'a self,
        texts: &'a [&str],
    ) -> impl Iterator<Item = u32> + 'a {
        let named = |id: &u32| {
            texts
                .iter()
                .any(|t| *t.as_bytes() == *self.pieces[*id as usize])
        };
        self.whole
            .iter()
            .copied()
            .filter(move |id| self.is_special(*id) && named(id))
    }

    /// The first token in `text` that isn't made by merging, the longest where several begin.
    fn next_whole(&self, text: &str, special: Special) -> Option<(usize, u32)> {
        let counts = |kind| special == Special::Parse || kind == PieceKind::UserDefined;
        let bytes = text.as_bytes();
        let candidates: Vec<u32> = self
            .whole
            .iter()
            .copied()
            .filter(|&id| counts(self.kinds[id as usize]))
            .collect();
        let mut begins = [false; 256];
        for &id in &candidates {
            begins[usize::from(self.pieces[id as usize][0])] = true;
        }
        (0..bytes.len())
            .filter(|&at| begins[usize::from(bytes[at])])
            .find_map(|at| {
                let here = |id: &&u32| bytes[at..].starts_with(&self.pieces[**id as usize]);
                candidates.iter().find(here).map(|&id| (at, id))
            })
    }

    fn merge(&self, text: &str, ids: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let merged = self
            .merges
            .encode_fast(text, false)
            .expect("merging fails only on an unknown-token entry, and there is none");
        ids.extend_from_slice(merged.get_ids());
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

fn merge_table(tokens: &[&str], merges: &[&str]) -> Result<BPE, TokenizerError> {
    let vocab: HashMap<String, u32> = tokens
        .iter()
        .map(|token| (*token).to_owned())
        .zip(0..)
        .collect();
    if vocab.len() != tokens.len() {
        return Err(TokenizerError::Vocabulary("a token is there twice"));
    }
    let merges = merges
        .iter()
        .map(|merge| {
            merge
                .split_once(' ')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        })
        .collect::<Option<Vec<_>>>()
        .ok_or(TokenizerError::Vocabulary("a merge isn't two tokens"))?;
    BPE::builder()
        .vocab_and_merges(
            vocab
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges,
        )
        .build()
        .map_err(TokenizerError::Merges)
}

/// GPT-2's spelling of bytes as visible characters: those that are printable
/// stand for themselves, the others get the code points from 256 on.
fn byte_alphabet() -> HashMap<char, u8> {
    let visible = |b: &u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let hidden = (0..=255u8).filter(|b| !visible(b)).zip('\u{100}'..);
    let visible = (0..=255u8).filter(visible).map(|b| (b, char::from(b)));
    visible.chain(hidden).map(|(b, c)| (c, b)).collect()
}

fn spelled_bytes(token: &str, alphabet: &HashMap<char, u8>) -> Option<Box<[u8]>> {
    token.chars().map(|c| alphabet.get(&c).copied()).collect()
}
