//! What the end-to-end tests share: the real gateway as a child process, a
//! client without manners, a gateway that cheats, and a job that does.
//!
//! The tests themselves are in `tests/tests/`, one file per subject; they are
//! targets of the root package, so that cargo gives them the built binary.

#![forbid(unsafe_code)]
// Test code: a broken expectation is a failed test, and says where.
#![allow(clippy::unwrap_used)]

pub mod ask;
pub mod cheat;
pub mod evil;
pub mod gguf;
pub mod honest;
pub mod raw;
pub mod up;
pub mod workspace;
