//! Where jobs run: the executors that start and stop an engine.
//!
//! Knows processes and sockets, nothing of tokens, clients or grants. Today
//! there is one executor, [`local`]: a child process on this machine.

#![forbid(unsafe_code)]

pub mod local;
