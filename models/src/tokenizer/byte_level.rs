//! Merging by a list of merges, over bytes spelled as visible characters, as
//! GPT-2 does it. The work is the `tokenizers` crate's.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use super::{PieceKind, Pieces, TokenizerError};
use crate::gguf::Gguf;

/// A list of merges, and how text is cut up beforehand.
pub struct ByteLevel(tokenizers::Tokenizer);

impl ByteLevel {
    /// With the bytes of each token.
    pub fn from_gguf(
        gguf: &Gguf,
        tokens: &[&str],
        kinds: &[PieceKind],
    ) -> Result<(Self, Pieces), TokenizerError> {
        let pre = gguf
            .text("tokenizer.ggml.pre")
            .map_err(TokenizerError::Entry)?;
        let split: Vec<PreTokenizerWrapper> = match pre {
            "smollm" => vec![
                Digits::new(true).into(),
                byte_level::ByteLevel::new(false, false, true).into(),
            ],
            other => return Err(TokenizerError::PreTokenizer(other.to_owned())),
        };
        let merges = gguf
            .texts("tokenizer.ggml.merges")
            .map_err(TokenizerError::Entry)?;
        let mut merger = tokenizers::Tokenizer::new(merge_table(tokens, &merges)?);
        merger.with_pre_tokenizer(Some(Sequence::new(split)));
        Ok((Self(merger), pieces(tokens, kinds)?))
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let merged = self
            .0
            .encode_fast(text, false)
            .expect("merging fails only on an unknown-token entry, and there is none");
        ids.extend_from_slice(merged.get_ids());
    }
}

fn pieces(tokens: &[&str], kinds: &[PieceKind]) -> Result<Pieces, TokenizerError> {
    let alphabet = byte_alphabet();
    let pieces = tokens.iter().zip(kinds).map(|(token, kind)| match kind {
        PieceKind::Control | PieceKind::UserDefined => Some(token.as_bytes().into()),
        _ => spelled_bytes(token, &alphabet),
    });
    pieces
        .collect::<Option<_>>()
        .ok_or(TokenizerError::Vocabulary(
            "a token has a character that is no byte",
        ))
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
