//! Merging by the scores of pieces, as SentencePiece does it for vocabularies
//! of the kind BPE (spec text.md 4.3).

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::{PieceKind, Pieces, TokenizerError};
use crate::gguf::Gguf;

/// How a space is spelled in pieces.
const SPACE: &str = "\u{2581}";

/// Pieces that text is merged to, and what each is worth.
pub struct Scores {
    /// Ids and scores by text.
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// The token of each byte.
    bytes: [u32; 256],
}

/// A part of the text that has a piece, or is one character.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 once it is a part of the symbol before it.
    length: usize,
    before: usize,
    after: usize,
}

/// No symbol.
const NONE: usize = usize::MAX;

/// Two neighbours that make a piece. The greatest is merged first.
#[derive(Debug, PartialEq)]
struct Pair {
    score: f32,
    left: Reverse<usize>,
    right: usize,
    /// Of the piece. If the symbols have changed, their lengths no longer add up to it.
    length: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        let score = self.score.total_cmp(&other.score);
        score.then(self.left.cmp(&other.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Scores {
    /// With the bytes of each token.
    pub fn from_gguf(
        gguf: &Gguf,
        tokens: &[&str],
        kinds: &[PieceKind],
    ) -> Result<(Self, Pieces), TokenizerError> {
        let prefix = gguf
            .optional("tokenizer.ggml.add_space_prefix", Gguf::flag)
            .map_err(TokenizerError::Entry)?;
        if prefix != Some(false) {
            return Err(TokenizerError::SpacePrefix);
        }
        let scores = gguf
            .floats("tokenizer.ggml.scores")
            .map_err(TokenizerError::Entry)?;
        Scores::new(tokens, kinds, &scores)
    }

    pub(super) fn new(
        tokens: &[&str],
        kinds: &[PieceKind],
        scores: &[f32],
    ) -> Result<(Self, Pieces), TokenizerError> {
        if scores.len() != tokens.len() || scores.iter().any(|score| score.is_nan()) {
            return Err(TokenizerError::Vocabulary("not one score for each token"));
        }
        let mut pieces = HashMap::with_capacity(tokens.len());
        let mut bytes = [None; 256];
        let mut texts: Pieces = Vec::with_capacity(tokens.len());
        for (id, token) in (0_u32..).zip(tokens) {
            texts.push(match kinds[id as usize] {
                PieceKind::Normal => {
                    // −0 and +0 are one score.
                    let score = scores[id as usize] + 0.0;
                    if pieces.insert((*token).into(), (id, score)).is_some() {
                        return Err(TokenizerError::Vocabulary("a piece is there twice"));
                    }
                    token.replace(SPACE, " ").into_bytes().into()
                }
                PieceKind::Byte => {
                    let byte =
                        byte(token).ok_or(TokenizerError::Vocabulary("a byte token is no byte"))?;
                    bytes[usize::from(byte)] = Some(id);
                    [byte].into()
                }
                _ => token.as_bytes().into(),
            });
        }
        if bytes.contains(&None) {
            return Err(TokenizerError::Vocabulary("a byte has no token"));
        }
        let bytes = bytes.map(|id| id.expect("looked for just now"));
        Ok((Self { pieces, bytes }, texts))
    }

    /// Appends the ids of a text.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let text = text.replace(' ', SPACE);
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(i, (start, c))| Symbol {
                start,
                length: c.len_utf8(),
                before: i.wrapping_sub(1),
                after: i + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.after = NONE;
        }
        let pairs = (1..symbols.len()).filter_map(|right| self.pair(&text, &symbols, right));
        let mut pairs: BinaryHeap<Pair> = pairs.collect();
        while let Some(pair) = pairs.pop() {
            let (left, right) = (symbols[pair.left.0], symbols[pair.right]);
            let gone = left.length == 0 || right.length == 0;
            if gone || left.length + right.length != pair.length {
                continue;
            }
            symbols[pair.left.0].length = pair.length;
            symbols[pair.left.0].after = right.after;
            symbols[pair.right].length = 0;
            if right.after != NONE {
                symbols[right.after].before = pair.left.0;
                pairs.extend(self.pair(&text, &symbols, right.after));
            }
            if left.before != NONE {
                pairs.extend(self.pair(&text, &symbols, pair.left.0));
            }
        }
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let text = &text[symbol.start..][..symbol.length];
            match self.pieces.get(text) {
                Some((id, _)) => ids.push(*id),
                None => ids.extend(text.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }

    /// A symbol and the one before it, if together they are a piece.
    fn pair(&self, text: &str, symbols: &[Symbol], right: usize) -> Option<Pair> {
        let left = symbols[right].before;
        let length = symbols[left].length + symbols[right].length;
        let (_, score) = self.pieces.get(&text[symbols[left].start..][..length])?;
        Some(Pair {
            score: *score,
            left: Reverse(left),
            right,
            length,
        })
    }
}

/// The byte of `<0x0A>`.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
}
