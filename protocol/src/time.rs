//! Points in time as they are signed: whole milliseconds since the Unix epoch.
//!
//! Nothing here reads a clock; callers bring the time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, without leap seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The start of a second.
    pub fn from_secs(seconds: u64) -> Self {
        UnixMs(seconds.saturating_mul(1000))
    }

    /// The second that this millisecond lies in.
    pub fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// `milliseconds` later, or the end of time.
    pub fn plus_ms(self, milliseconds: u64) -> Self {
        UnixMs(self.0.saturating_add(milliseconds))
    }

    /// `milliseconds` earlier, or the epoch.
    pub fn minus_ms(self, milliseconds: u64) -> Self {
        UnixMs(self.0.saturating_sub(milliseconds))
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
