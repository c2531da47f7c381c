//! One listener and one connector for every protocol Countersign speaks.
//!
//! Owns sockets, HTTP framing, limits, drain and server-sent events; knows
//! nothing of requests, receipts or models. hyper is used here and nowhere
//! else. Start at [`Server`] to listen, at [`Connector`] to call, at
//! [`channel`] to stream a body, and at [`sse`] for events.

#![forbid(unsafe_code)]

mod body;
mod connector;
mod drain;
mod limits;
mod listener;
mod peer;
mod server;
pub mod sse;
mod stream;
mod target;

/// The one body type, of requests and of responses, in and out. It is
/// axum's, so an axum `Router<()>` is served as it is.
pub use axum::body::Body;

/// Any error, boxed: what a body may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub use body::{BodyError, collect_body, hold};
pub use connector::{ConnectError, ConnectLimits, Connector, Http};
pub use drain::{Drain, DrainSignal};
pub use limits::Limits;
pub use listener::{BindError, TcpBound, UnixBound};
pub use peer::{Peer, PeerAddress};
pub use server::Server;
pub use stream::{Gone, KeepAlive, Producer, TrySendError, channel};
pub use target::{RequestTarget, TargetError};
