//! Reads server-sent events from bytes that come in any pieces.
//!
//! Follows the WHATWG rules, with three of our own: an event has a size
//! limit, must be UTF-8, and `id` and `retry` are ignored.

use bytes::BytesMut;

/// An event as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `event` field, if it was there.
    pub name: Option<String>,
    /// The `data` lines, joined by `\n`.
    pub data: String,
}

/// Why a stream of events can't be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// One event, or one line, is larger than the limit.
    #[error("an event is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// An event is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// Collects bytes, gives back events.
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    /// The line that has no end yet.
    line: BytesMut,
    name: Option<String>,
    /// The `data` lines so far, each with `\n` after it.
    data: String,
    /// Bytes of the event so far, whatever their meaning.
    event_bytes: usize,
    /// The last byte was CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    at_start: bool,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder that takes events of up to `event_bytes_max` bytes, field
    /// names and comments included.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            line: BytesMut::new(),
            name: None,
            data: String::new(),
            event_bytes: 0,
            after_cr: false,
            at_start: true,
            failed: None,
        }
    }

    /// Takes the next bytes, and appends the events that they complete to
    /// `events`. After an error every further call fails the same way.
    pub fn push(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            self.grow(part)?;
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if let Some(event) = self.end_line()? {
                events.push(event);
            }
        }
        Ok(())
    }

    /// Whether the bytes so far end between two events, so that nothing
    /// would be lost if no more came.
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.data.is_empty() && self.name.is_none()
    }

    fn grow(&mut self, part: &[u8]) -> Result<(), DecodeError> {
        self.event_bytes += part.len();
        if self.event_bytes > self.event_bytes_max {
            return self.fail(DecodeError::TooLarge {
                max: self.event_bytes_max,
            });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<Event>, DecodeError> {
        let line = self.line.split();
        let Ok(mut line) = std::str::from_utf8(&line) else {
            return self.fail(DecodeError::NotUtf8);
        };
        if std::mem::take(&mut self.at_start) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(self.end_event());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "event" => self.name = Some(value.to_owned()),
            // A comment between events must not add up over a long silence.
            _ if self.data.is_empty() && self.name.is_none() => self.event_bytes = 0,
            _ => {}
        }
        Ok(None)
    }

    /// A blank line: an event without data is none.
    fn end_event(&mut self) -> Option<Event> {
        self.event_bytes = 0;
        let name = self.name.take();
        let mut data = std::mem::take(&mut self.data);
        data.pop()?;
        Some(Event { name, data })
    }

    fn fail<T>(&mut self, error: DecodeError) -> Result<T, DecodeError> {
        self.failed = Some(error);
        self.line = BytesMut::new();
        Err(error)
    }
}
