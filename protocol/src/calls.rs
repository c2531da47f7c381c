//! Tool calls as text: how a model writes them, and what a receipt hashes.
//!
//! Pure; normative in `docs/spec/grammar.md`, 3 and 4. The grammar lets a model
//! write calls in one form only, so that its text becomes calls and calls
//! become that text again. Start at [`CallReader`]; a receipt hashes a
//! [`CallText`].

use crate::digest::Hasher;
use crate::ids::RequestId;

/// Text that begins so is calls; any other is content.
pub const BEGIN: &str = "<tool_call>";

/// Goes before a call's name.
pub const HEAD: &str = "<tool_call>\n{\"name\": \"";

/// Between a call's name and its arguments.
pub const MIDDLE: &str = "\", \"arguments\": ";

/// Goes after a call's arguments.
pub const TAIL: &str = "}\n</tool_call>";

/// Between two calls.
pub const BETWEEN: &str = "\n";

/// Calls in one answer, at most.
pub const CALLS_MAX: usize = 16;

const ID_DOMAIN: &[u8] = b"countersign/call/1\n";

/// The id of a call: the request, its choice and its index give it. Spec 4.4.
pub fn id(request: &RequestId, choice: u8, index: u8) -> String {
    let mut hasher = Hasher::new();
    hasher.update(ID_DOMAIN);
    hasher.update(request.as_str().as_bytes());
    hasher.update(&[choice, index]);
    format!("call_{}", &hasher.finish().to_string()[..24])
}

/// The text of one call.
pub fn call_text(name: &str, arguments: &str) -> String {
    [HEAD, name, MIDDLE, arguments, TAIL].concat()
}

/// What a piece of a model's text adds to its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// More content.
    Content(String),
    /// The next call begins.
    Call {
        /// Its name.
        name: String,
    },
    /// More of the arguments of the call that began last.
    Arguments(String),
}

/// Reads a model's text, as it comes, as content or calls.
#[derive(Debug, Clone)]
pub struct CallReader {
    at: At,
    /// What can't be told yet.
    pending: String,
}

#[derive(Debug, Clone)]
enum At {
    Start,
    Content,
    Head,
    Name,
    Middle(String),
    Arguments(Scan),
    Tail,
    Between,
    /// Whatever follows isn't a call. No grammar allows that.
    Lost,
}

/// Where in a JSON object the text is.
#[derive(Debug, Clone, Copy, Default)]
struct Scan {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Default for CallReader {
    fn default() -> Self {
        CallReader {
            at: At::Start,
            pending: String::new(),
        }
    }
}

impl CallReader {
    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.pending.push_str(text);
        let mut pieces = Vec::new();
        while !self.pending.is_empty() && self.step(&mut pieces) {}
        pieces
    }

    /// The text has ended.
    pub fn finish(&mut self) -> Vec<Piece> {
        let rest = std::mem::take(&mut self.pending);
        match std::mem::replace(&mut self.at, At::Lost) {
            At::Start if !rest.is_empty() => vec![Piece::Content(rest)],
            _ => Vec::new(),
        }
    }

    /// One part of the form; false when more text is needed to tell.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match &mut self.at {
            At::Start if self.pending.starts_with(BEGIN) => self.at = At::Head,
            At::Start if BEGIN.starts_with(&self.pending) => return false,
            At::Start => self.at = At::Content,
            At::Content => pieces.push(Piece::Content(std::mem::take(&mut self.pending))),
            At::Head => return self.literal(HEAD, At::Name),
            At::Name => {
                let Some(end) = self.pending.find('"') else {
                    return false;
                };
                let name = self.pending[..end].to_owned();
                self.pending.drain(..end);
                self.at = At::Middle(name);
            }
            At::Middle(name) => {
                let name = name.clone();
                if !self.literal(MIDDLE, At::Arguments(Scan::default())) {
                    return false;
                }
                if matches!(self.at, At::Arguments(_)) {
                    pieces.push(Piece::Call { name });
                }
            }
            At::Arguments(scan) => {
                let end = scan.end(&self.pending);
                let rest = self.pending.split_off(end.unwrap_or(self.pending.len()));
                let text = std::mem::replace(&mut self.pending, rest);
                pieces.push(Piece::Arguments(text));
                if end.is_some() {
                    self.at = At::Tail;
                }
            }
            At::Tail => return self.literal(TAIL, At::Between),
            At::Between => return self.literal(BETWEEN, At::Head),
            At::Lost => self.pending.clear(),
        }
        true
    }

    /// Goes past a fixed text.
    fn literal(&mut self, text: &str, next: At) -> bool {
        if self.pending.starts_with(text) {
            self.pending.drain(..text.len());
            self.at = next;
        } else if text.starts_with(&self.pending) {
            return false;
        } else {
            self.at = At::Lost;
        }
        true
    }
}

impl Scan {
    /// Where the object ends, if it does in this text.
    fn end(&mut self, text: &str) -> Option<usize> {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// The text that a receipt hashes of an answer that may have calls: its content, or each of its
/// calls as [`call_text`] has it, with a line feed between two. Spec 4.2.
#[derive(Debug, Clone, Default)]
pub struct CallText {
    reader: CallReader,
    calls: usize,
}

impl CallText {
    /// Takes more of a model's text; gives what that adds.
    pub fn push(&mut self, text: &str) -> String {
        let pieces = self.reader.push(text);
        self.write(pieces)
    }

    /// What the text goes on with if the answer ends here.
    pub fn end(&self) -> String {
        let mut ended = self.clone();
        let pieces = ended.reader.finish();
        let mut text = ended.write(pieces);
        if ended.calls > 0 {
            text.push_str(TAIL);
        }
        text
    }

    /// The same from an answer's content and calls, each a name and arguments.
    pub fn of<'a>(content: &str, calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let calls: Vec<String> = calls
            .into_iter()
            .map(|(name, arguments)| call_text(name, arguments))
            .collect();
        content.to_owned() + &calls.join(BETWEEN)
    }

    fn write(&mut self, pieces: Vec<Piece>) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Content(more) | Piece::Arguments(more) => text.push_str(&more),
                Piece::Call { name } => {
                    if self.calls > 0 {
                        text.push_str(TAIL);
                        text.push_str(BETWEEN);
                    }
                    self.calls += 1;
                    text.extend([HEAD, &name, MIDDLE]);
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
