//! Drives one connection: hyper's state machine, the clock, the drain.
//!
//! The deadline that applies is asked again after every step of the
//! connection, so no timer is set or cleared per request.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::activity::{Activity, OpenRequest};
use super::socket::Socket;
use crate::body::{Paced, hold};
use crate::limits::millis;
use crate::{Body, DrainSignal, Limits, Peer};

/// Serves one connection to its end.
pub(super) async fn run<I, S>(
    stream: I,
    service: S,
    peer: Peer,
    limits: &Limits,
    drain: DrainSignal,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let activity = Activity::new();
    let socket = Socket::new(stream, Arc::clone(&activity), limits);
    let answering = Answering {
        service,
        activity: Arc::clone(&activity),
        peer,
        head_bytes_max: limits.headers_bytes_max.get() as usize,
        body_pause_max: millis(limits.body_pause_ms),
    };
    let service = service_fn(move |request| {
        let open = answering.activity.open();
        answering.clone().answer(request, open)
    });
    let builder = builder(limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut begun = pin!(drain.begun());
    let mut clock = Clock::new(&activity, limits);
    let mut timer = pin!(sleep_until(Instant::now()));
    let mut draining = false;

    let outcome = poll_fn(|cx| {
        loop {
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            if draining {
                return Poll::Pending; // the server cuts us at the drain's deadline
            }
            if begun.as_mut().poll(cx).is_ready() {
                draining = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let Some(deadline) = clock.deadline() else {
                return Poll::Pending;
            };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match clock.strike() {
                Strike::Close => connection.as_mut().graceful_shutdown(),
                Strike::Cut => return Poll::Ready(Ok(())),
            }
        }
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(connection = peer.connection, %error, "connection broke");
    }
}

/// When a connection that does nothing is closed, and when it is cut because
/// it did not close.
struct Clock<'a> {
    activity: &'a Activity,
    limits: &'a Limits,
    closing_since: Option<Instant>,
}

enum Strike {
    Close,
    Cut,
}

impl<'a> Clock<'a> {
    fn new(activity: &'a Activity, limits: &'a Limits) -> Self {
        Self {
            activity,
            limits,
            closing_since: None,
        }
    }

    /// None while a request is open.
    fn deadline(&self) -> Option<Instant> {
        let useless = self.activity.deadline(self.limits)?;
        // The socket lingers once; a peer that plays along is gone by twice that.
        let cut = self
            .closing_since
            .map(|since| since + 2 * millis(self.limits.linger_ms));
        Some(cut.unwrap_or(useless))
    }

    fn strike(&mut self) -> Strike {
        match self.closing_since.replace(Instant::now()) {
            None => Strike::Close,
            Some(_) => Strike::Cut,
        }
    }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answering<S> {
    service: S,
    activity: Arc<Activity>,
    peer: Peer,
    head_bytes_max: usize,
    body_pause_max: Duration,
}

impl<S> Answering<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    async fn answer(
        mut self,
        request: Request<Incoming>,
        open: OpenRequest,
    ) -> Result<Response<Body>, Infallible> {
        if head_bytes(&request) > self.head_bytes_max {
            let mut refusal = Response::new(Body::empty());
            *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Ok(refusal);
        }
        let mut request = request.map(|body| Body::new(Paced::new(body, self.body_pause_max)));
        request.extensions_mut().insert(self.peer);
        poll_fn(|cx| self.service.poll_ready(cx)).await?;
        let response = self.service.call(request).await?;
        Ok(response.map(|body| hold(body, open)))
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Runs through idle times too; `Activity` tells head and idle apart.
        .header_read_timeout(millis(limits.header_ms.max(limits.idle_ms)))
        // hyper insists on at least 8 KiB; `head_bytes` sees to the rest.
        .max_buf_size((limits.headers_bytes_max.get() as usize).max(8192))
        .max_headers(limits.headers_max.get() as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(head_list_bytes(limits))
        .max_concurrent_streams(limits.streams_per_connection_max.get())
        .max_pending_accept_reset_streams(limits.resets_per_connection_max.get() as usize)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(millis(limits.ping_ms))
        .keep_alive_timeout(millis(limits.ping_answer_ms));
    builder
}

/// What a peer may send ahead of our reading, per HTTP/2 stream.
const WINDOW_BYTES: u32 = 256 * 1024;

/// HTTP/2 counts 32 bytes more for each field. Far beyond it, h2 closes the
/// connection instead of answering 431.
fn head_list_bytes(limits: &Limits) -> u32 {
    let extra = limits.headers_max.get().saturating_mul(32);
    limits.headers_bytes_max.get().saturating_add(extra)
}

/// The size of a request head, alike for both protocols.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |it| it.as_str().len())
        + request.uri().authority().map_or(0, |it| it.as_str().len());
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    request.method().as_str().len() + target + fields.sum::<usize>()
}
