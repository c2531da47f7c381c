//! Turns the bytes of one choice's tokens into the text its client may read.
//!
//! Pure; normative in `docs/spec/text.md`. Three promises: a code point is never
//! cut, bytes that are not UTF-8 become U+FFFD the same way however they were
//! split into tokens, and no part of a stop string that ends the answer is ever
//! released. The engine streams and hashes exactly what [`OutputText`] releases,
//! and a replay derives the same. Start at [`OutputText::take`].

use std::collections::VecDeque;

use protocol::receipt::Finish;
use protocol::sampling::Sampling;

use crate::model::ModelConfig;

/// The readable text of one choice, released as soon as no stop string can claim it.
#[derive(Debug)]
pub struct OutputText {
    utf8: Utf8Tail,
    stops: Vec<StopMatcher>,
    /// Decoded, and perhaps the beginning of a stop string.
    held: String,
    /// Bytes and code points released so far.
    released: Extent,
    /// Tokens whose text isn't wholly released yet, oldest first.
    tokens: VecDeque<TokenSpan>,
    /// Where the text of all tokens so far ends.
    decoded: Extent,
}

/// What one token, or the end, made readable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Goes to the client and into the hash, in this order.
    pub text: String,
    /// The tokens whose text is now out, oldest first: for each the number of
    /// code points of the answer that precede it.
    pub offsets: Vec<usize>,
}

/// What a token did to the text.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The answer goes on.
    More(Released),
    /// A stop string is complete: this is the last text, and the stop string isn't in it.
    Stopped(Released),
}

/// Whether a stop string may end the answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stops {
    /// Look for stop strings in this token's text.
    Armed,
    /// `min_tokens` isn't reached: this token's text is released and can be no part of a match.
    Disarmed,
}

#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    bytes: usize,
    chars: usize,
}

#[derive(Debug)]
struct TokenSpan {
    start: Extent,
    end: Extent,
}

impl OutputText {
    /// An answer without text yet. Empty stop strings are ignored.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Self {
        Self {
            utf8: Utf8Tail::default(),
            stops: stops
                .iter()
                .filter(|stop| !stop.as_ref().is_empty())
                .map(|stop| StopMatcher::new(stop.as_ref()))
                .collect(),
            held: String::new(),
            released: Extent::default(),
            tokens: VecDeque::new(),
            decoded: Extent::default(),
        }
    }

    /// Takes the `drawn`-th token of an answer (from 1), which says `bytes`: what it makes
    /// readable, and whether it ends the answer. Spec 2.
    pub fn take(
        &mut self,
        token: u32,
        bytes: &[u8],
        drawn: usize,
        sampling: &Sampling,
        model: &ModelConfig,
    ) -> (Released, Option<Finish>) {
        if ends(token, sampling, model) {
            return (self.finish(), Some(Finish::Stop));
        }
        let stops = match drawn > sampling.min_tokens as usize {
            true => Stops::Armed,
            false => Stops::Disarmed,
        };
        match self.push(bytes, stops) {
            Pushed::Stopped(released) => (released, Some(Finish::Stop)),
            Pushed::More(released) if drawn >= sampling.max_tokens as usize => {
                (released.then(self.finish()), Some(Finish::Length))
            }
            Pushed::More(released) => (released, None),
        }
    }

    /// Takes the bytes of the next token.
    ///
    /// The stop string that completes first ends the answer; the longest when
    /// several complete on the same byte. So the result depends on the text
    /// alone, not on how it was split into tokens.
    pub fn push(&mut self, bytes: &[u8], stops: Stops) -> Pushed {
        let start = self.decoded;
        let text = self.utf8.push(bytes);
        self.decoded.advance(&text);
        self.tokens.push_back(TokenSpan {
            start,
            end: self.decoded,
        });
        if stops == Stops::Disarmed {
            self.stops.iter_mut().for_each(StopMatcher::reset);
            self.held.push_str(&text);
            return Pushed::More(self.release(self.held.len()));
        }
        for (at, byte) in text.bytes().enumerate() {
            let completed = self
                .stops
                .iter_mut()
                .filter_map(|stop| stop.advance(byte))
                .max();
            if let Some(length) = completed {
                self.held.push_str(&text[..=at]);
                return Pushed::Stopped(self.stop_before(self.held.len() - length));
            }
        }
        self.held.push_str(&text);
        let doubtful = self.stops.iter().map(|stop| stop.matched).max();
        Pushed::More(self.release(self.held.len() - doubtful.unwrap_or(0)))
    }

    /// Ends the answer without a stop string: everything held back is released,
    /// and an unfinished code point becomes U+FFFD.
    pub fn finish(&mut self) -> Released {
        let tail = self.utf8.finish();
        self.decoded.advance(&tail);
        self.held.push_str(&tail);
        if let Some(last) = self.tokens.back_mut() {
            last.end = self.decoded;
        }
        self.release(self.held.len())
    }

    fn release(&mut self, bytes: usize) -> Released {
        let rest = self.held.split_off(bytes);
        let text = std::mem::replace(&mut self.held, rest);
        self.released.advance(&text);
        let out = self.released.bytes;
        let settled = self.tokens.partition_point(|token| token.end.bytes <= out);
        Released {
            text,
            offsets: self.take_tokens(settled),
        }
    }

    fn stop_before(&mut self, bytes: usize) -> Released {
        self.held.truncate(bytes);
        let text = std::mem::take(&mut self.held);
        self.released.advance(&text);
        let out = self.released.bytes;
        let readable = self.tokens.partition_point(|token| token.start.bytes < out);
        let offsets = self.take_tokens(readable);
        self.tokens.clear();
        Released { text, offsets }
    }

    fn take_tokens(&mut self, count: usize) -> Vec<usize> {
        self.tokens
            .drain(..count)
            .map(|token| token.start.chars)
            .collect()
    }
}

/// Whether this token ends an answer. The sampler doesn't draw it before `min_tokens`.
pub fn ends(token: u32, sampling: &Sampling, model: &ModelConfig) -> bool {
    (!sampling.ignore_eos && model.eos.contains(&token)) || sampling.stop_token_ids.contains(&token)
}

impl Released {
    /// This, and what is released right after it.
    pub fn then(mut self, next: Released) -> Released {
        self.text.push_str(&next.text);
        self.offsets.extend(next.offsets);
        self
    }
}

impl Extent {
    fn advance(&mut self, text: &str) {
        self.bytes += text.len();
        self.chars += text.chars().count();
    }
}

/// Decodes UTF-8 that arrives in pieces, as `String::from_utf8_lossy` decodes the whole.
#[derive(Debug, Default)]
struct Utf8Tail {
    /// The beginning of a code point, at most three bytes.
    tail: Vec<u8>,
}

impl Utf8Tail {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.tail.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.tail.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(invalid) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[invalid..];
                }
            }
        }
        self.tail = rest.to_vec();
        text
    }

    fn finish(&mut self) -> String {
        let unfinished = !self.tail.is_empty();
        self.tail.clear();
        if unfinished {
            char::REPLACEMENT_CHARACTER.to_string()
        } else {
            String::new()
        }
    }
}

/// Finds one stop string byte by byte (Knuth, Morris, Pratt).
#[derive(Debug)]
struct StopMatcher {
    pattern: Vec<u8>,
    /// `borders[i]`: the longest proper prefix of the pattern that ends `pattern[..=i]`.
    borders: Vec<usize>,
    /// How much of the pattern the text ends with.
    matched: usize,
}

impl StopMatcher {
    fn new(pattern: &str) -> Self {
        let pattern = pattern.as_bytes().to_vec();
        let mut borders = vec![0; pattern.len()];
        let mut length = 0;
        for at in 1..pattern.len() {
            while length > 0 && pattern[at] != pattern[length] {
                length = borders[length - 1];
            }
            length += usize::from(pattern[at] == pattern[length]);
            borders[at] = length;
        }
        Self {
            pattern,
            borders,
            matched: 0,
        }
    }

    fn reset(&mut self) {
        self.matched = 0;
    }

    /// The pattern's length when this byte completes it.
    fn advance(&mut self, byte: u8) -> Option<usize> {
        while self.matched > 0 && self.pattern[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.pattern[self.matched] == byte);
        (self.matched == self.pattern.len()).then_some(self.matched)
    }
}

#[cfg(test)]
mod tests;
