//! When tokens are computed: the engine process, its scheduler, and the
//! receipts that it signs. What decides a token is `models`' business.
//!
//! Start at [`serve()`]; inside, at [`scheduler`] for who runs, at `engine` for
//! the loop, at `api` for the socket.

#![forbid(unsafe_code)]

mod admit;
mod ambient;
mod api;
mod config;
mod engine;
#[cfg(test)]
mod fixtures;
mod inbox;
mod language_model;
mod mailbox;
mod metrics;
mod notary;
mod prefixes;
mod prepare;
mod problem;
mod reply;
pub mod scheduler;
mod serve;
mod single_use;
mod statement;

pub use config::{ConfigError, EngineConfig, EngineLimits};
pub use prefixes::{NotASharing, PrefixSharing};
pub use serve::{EngineError, serve};
