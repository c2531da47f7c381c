//! Server-sent events as OpenAI clients read them.
//!
//! Written without `id:`, `retry:` or blank lines of their own, since some
//! clients fail on those. [`event`] and the constants write;
//! [`Decoder`] reads.

mod decoder;

pub use decoder::{DecodeError, Decoder, Event};

use bytes::{BufMut, Bytes, BytesMut};

/// The media type of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// A keep-alive: a comment line, and no blank line after it, on which some
/// clients fail.
pub const PING: Bytes = Bytes::from_static(b": ping\n");

/// The last event of an OpenAI stream.
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// What [`DONE`] carries, as the decoder gives it back.
pub const DONE_DATA: &str = "[DONE]";

/// One event that carries `data`. Line breaks in it become several `data`
/// lines, which a reader joins again by `\n`.
pub fn event(data: &str) -> Bytes {
    let mut bytes = BytesMut::with_capacity(data.len() + 8);
    for line in lines(data) {
        bytes.put_slice(b"data: ");
        bytes.put_slice(line.as_bytes());
        bytes.put_u8(b'\n');
    }
    bytes.put_u8(b'\n');
    bytes.freeze()
}

/// The lines of an event: CR LF, LF and CR all end one.
fn lines(data: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let length = if text[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = Some(&text[end + length..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests;
