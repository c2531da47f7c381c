//! What one listener grants to strangers: times, sizes and counts.
//!
//! Only what the listener itself enforces. How large a body may be is the
//! consumer's to say, through [`crate::collect_body`].

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of a [`crate::Server`]. Every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Milliseconds from the first byte of a request head (on a new
    /// connection: from its start) to the last. Then the connection is closed.
    pub header_ms: NonZeroU32,
    /// Bytes of a request head: method, target, header names and values. A
    /// larger head is answered with 431.
    pub headers_bytes_max: NonZeroU32,
    /// Header fields of one HTTP/1.1 request. More are answered with 431.
    pub headers_max: NonZeroU32,
    /// Milliseconds that a request body may pause. Reading it then fails with
    /// [`crate::BodyError::Stalled`].
    pub body_pause_ms: NonZeroU32,
    /// Milliseconds that a connection without open requests is kept.
    pub idle_ms: NonZeroU32,
    /// Milliseconds that a peer may leave the socket full while there is
    /// something to write. Then the connection is closed.
    pub write_stall_ms: NonZeroU32,
    /// Milliseconds that a connection which is being closed goes on reading
    /// what the peer still sends, so that the peer gets to read the answer
    /// (say, a 413) instead of a reset.
    pub linger_ms: NonZeroU32,
    /// Open connections of one server, over all its listeners. One more is
    /// accepted and closed at once.
    pub connections_max: NonZeroU32,
    /// Open streams of one HTTP/2 connection. One more is refused.
    pub streams_per_connection_max: NonZeroU32,
    /// Streams of one HTTP/2 connection that the peer reset and that wait to
    /// be accepted. One more closes the connection.
    pub resets_per_connection_max: NonZeroU32,
    /// Milliseconds between the pings that test an HTTP/2 connection.
    pub ping_ms: NonZeroU32,
    /// Milliseconds until an unanswered ping closes the connection.
    pub ping_answer_ms: NonZeroU32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_ms: non_zero(10_000),
            headers_bytes_max: non_zero(32 * 1024),
            headers_max: non_zero(100),
            body_pause_ms: non_zero(10_000),
            idle_ms: non_zero(75_000),
            write_stall_ms: non_zero(60_000),
            linger_ms: non_zero(2_000),
            connections_max: non_zero(4_096),
            streams_per_connection_max: non_zero(128),
            resets_per_connection_max: non_zero(20),
            ping_ms: non_zero(20_000),
            ping_answer_ms: non_zero(20_000),
        }
    }
}

pub(crate) const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("called with constants above zero")
}

pub(crate) fn millis(value: NonZeroU32) -> Duration {
    Duration::from_millis(u64::from(value.get()))
}
