//! Calls one server: over TCP (HTTP/1.1 or HTTP/2 with prior knowledge) or
//! over a Unix socket (HTTP/1.1).
//!
//! Dropping an answer's body before its end, or the future that waits for
//! it, tells the server at once: HTTP/1.1 closes the connection, HTTP/2
//! resets the stream. Start at [`Connector::send`].

mod http1;
mod http2;

use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::limits::{millis, non_zero};
use crate::{Body, BoxError};

/// The protocol to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Http {
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    H1,
    /// HTTP/2, cleartext, with prior knowledge.
    #[serde(rename = "2")]
    H2,
}

impl Http {
    /// Every protocol, for tests that must hold for each.
    pub const ALL: [Self; 2] = [Self::H1, Self::H2];
}

/// The limits of a [`Connector`]. Every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectLimits {
    /// Milliseconds for connecting.
    pub connect_ms: NonZeroU32,
    /// Milliseconds from sending a request to its answer's head. None: as
    /// long as it takes, and the caller bounds it.
    pub answer_ms: Option<NonZeroU32>,
    /// Idle HTTP/1.1 connections that are kept for the next request.
    pub idle_max: u32,
    /// Milliseconds that one is kept. Must be less than the server keeps it,
    /// or a request may meet a connection that is just being closed.
    pub idle_ms: NonZeroU32,
}

impl Default for ConnectLimits {
    fn default() -> Self {
        Self {
            connect_ms: non_zero(5_000),
            answer_ms: None,
            idle_max: 64,
            idle_ms: non_zero(4_000),
        }
    }
}

/// Calls one server. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Connector {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: Address,
    http: Http,
    limits: ConnectLimits,
    http1: http1::Pool,
    http2: http2::Shared,
}

#[derive(Debug, Clone)]
enum Address {
    Tcp(Authority),
    Unix(PathBuf),
}

impl Connector {
    /// Calls `authority`, host and port (80 if absent).
    pub fn tcp(authority: Authority, http: Http, limits: ConnectLimits) -> Self {
        Self::new(Address::Tcp(authority), http, limits)
    }

    /// Calls the server behind the Unix socket `path`.
    pub fn unix(path: &Path, limits: ConnectLimits) -> Self {
        Self::new(Address::Unix(path.to_owned()), Http::H1, limits)
    }

    fn new(address: Address, http: Http, limits: ConnectLimits) -> Self {
        let shared = Arc::new(Shared {
            address,
            http,
            http1: http1::Pool::new(&limits),
            http2: http2::Shared::default(),
            limits,
        });
        Self { shared }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// Of the request's URI only path and query count. The authority that is
    /// sent is the `Host` header's, else the URI's, else the connector's own.
    /// A request that provably was not sent on a kept connection is sent again
    /// on a new one; any other failure is the caller's to judge.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, ConnectError> {
        let sent = async {
            match self.shared.http {
                Http::H1 => http1::send(&self.shared, request).await,
                Http::H2 => http2::send(&self.shared, request).await,
            }
        };
        let Some(time) = self.shared.limits.answer_ms.map(millis) else {
            return sent.await;
        };
        timeout(time, sent)
            .await
            .unwrap_or(Err(ConnectError::NoAnswer { time }))
    }
}

impl Shared {
    async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let time = millis(self.limits.connect_ms);
        let connecting = async {
            Ok::<Box<dyn Stream>, io::Error>(match &self.address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Tcp(authority) => {
                    let host = authority.host().trim_matches(['[', ']']);
                    let port = authority.port_u16().unwrap_or(80);
                    let stream = TcpStream::connect((host, port)).await?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
            })
        };
        timeout(time, connecting)
            .await
            .unwrap_or_else(|_late| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnectError::Connect {
                to: self.address.to_string(),
                source,
            })
    }

    fn authority(&self) -> &str {
        match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(authority) => authority.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Aborts the task that drives a connection, and so closes it, when dropped.
#[derive(Debug)]
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or not in time. Nothing was sent.
    #[error("connecting to {to}")]
    Connect {
        /// The address.
        to: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection can't be used. Nothing was sent.
    #[error("opening the connection")]
    Open(#[source] BoxError),
    /// The request can't be sent as it is.
    #[error("the request can't be sent")]
    Request(#[source] BoxError),
    /// The connection broke before an answer came.
    #[error("the connection broke before an answer came")]
    Broken(#[source] BoxError),
    /// No answer within `time`.
    #[error("no answer within {time:?}")]
    NoAnswer {
        /// The limit.
        time: Duration,
    },
}

impl ConnectError {
    /// Whether the server can't have seen the request, so that sending it
    /// once more does no harm.
    pub fn was_not_sent(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Open(_) | Self::Request(_)
        )
    }
}
