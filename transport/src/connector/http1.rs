//! HTTP/1.1: one request at a time per connection, and a small pool of kept
//! connections.
//!
//! A connection belongs to its answer's body ([`Leased`]). At the body's end
//! it goes back to the pool; if the body is dropped before, it is closed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{ConnectError, ConnectLimits, Driver, Shared};
use crate::limits::millis;
use crate::{Body, BodyError};

/// How long a kept connection may take to be ready for the next request.
const SETTLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Pool {
    kept: Arc<Mutex<Vec<Kept>>>,
    max: usize,
    time: Duration,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    _driver: Driver,
}

impl Pool {
    pub(super) fn new(limits: &ConnectLimits) -> Self {
        Self {
            kept: Arc::default(),
            max: limits.idle_max as usize,
            time: millis(limits.idle_ms),
        }
    }

    /// The connection that was kept last and is still good.
    async fn take(&self) -> Option<Connection> {
        loop {
            let mut connection = {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.retain(|one| one.since.elapsed() < self.time);
                kept.pop()?.connection
            };
            if let Ok(Ok(())) = timeout(SETTLE, connection.sender.ready()).await {
                return Some(connection);
            }
        }
    }
}

pub(super) async fn send(
    shared: &Shared,
    request: Request<Body>,
) -> Result<Response<Body>, ConnectError> {
    let mut request = in_origin_form(request, shared.authority())?;
    if let Some(mut kept) = shared.http1.take().await {
        match kept.sender.try_send_request(request).await {
            Ok(response) => return Ok(lease(shared, kept, response)),
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(ConnectError::Broken(error.into_error().into())),
            },
        }
    }
    let mut new = open(shared).await?;
    match new.sender.send_request(request).await {
        Ok(response) => Ok(lease(shared, new, response)),
        Err(error) => Err(ConnectError::Broken(error.into())),
    }
}

async fn open(shared: &Shared) -> Result<Connection, ConnectError> {
    let stream = shared.connect().await?;
    let (sender, driving) = handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::Open(error.into()))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driving.await {
            tracing::debug!(%error, "connection broke");
        }
    });
    Ok(Connection {
        sender,
        _driver: Driver(driver),
    })
}

/// Path and query in the target, the authority in `Host`.
fn in_origin_form(
    mut request: Request<Body>,
    own_authority: &str,
) -> Result<Request<Body>, ConnectError> {
    if !request.headers().contains_key(HOST) {
        let authority = request
            .uri()
            .authority()
            .map_or(own_authority, Authority::as_str);
        let host = HeaderValue::from_str(authority)
            .map_err(|error| ConnectError::Request(error.into()))?;
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    Ok(request)
}

fn lease(shared: &Shared, connection: Connection, response: Response<Incoming>) -> Response<Body> {
    response.map(|body| {
        let mut leased = Leased {
            body,
            connection: Some(connection),
            pool: Arc::downgrade(&shared.http1.kept),
            pool_max: shared.http1.max,
        };
        leased.give_back_at_end();
        Body::new(leased)
    })
}

struct Leased {
    body: Incoming,
    /// None once it was given back.
    connection: Option<Connection>,
    pool: Weak<Mutex<Vec<Kept>>>,
    pool_max: usize,
}

impl Leased {
    fn give_back_at_end(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }

    /// When the pool is full, or gone, the connection is closed.
    fn give_back(&mut self) {
        let Some((connection, pool)) = self.connection.take().zip(self.pool.upgrade()) else {
            return;
        };
        let mut kept = pool.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.pool_max {
            let since = Instant::now();
            kept.push(Kept { connection, since });
        }
    }
}

impl http_body::Body for Leased {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.give_back(),
            Some(Ok(_)) => self.give_back_at_end(),
            Some(Err(_)) => self.connection = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
