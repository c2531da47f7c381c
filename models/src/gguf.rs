//! Reads a GGUF file: checks that it is the whitelisted one, then hands out
//! its metadata.
//!
//! The digest is taken over the very bytes that are then parsed, so the file
//! can't change in between. What the entries mean is left to `tokenizer`,
//! `template` and `exact`.

use std::io::Cursor;
use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};
use protocol::Digest;
use protocol::manifest::Identity;

/// A checked GGUF file in memory.
pub(crate) struct Gguf {
    bytes: Vec<u8>,
    content: Content,
}

/// Why a weight file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file can't be read.
    #[error("reading the weight file")]
    Read(#[source] std::io::Error),
    /// The file isn't the one that the manifest names.
    #[error("the weight file's SHA-256 is {found}, its manifest says {expected}")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// What the file has.
        found: Digest,
    },
    /// The file isn't GGUF.
    #[error("parsing the weight file")]
    Parse(#[source] candle_core::Error),
    /// An entry is missing, or isn't of its type.
    #[error("the weight file's `{key}` is missing or isn't {kind}")]
    Entry {
        /// The metadata key.
        key: String,
        /// The type that it should have.
        kind: &'static str,
    },
}

impl Gguf {
    /// Reads the file and checks it against its manifest.
    pub(crate) fn open(path: &Path, identity: &Identity) -> Result<Gguf, GgufError> {
        let bytes = std::fs::read(path).map_err(GgufError::Read)?;
        let found = Digest::of(&bytes);
        let expected = identity.weights_sha256;
        if found != expected {
            return Err(GgufError::Digest { expected, found });
        }
        Gguf::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        let content = Content::read(&mut Cursor::new(&bytes)).map_err(GgufError::Parse)?;
        Ok(Gguf { bytes, content })
    }

    /// The header, and the whole file.
    pub(crate) fn parts(&self) -> (&Content, &[u8]) {
        (&self.content, &self.bytes)
    }

    pub(crate) fn usize(&self, key: &str) -> Result<usize, GgufError> {
        self.entry(key, "a number", |v| {
            v.to_u64().ok().and_then(|n| usize::try_from(n).ok())
        })
    }

    pub(crate) fn text(&self, key: &str) -> Result<&str, GgufError> {
        self.entry(key, "a text", |v| v.to_string().ok().map(String::as_str))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>, GgufError> {
        self.entry(key, "a list of texts", |v| {
            let texts = v
                .to_vec()
                .ok()?
                .iter()
                .map(|v| v.to_string().ok().map(String::as_str));
            texts.collect()
        })
    }

    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<i64>, GgufError> {
        self.entry(key, "a list of numbers", |v| {
            v.to_vec().ok()?.iter().map(number).collect()
        })
    }

    pub(crate) fn floats(&self, key: &str) -> Result<Vec<f32>, GgufError> {
        self.entry(key, "a list of floats", |v| {
            v.to_vec().ok()?.iter().map(|v| v.to_f32().ok()).collect()
        })
    }

    /// A token id or flag that files may leave out.
    pub(crate) fn optional<'a, T>(
        &'a self,
        key: &str,
        read: impl FnOnce(&'a Gguf, &str) -> Result<T, GgufError>,
    ) -> Result<Option<T>, GgufError> {
        match self.content.metadata.contains_key(key) {
            true => read(self, key).map(Some),
            false => Ok(None),
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool, GgufError> {
        self.entry(key, "a flag", |v| v.to_bool().ok())
    }

    fn entry<'a, T>(
        &'a self,
        key: &str,
        kind: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, GgufError> {
        self.content
            .metadata
            .get(key)
            .and_then(read)
            .ok_or_else(|| GgufError::Entry {
                key: key.to_owned(),
                kind,
            })
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::U8(n) => Some(i64::from(*n)),
        Value::I8(n) => Some(i64::from(*n)),
        Value::U16(n) => Some(i64::from(*n)),
        Value::I16(n) => Some(i64::from(*n)),
        Value::U32(n) => Some(i64::from(*n)),
        Value::I32(n) => Some(i64::from(*n)),
        Value::I64(n) => Some(*n),
        _ => None,
    }
}
