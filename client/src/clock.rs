//! The one place where the client reads the time.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::UnixMs;

/// Our clock, in milliseconds since the epoch; 0 if it is set before that.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
