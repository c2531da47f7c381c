//! The gateway over real sockets, with an engine that does as it is told.

#![forbid(unsafe_code)]
// Test code: a broken expectation is a failed test, and says where.
#![allow(clippy::unwrap_used)]

mod admission;
mod answers;
mod client;
mod cluster;
mod engine;
mod life;
mod nonces;
mod trouble;
