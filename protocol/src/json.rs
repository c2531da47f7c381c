//! Strict JSON (RFC 8259): one value, UTF-8, no duplicate keys, no lone
//! surrogates, no number that a double or a 64-bit integer can't hold, and
//! at most [`DEPTH_MAX`] levels. Start at [`parse`]. Normative in
//! `docs/spec/receipt.md`, 2.

mod canonical;

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

pub use canonical::canonical;

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 64;

/// Longest name from outside that a message repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Why bytes aren't strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: JsonFault,
    /// The offset of the byte where it was noticed.
    pub offset: usize,
    /// The member or item that it is in, such as `messages[3].content`;
    /// empty at the top.
    pub path: String,
}

/// The ways in which bytes fail to be strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// The text ends inside a value, or is empty.
    #[error("unexpected end of JSON")]
    End,
    /// A character that no JSON text has here.
    #[error("unexpected character")]
    Syntax,
    /// An escape that isn't one.
    #[error("invalid escape")]
    Escape,
    /// A `\u` escape of half a surrogate pair.
    #[error("lone surrogate")]
    Surrogate,
    /// An object names a member twice.
    #[error("duplicate key {0:?}")]
    DuplicateKey(String),
    /// A number that is too large.
    #[error("number out of range")]
    Number,
    /// More than [`DEPTH_MAX`] levels.
    #[error("nested deeper than {DEPTH_MAX} levels")]
    Depth,
    /// More members or items than the reader's bounds.
    #[error("more than {0} members or items")]
    TooMany(usize),
    /// Something after the value.
    #[error("text after the JSON value")]
    Trailing,
}

impl JsonError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self.fault {
            JsonFault::Utf8 => "json_utf8",
            JsonFault::End => "json_end",
            JsonFault::Syntax => "json_syntax",
            JsonFault::Escape => "json_escape",
            JsonFault::Surrogate => "json_surrogate",
            JsonFault::DuplicateKey(_) => "json_duplicate_key",
            JsonFault::Number => "json_number",
            JsonFault::Depth => "json_depth",
            JsonFault::TooMany(_) => "json_too_many",
            JsonFault::Trailing => "json_trailing",
        }
    }
}

impl JsonError {
    /// The same error, of a value inside this member or item.
    fn within(mut self, step: &str) -> Self {
        let joint = match self.path.chars().next() {
            None | Some('[') => "",
            Some(_) => ".",
        };
        self.path = format!("{step}{joint}{}", self.path);
        self
    }
}

/// A name from outside, short enough for a message.
pub(crate) fn shown(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARS_MAX) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}…", &name[..end]),
    }
}

/// What the outermost object may hold, so that what is far too large is
/// refused before it is read to its end.
#[derive(Debug, Clone, Copy)]
pub struct Bounds<'a> {
    /// Members at most.
    pub members: usize,
    /// Items at most, of the array that is the member of this name.
    pub items: &'a [(&'a str, usize)],
}

/// Reads exactly one value.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let bounds = Bounds {
        members: usize::MAX,
        items: &[],
    };
    parse_within(bytes, bounds)
}

/// Reads exactly one value, within bounds.
pub fn parse_within(bytes: &[u8], bounds: Bounds<'_>) -> Result<Value, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError {
        fault: JsonFault::Utf8,
        offset: error.valid_up_to(),
        path: String::new(),
    })?;
    let mut reader = Reader {
        text,
        at: 0,
        bounds,
    };
    let value = reader.value(DEPTH_MAX)?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(_) => Err(reader.fault(JsonFault::Trailing)),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    bounds: Bounds<'a>,
}

impl Reader<'_> {
    /// Reads one value, of at most `depth` levels.
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth == 0 => Err(self.fault(JsonFault::Depth)),
            Some(b'{') => self.object(depth - 1),
            Some(b'[') => self.array(depth - 1, usize::MAX),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let outermost = depth + 1 == DEPTH_MAX;
        let mut members = Map::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            if outermost && members.len() == self.bounds.members {
                return Err(self.fault(JsonFault::TooMany(self.bounds.members)));
            }
            let key = self.string()?;
            self.space();
            self.expect(b':')?;
            let value = match outermost {
                true => self.bounded_value(depth, &key),
                false => self.value(depth),
            };
            let value = value.map_err(|error| error.within(&shown(&key)))?;
            match members.entry(key) {
                Entry::Vacant(place) => place.insert(value),
                Entry::Occupied(there) => {
                    let key = shown(there.key());
                    self.at = key_at;
                    return Err(self.fault(JsonFault::DuplicateKey(key)));
                }
            };
            self.space();
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            self.expect(b',')?;
        }
    }

    /// The value of the outermost object's member `key`.
    fn bounded_value(&mut self, depth: usize, key: &str) -> Result<Value, JsonError> {
        self.space();
        match self.bounds.items.iter().find(|(name, _)| *name == key) {
            Some((_, most)) if self.peek() == Some(b'[') => self.array(depth - 1, *most),
            _ => self.value(depth),
        }
    }

    fn array(&mut self, depth: usize, most: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            if items.len() == most {
                return Err(self.fault(JsonFault::TooMany(most)));
            }
            let item = self.value(depth);
            items.push(item.map_err(|error| error.within(&format!("[{}]", items.len())))?);
            self.space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let plain = rest.iter().position(stop).unwrap_or(rest.len());
            // The stops are ASCII, so both ends are character boundaries.
            string.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let escape_at = self.at;
        self.at += 1;
        let plain = match self.peek() {
            None => return Err(self.unexpected()),
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape(escape_at);
            }
            Some(_) => return Err(self.fault(JsonFault::Escape)),
        };
        self.at += 1;
        Ok(plain)
    }

    /// After `\u`: four digits, and the second half of a pair if they are a first.
    fn unicode_escape(&mut self, escape_at: usize) -> Result<char, JsonError> {
        let lone = JsonError {
            offset: escape_at,
            ..self.fault(JsonFault::Surrogate)
        };
        let first = self.four_digits()?;
        let scalar = match first {
            0xd800..=0xdbff => {
                if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    return Err(lone);
                }
                self.at += 2;
                match self.four_digits()? {
                    second @ 0xdc00..=0xdfff => {
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    _ => return Err(lone),
                }
            }
            scalar => scalar,
        };
        char::from_u32(scalar).ok_or(lone)
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = match self.peek() {
                None => return Err(self.unexpected()),
                Some(byte) => char::from(byte).to_digit(16),
            };
            number = number << 4 | digit.ok_or_else(|| self.fault(JsonFault::Escape))?;
            self.at += 1;
        }
        Ok(number)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let from = self.at;
        let negative = self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = &self.text[from..self.at];
        let number = match (integer, negative) {
            // Minus zero is a double: no integer holds its sign.
            (true, true) if text != "-0" => text.parse::<i64>().ok().map(Number::from),
            (true, false) => text.parse::<u64>().ok().map(Number::from),
            // Infinite where the number is beyond the doubles, which `from_f64` refuses.
            _ => text.parse::<f64>().ok().and_then(Number::from_f64),
        };
        number.map(Value::Number).ok_or_else(|| JsonError {
            offset: from,
            ..self.fault(JsonFault::Number)
        })
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected());
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, JsonError> {
        for &byte in word.as_bytes() {
            self.expect(byte)?;
        }
        Ok(value)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn unexpected(&self) -> JsonError {
        self.fault(match self.peek() {
            None => JsonFault::End,
            Some(_) => JsonFault::Syntax,
        })
    }

    fn fault(&self, fault: JsonFault) -> JsonError {
        JsonError {
            fault,
            offset: self.at,
            path: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
