//! Accepts connections and serves them until the drain is over.
//!
//! One task per connection, all owned by the future that serves the
//! listener: it ends when the last of them has ended, or when the drain's
//! deadline has cut them off. What happens on one connection is
//! `connection`'s, what its socket does is `socket`'s.

mod activity;
mod connection;
mod socket;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tower_service::Service;

use crate::{Body, DrainSignal, Limits, Peer, PeerAddress, TcpBound, UnixBound};

/// Serves one service, such as an axum `Router<()>`, on any number of
/// listeners, over HTTP/1.1 and over HTTP/2 with prior knowledge. Clones
/// share the service and the count of connections.
#[derive(Debug, Clone)]
pub struct Server<S> {
    service: S,
    limits: Arc<Limits>,
    connections: Arc<Semaphore>,
}

impl<S> Server<S> {
    /// A server that does not listen yet.
    pub fn new(service: S, limits: Limits) -> Self {
        let connections = Arc::new(Semaphore::new(limits.connections_max.get() as usize));
        Self {
            service,
            limits: Arc::new(limits),
            connections,
        }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.limits.connections_max.get() as usize - self.connections.available_permits()
    }
}

impl<S> Server<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    /// Serves a port until `drain` is over. Dropping the future closes
    /// everything at once.
    pub async fn serve_tcp(self, bound: TcpBound, drain: DrainSignal) {
        self.serve(bound, drain).await;
    }

    /// Serves a Unix socket until `drain` is over. Dropping the future closes
    /// everything at once.
    pub async fn serve_unix(self, bound: UnixBound, drain: DrainSignal) {
        self.serve(bound, drain).await;
    }

    async fn serve<A: Accept>(self, bound: A, drain: DrainSignal) {
        let mut connections = JoinSet::new();
        {
            let mut begun = std::pin::pin!(drain.begun());
            loop {
                tokio::select! {
                    biased;
                    _deadline = &mut begun => break,
                    Some(ended) = connections.join_next() => log_panic(ended),
                    accepted = bound.accept() => match accepted {
                        Ok((stream, address)) => {
                            self.spawn(&mut connections, stream, address, drain.clone());
                        }
                        Err(error) => pause_after(&error).await,
                    },
                }
            }
        }
        drop(bound); // from here on connecting fails
        let expired = async {
            drain.expired().await;
        };
        tokio::select! {
            () = async { while let Some(ended) = connections.join_next().await { log_panic(ended) } } => {}
            () = expired => {
                tracing::info!(open = connections.len(), "cutting connections at the drain's deadline");
            }
        }
        connections.shutdown().await;
    }

    fn spawn<I>(
        &self,
        connections: &mut JoinSet<()>,
        stream: I,
        address: PeerAddress,
        drain: DrainSignal,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            // Waiting in the backlog would look like a dead server.
            tracing::warn!(max = self.limits.connections_max, "too many connections");
            return;
        };
        let peer = Peer {
            address,
            connection: NUMBER.fetch_add(1, Ordering::Relaxed),
        };
        let service = self.service.clone();
        let limits = Arc::clone(&self.limits);
        connections.spawn(async move {
            connection::run(stream, service, peer, &limits, drain).await;
            drop(permit);
        });
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A bound listener of either kind.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    async fn accept(&self) -> io::Result<(Self::Stream, PeerAddress)>;
}

impl Accept for TcpBound {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<(Self::Stream, PeerAddress)> {
        let (stream, address) = self.listener.accept().await?;
        // Tokens are small and must not wait for each other.
        stream.set_nodelay(true)?;
        Ok((stream, PeerAddress::Tcp(address)))
    }
}

impl Accept for UnixBound {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<(Self::Stream, PeerAddress)> {
        let (stream, _unnamed) = self.listener.accept().await?;
        Ok((stream, PeerAddress::Unix))
    }
}

/// A connection that broke before it was accepted is nothing; running out of
/// descriptors is, and passes only when connections end.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    ) {
        tracing::error!(%error, "accepting a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
