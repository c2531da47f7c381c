//! The transport over real sockets: what the peer of a listener, or of a
//! connector, sees. One module per promise.

#![allow(clippy::unwrap_used)] // tests

mod calls;
mod drain;
mod limits;
mod running;
mod streams;
mod targets;
