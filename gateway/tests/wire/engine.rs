//! An engine without a model: it checks what engines check, signs real
//! receipts, and behaves or misbehaves as the test says.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as PathOf, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use bytes::Bytes;
use http::StatusCode;
use protocol::admission::{self, SignedAdmission};
use protocol::credential::{SignedCredential, VerifiedCredential};
use protocol::receipt::{
    Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, Receipt, RequestLine, Salt,
    SignedReceipt,
};
use protocol::request_signature::{self, Policy, RequestHead};
use protocol::{Did, Digest, JobId, ModelDigest, RequestId, SigningKey, UnixMs};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use transport::{Drain, Limits, Producer, Server, UnixBound, collect_body, sse};

use crate::cluster::in_time;

/// What the engine does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Says "Hello" in two deltas, or in one piece.
    Answer,
    /// 400, with a receipt.
    Refuse,
    /// 429, without one.
    Busy,
    /// One delta, then, when it is cancelled, the connection breaks.
    Die,
    /// One delta, then an orderly end without anything that belongs there.
    Stop,
    /// One delta with a checkpoint, then as above.
    StateAndStop,
    /// One delta, then nothing until it is cancelled.
    Hang,
    /// No answer at all until it is cancelled.
    HangSilently,
    /// Deltas until it is cancelled.
    Babble,
    /// An answer with a receipt by a key of its own.
    Forge,
    /// An answer without a receipt.
    Withhold,
    /// An answer with the receipt of another request.
    Swap,
    /// An event that isn't JSON.
    Garbage,
}

/// A running engine.
pub struct Engine {
    pub socket: PathBuf,
    pub job: JobId,
    pub model: ModelRef,
    state: Arc<Inner>,
    drain: Drain,
    ended: JoinHandle<()>,
    /// The requests that reach it, and the cancellations.
    pub seen: mpsc::UnboundedReceiver<Seen>,
}

/// What reached the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Request(RequestId),
    Cancel(RequestId),
}

struct Inner {
    key: SigningKey,
    gateway: Did,
    job: JobId,
    model: ModelRef,
    does: Mutex<Does>,
    ready: Mutex<bool>,
    credential: Mutex<Option<VerifiedCredential>>,
    chain: Mutex<(u64, Option<Digest>)>,
    cancels: Mutex<HashMap<RequestId, Arc<Notify>>>,
    tell: mpsc::UnboundedSender<Seen>,
}

/// A request that the engine accepted.
struct Accepted {
    id: RequestId,
    open: OpenReceipt,
    stream: bool,
    cancel: Arc<Notify>,
}

impl Engine {
    /// An engine of job `number` that trusts this gateway.
    pub fn start(folder: &Path, number: u8, gateway: Did) -> Self {
        let socket = folder.join(format!("engine-{number}.sock"));
        let (tell, seen) = mpsc::unbounded_channel();
        let job = JobId::new([number; 16]);
        let model = ModelRef {
            id: format!("model-{number}"),
            digest: ModelDigest::from_digest(Digest::of(&[number])),
        };
        let state = Arc::new(Inner {
            key: SigningKey::from_seed([number; 32]),
            gateway,
            job: job.clone(),
            model: model.clone(),
            does: Mutex::new(Does::Answer),
            ready: Mutex::new(true),
            credential: Mutex::default(),
            chain: Mutex::default(),
            cancels: Mutex::default(),
            tell,
        });
        let router = Router::new()
            .route("/job", get(describe))
            .route("/job/credential", put(appoint))
            .route("/job/requests/{id}/cancel", post(cancel))
            .route("/metrics", get(metrics))
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let bound = UnixBound::bind(&socket).unwrap();
        let drain = Drain::new();
        let server = Server::new(router, Limits::default());
        let ended = tokio::spawn(server.serve_unix(bound, drain.signal()));
        Self {
            socket,
            job,
            model,
            state,
            drain,
            ended,
            seen,
        }
    }

    pub fn does(&self, does: Does) {
        *self.state.does.lock().unwrap() = does;
    }

    pub fn is_ready(&self, ready: bool) {
        *self.state.ready.lock().unwrap() = ready;
    }

    pub fn did(&self) -> Did {
        self.state.key.did()
    }

    /// The next thing that reaches it.
    pub async fn sees(&mut self) -> Seen {
        in_time(self.seen.recv()).await.unwrap()
    }

    /// Whether nothing has reached it since.
    pub fn saw_nothing(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }

    /// Cancels a request itself.
    pub async fn cancel(&self, id: &RequestId) {
        let open = self.state.cancels.lock().unwrap().get(id).cloned();
        open.unwrap().notify_one();
    }

    /// Ends at once: its connections break.
    pub async fn kill(self) {
        self.drain.begin(std::time::Duration::ZERO);
        self.ended.await.unwrap();
    }
}

async fn describe(State(inner): State<Arc<Inner>>) -> String {
    let ready = *inner.ready.lock().unwrap();
    json!({
        "job": inner.job,
        "did": inner.key.did(),
        "model": inner.model,
        "numerics": ready.then(numerics),
        "context_tokens": 2048,
        "ready": ready,
        "credential": inner.credential.lock().unwrap().is_some(),
    })
    .to_string()
}

async fn appoint(State(inner): State<Arc<Inner>>, compact: String) -> StatusCode {
    let credential = SignedCredential::parse(&compact).unwrap();
    let credential = credential.verify(&inner.gateway).unwrap();
    *inner.credential.lock().unwrap() = Some(credential);
    StatusCode::NO_CONTENT
}

async fn cancel(State(inner): State<Arc<Inner>>, PathOf(id): PathOf<String>) -> StatusCode {
    let id: RequestId = id.parse().unwrap();
    let open = inner.cancels.lock().unwrap().get(&id).cloned();
    inner.tell.send(Seen::Cancel(id)).unwrap();
    match open {
        Some(open) => {
            open.notify_one();
            StatusCode::NO_CONTENT
        }
        None => StatusCode::NOT_FOUND,
    }
}

async fn metrics() -> &'static str {
    "# TYPE countersign_num_requests_running gauge\n\
     countersign_num_requests_running{model_name=\"model-1\"} 0\n"
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let does = *inner.does.lock().unwrap();
    let path = request.uri().path().to_owned();
    let mut accepted = inner.accept(request).await;
    inner.tell.send(Seen::Request(accepted.id.clone())).unwrap();
    if path == "/tokenize" {
        return json!({"tokens": [1, 2], "count": 2})
            .to_string()
            .into_response();
    }
    match does {
        Does::Refuse => {
            let receipt = inner.close(accepted.open, Finish::Refused);
            let body = error("refused", Some(&receipt));
            return (StatusCode::BAD_REQUEST, body).into_response();
        }
        Does::Busy => {
            let head = [("retry-after", "7")];
            return (StatusCode::TOO_MANY_REQUESTS, head, error("busy", None)).into_response();
        }
        Does::HangSilently => {
            in_time(accepted.cancel.notified()).await;
            let receipt = inner.close(accepted.open, Finish::Cancelled);
            let body = error("cancelled", Some(&receipt));
            return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
        }
        _ if accepted.stream => {
            let (producer, body) = transport::channel(NonZeroUsize::new(8).unwrap(), None);
            tokio::spawn(stream(inner, does, accepted, producer));
            let head = [("content-type", sse::CONTENT_TYPE)];
            return (head, body).into_response();
        }
        _ => {}
    }
    accepted.open.absorb(0, 1, "Hello");
    let mut body = json!({"id": accepted.id, "choices": [{"text": "Hello"}]});
    let receipt = inner.close_as(does, accepted);
    if let Some(receipt) = receipt {
        body["receipt"] = json!(receipt.compact());
    }
    body.to_string().into_response()
}

async fn stream(inner: Arc<Inner>, does: Does, mut accepted: Accepted, producer: Producer) {
    let send = |event: Value| producer.send(sse::event(&event.to_string()));
    let _ = send(chunk(&accepted.id, json!({"role": "assistant"}))).await;
    accepted.open.absorb(0, 1, "Hel");
    let _ = send(chunk(&accepted.id, json!({"content": "Hel"}))).await;
    match does {
        Does::Die => {
            in_time(accepted.cancel.notified()).await;
            return producer.fail("dying");
        }
        Does::Stop => return producer.finish(),
        Does::StateAndStop => {
            let mut event = chunk(&accepted.id, json!({"content": ""}));
            event["receipt"] = json!(inner.checkpoint(&accepted.open).compact());
            let _ = send(event).await;
            return producer.finish();
        }
        Does::Garbage => {
            let _ = producer
                .send(Bytes::from_static(b"data: garbage\n\n"))
                .await;
            return producer.finish();
        }
        Does::Hang | Does::Babble => {
            let babble = async {
                let word = chunk(&accepted.id, json!({"content": "x".repeat(1 << 16)}));
                while does == Does::Babble && send(word.clone()).await.is_ok() {}
                std::future::pending().await
            };
            let cancelled = in_time(accepted.cancel.notified());
            tokio::select! { () = babble => {}, () = cancelled => {} }
            let receipt = inner.close(accepted.open, Finish::Cancelled);
            let event = error("cancelled", Some(&receipt));
            let _ = producer.send(sse::event(&event)).await;
            return producer.finish();
        }
        _ => {}
    }
    accepted.open.absorb(0, 2, "lo");
    let _ = send(chunk(&accepted.id, json!({"content": "lo"}))).await;
    let mut last = chunk(&accepted.id, json!({}));
    last["choices"][0]["finish_reason"] = json!("stop");
    if let Some(receipt) = inner.close_as(does, accepted) {
        last["receipt"] = json!(receipt.compact());
    }
    let _ = send(last).await;
    let _ = producer.send(sse::DONE).await;
    producer.finish();
}

impl Inner {
    /// The checks that DESIGN asks of an engine. A gateway that passes on
    /// anything else fails the test.
    async fn accept(&self, request: Request) -> Accepted {
        let (head, body) = request.into_parts();
        let body = collect_body(body, 1 << 24, crate::cluster::LONG)
            .await
            .unwrap();
        let mut admissions = head.headers.get_all(admission::HEADER).iter();
        let admission = admissions.next().unwrap().to_str().unwrap();
        assert!(admissions.next().is_none(), "one admission, the gateway's");
        let admission = SignedAdmission::parse(admission).unwrap();
        let admission = admission.verify(&self.gateway).unwrap();
        let claims = admission.claims();
        let headers: Vec<_> = (head.headers.iter())
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let signed = RequestHead {
            method: head.method.as_str(),
            authority: &claims.authority,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &headers,
        };
        admission
            .admits(&self.job, &signed, &Digest::of(&body))
            .unwrap();
        let credential = self.credential.lock().unwrap().clone().unwrap();
        let policy = Policy {
            authorities: &credential.claims().authorities,
        };
        let client = request_signature::verify(&signed, &body, claims.admitted_ms, &policy);
        let client = client.unwrap();
        assert_eq!(client.as_ref().map(|client| client.did), claims.sub);
        let line = match client {
            Some(client) => client.line,
            None => RequestLine::unsigned(
                &claims.method,
                &claims.authority,
                &claims.path,
                claims.query.as_deref(),
            ),
        };
        let cancel = Arc::new(Notify::new());
        let mut cancels = self.cancels.lock().unwrap();
        cancels.insert(claims.jti.clone(), Arc::clone(&cancel));
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        Accepted {
            id: claims.jti.clone(),
            open: OpenReceipt::begin(Opening {
                jti: claims.jti.clone(),
                job: self.job.clone(),
                iss: self.key.did(),
                sub: claims.sub,
                salt: Salt([1; 16]),
                from_ms: claims.admitted_ms,
                request: line,
                body_sha256: claims.body_sha256,
                model: self.model.clone(),
                numerics: numerics(),
                cred: credential.digest(),
            }),
            stream: body["stream"] == json!(true),
            cancel,
        }
    }

    fn close(&self, open: OpenReceipt, finish: Finish) -> SignedReceipt {
        self.sign(finish, |closing| open.close(closing))
    }

    fn checkpoint(&self, open: &OpenReceipt) -> SignedReceipt {
        self.sign(Finish::Open, |closing| open.checkpoint(1, closing))
    }

    fn sign(&self, finish: Finish, close: impl FnOnce(Closing) -> Receipt) -> SignedReceipt {
        let mut chain = self.chain.lock().unwrap();
        let receipt = close(Closing {
            to_ms: now(),
            unfinished: finish,
            seq: chain.0,
            prev: chain.1,
            trace: None,
        });
        let signed = receipt.sign(&self.key);
        *chain = (chain.0 + 1, Some(signed.digest()));
        signed
    }

    fn close_as(&self, does: Does, accepted: Accepted) -> Option<SignedReceipt> {
        let receipt = self.close(accepted.open, Finish::Stop);
        let mut claims = receipt.unverified().clone();
        match does {
            Does::Withhold => None,
            Does::Forge => {
                let forger = SigningKey::from_seed([99; 32]);
                claims.iss = forger.did();
                Some(claims.sign(&forger))
            }
            Does::Swap => {
                claims.jti = RequestId::new(claims.jti.kind(), [0; 16]);
                Some(claims.sign(&self.key))
            }
            _ => Some(receipt),
        }
    }
}

fn chunk(id: &RequestId, delta: Value) -> Value {
    json!({"id": id, "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn error(code: &str, receipt: Option<&SignedReceipt>) -> String {
    let mut body = json!({"error": {"message": code, "type": "x", "param": null, "code": code}});
    if let Some(receipt) = receipt {
        body["receipt"] = json!(receipt.compact());
    }
    body.to_string()
}

fn numerics() -> Numerics {
    Numerics {
        profile: "candle-cpu/1".to_owned(),
        device: "cpu".to_owned(),
        detail: Default::default(),
    }
}

pub fn now() -> UnixMs {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    UnixMs(since.as_millis().try_into().unwrap())
}

impl From<&Engine> for gateway::JobHandle {
    fn from(engine: &Engine) -> Self {
        Self {
            job: engine.job.clone(),
            model: engine.model.clone(),
            socket: engine.socket.clone(),
            class: "local".to_owned(),
            sandbox: Vec::new(),
        }
    }
}
