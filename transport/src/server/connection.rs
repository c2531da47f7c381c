//! Drives one connection: hyper's state machine, the clock, the drain.
//!
//! The deadline that applies is asked again after every step of the
//! connection, so no timer is set or cleared per request.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use super::activity::Activity;
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
    let answering = {
        let activity = Arc::clone(&activity);
        let (head_max, pause_max) = (limits.headers_bytes_max, millis(limits.body_pause_ms));
        service_fn(move |request: Request<Incoming>| {
            let open = activity.open();
            let mut service = service.clone();
            async move {
                if head_bytes(&request) > head_max.get() as usize {
                    let mut refusal = Response::new(Body::empty());
                    *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    return Ok::<_, Infallible>(refusal);
                }
                let mut request = request.map(|body| Body::new(Paced::new(body, pause_max)));
                request.extensions_mut().insert(peer);
                match poll_fn(|cx| service.poll_ready(cx)).await {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
                let response = service.call(request).await?;
                Ok(response.map(|body| hold(body, open)))
            }
        })
    };
    let builder = builder(limits);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), answering));
    let mut begun = pin!(drain.begun());
    let mut timer = pin!(sleep_until(Instant::now()));
    let linger = millis(limits.linger_ms);
    let mut draining = false;
    let mut closing_since = None;

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
            let Some(useless) = activity.deadline(limits) else {
                return Poll::Pending;
            };
            let deadline = closing_since.map_or(useless, |since| since + 2 * linger);
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if closing_since.is_some() {
                return Poll::Ready(Ok(())); // it did not close in order: drop it
            }
            closing_since = Some(Instant::now());
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(connection = peer.connection, %error, "connection broke");
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
        .max_header_list_size(limits.headers_bytes_max.get())
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
