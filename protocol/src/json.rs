//! Strict JSON (RFC 8259): one value, UTF-8, no duplicate keys, no lone
//! surrogates, no number that a double or a 64-bit integer can't hold, and
//! at most [`DEPTH_MAX`] levels. Start at [`parse`].

use serde_json::Value;

/// Deepest nesting that is read.
pub const DEPTH_MAX: usize = 64;

/// Why bytes aren't strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: JsonFault,
    /// The offset of the byte where it was noticed.
    pub offset: usize,
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
            JsonFault::Trailing => "json_trailing",
        }
    }
}

/// Reads exactly one value.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let _ = bytes;
    todo!()
}
