//! Carries one admitted request to its engine, and the answer back.
//!
//! Runs as a task of its own, so that a client that leaves doesn't take the
//! receipt with it. A receipt is on the disk before the client sees it. What
//! may pass is `passage`'s to say, how long is waited `patience`'s. Start at
//! [`Relay::run`].

mod metrics;
mod passage;
mod patience;

use std::future::pending;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use protocol::receipt::VerifiedReceipt;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;
use transport::{Body, BodyError, KeepAlive, Producer, collect_body, sse};

use crate::config::GatewayLimits;
use crate::engine::{EngineError, is_event_stream};
use crate::jobs::Seat;
use crate::problem::{Problem, request_id_header};
use crate::store::{Kept, Store};
pub(crate) use metrics::RelayMetrics;
use passage::Step;
pub(crate) use passage::{Breach, Passage};
use patience::{Exhausted, Patience};

/// Silence after which a stream says that it is alive.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Where the handler waits for the head of the answer.
pub(crate) type Reply = oneshot::Sender<Result<Response, Problem>>;

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Relay {
    pub passage: Passage,
    pub seat: Seat,
    pub store: Store,
    pub limits: GatewayLimits,
    pub metrics: RelayMetrics,
    /// Held until the receipt is stored, whether or not the client waits.
    pub _permit: OwnedSemaphorePermit,
}

/// The reading end of a stream: the client, until it leaves.
type Client = Option<Producer>;

impl Relay {
    /// Asks the engine and passes its answer on. When it returns, the receipt
    /// is stored or there will be none.
    pub(crate) async fn run(mut self, request: Request<Body>, mut reply: Reply) {
        let _in_flight = self.metrics.began();
        let mut patience = Patience::new(
            self.seat.job().clone(),
            self.passage.id().clone(),
            Duration::from_secs(self.limits.request_s_max.get()),
            Duration::from_secs(self.limits.cancel_s_max.get()),
        );
        let job = self.seat.job().clone();
        let asked = job.engine().ask(request);
        let problem = match patience.wait(reply.closed(), asked).await {
            Ok(Ok(answer)) if is_event_stream(&answer) => {
                self.stream(answer, reply, patience).await;
                return self.metrics.ended(self.passage.has_receipt());
            }
            Ok(Ok(answer)) => match self.whole(answer, &mut reply, patience).await {
                Ok(response) => {
                    // A client that left can read the receipt by its id.
                    let _ = reply.send(Ok(response));
                    return self.metrics.ended(self.passage.has_receipt());
                }
                Err(problem) => problem,
            },
            Ok(Err(error)) if error.was_not_sent() => Problem::EngineUnreachable(error),
            Ok(Err(error)) => Problem::EngineLost(Some(error)),
            Err(Exhausted) => Problem::EngineTooSlow,
        };
        self.metrics.failed(&problem);
        self.metrics.ended(self.passage.has_receipt());
        let _ = reply.send(Err(problem));
    }

    /// A reply in one piece: nothing is passed on before all of it is here.
    async fn whole(
        &mut self,
        answer: http::Response<Body>,
        reply: &mut Reply,
        mut patience: Patience,
    ) -> Result<Response, Problem> {
        let (head, body) = answer.into_parts();
        // Patience has the deadline; this one only has to be later.
        let late = Duration::from_secs(self.limits.request_s_max.get() * 2);
        let read = collect_body(body, self.limits.reply_bytes_max.get(), late);
        let body = match patience.wait(reply.closed(), read).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(lost(error)),
            Err(Exhausted) => return Err(Problem::EngineTooSlow),
        };
        let issued = self.seat.job().credentials();
        let step = self.passage.reply(head.status, &body, &issued);
        if let Step::Keep(receipt) = step.map_err(Problem::Breach)? {
            self.keep(&receipt).await?;
        }
        let mut response = self.response(Body::from(body));
        *response.status_mut() = head.status;
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = head.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        Ok(response)
    }

    /// A stream: every event is passed on as it comes.
    async fn stream(&mut self, answer: http::Response<Body>, reply: Reply, mut patience: Patience) {
        let keep_alive = KeepAlive {
            every: PING_EVERY,
            bytes: sse::PING,
        };
        // Bounded: when the client doesn't read, `pass` waits, nothing more is
        // read from the engine, and the engine lets the sequence sit out.
        let (producer, body) = transport::channel(self.limits.events_unread_max, Some(keep_alive));
        let mut response = self.response(body);
        let content_type = HeaderValue::from_static(sse::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        let no_cache = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(CACHE_CONTROL, no_cache);
        let mut client = match reply.send(Ok(response)) {
            Ok(()) => Some(producer),
            Err(_) => self.left(&mut patience),
        };
        let carried = self.carry(answer.into_body(), &mut client, &mut patience);
        if let Err(problem) = carried.await {
            self.metrics.failed(&problem);
            let event = sse::event(&problem.event());
            self.pass(event, &mut client, &mut patience).await;
        }
        if let Some(producer) = client {
            producer.finish();
        }
    }

    /// Reads events until the engine ends, whether or not anybody listens.
    async fn carry(
        &mut self,
        mut body: Body,
        client: &mut Client,
        patience: &mut Patience,
    ) -> Result<(), Problem> {
        let mut decoder = sse::Decoder::new(self.limits.event_bytes_max.get());
        let mut events = Vec::new();
        loop {
            let read = match client {
                Some(producer) => patience.wait(producer.gone(), body.frame()).await,
                None => patience.wait(pending(), body.frame()).await,
            };
            let bytes = match read {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(Some(Err(error))) => return self.ended(Some(BodyError::from_axum(error))),
                Ok(None) => return self.ended(None),
                Err(Exhausted) if self.passage.is_complete() => return Ok(()),
                Err(Exhausted) => return Err(Problem::EngineTooSlow),
            };
            decoder
                .push(&bytes, &mut events)
                .map_err(|_| Problem::Breach(Breach::EventBytes))?;
            for event in events.drain(..) {
                let issued = self.seat.job().credentials();
                let step = self.passage.event(&event.data, &issued);
                let step = step.map_err(Problem::Breach)?;
                if let Step::Keep(receipt) = &step {
                    self.keep(receipt).await?;
                }
                self.pass(sse::event(&event.data), client, patience).await;
                if let Step::Done = step {
                    // The client needn't wait for the engine to hang up.
                    if let Some(producer) = client.take() {
                        producer.finish();
                    }
                    patience.hurry();
                }
            }
        }
    }

    /// What it means that the engine's stream is over.
    fn ended(&self, error: Option<BodyError>) -> Result<(), Problem> {
        match (self.passage.is_complete(), error) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(lost(error)),
            (false, None) => Err(Problem::EngineLost(None)),
        }
    }

    /// Hands an event to the client, which may take its time, but not forever.
    async fn pass(&mut self, event: Bytes, client: &mut Client, patience: &mut Patience) {
        let Some(producer) = client else { return };
        let unread_max = Duration::from_secs(self.limits.unread_s_max.get());
        let sent = timeout(unread_max, producer.send(event)).await;
        if !matches!(sent, Ok(Ok(()))) {
            *client = self.left(patience);
        }
    }

    fn left(&self, patience: &mut Patience) -> Client {
        self.metrics.client_left();
        patience.cancel();
        None
    }

    /// On the disk, or an error: never passed on without being kept.
    async fn keep(&self, receipt: &VerifiedReceipt) -> Result<(), Problem> {
        match self.store.keep_receipt(receipt).await {
            Ok(Kept::Stored | Kept::Already) => {
                self.metrics.kept(receipt);
                Ok(())
            }
            Ok(Kept::Another) => Err(Problem::Breach(Breach::TwoReceipts)),
            Err(error) => Err(Problem::Store(error)),
        }
    }

    fn response(&self, body: Body) -> Response {
        let mut response = Response::new(body);
        let id = request_id_header(self.passage.id());
        response.headers_mut().insert("x-request-id", id);
        response
    }
}

fn lost(error: BodyError) -> Problem {
    Problem::EngineLost(Some(EngineError::Answer(error)))
}
