//! Profile `exact/1` on the embedded model.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "exact/bits.rs"]
mod bits;
#[path = "exact/drawn.rs"]
mod drawn;
#[path = "exact/model.rs"]
mod model;
#[path = "exact/oracle.rs"]
mod oracle;
