//! The one place where the gateway reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::UnixMs;

/// Now, in milliseconds. A clock before 1970 counts as 1970: every signature
/// is then refused, with that time in the message.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    UnixMs(u64::try_from(ms).unwrap_or(u64::MAX))
}
