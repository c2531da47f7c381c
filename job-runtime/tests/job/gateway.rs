//! A gateway of the test's own: starts one job, appoints it, admits requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use job_runtime::{EngineConfig, EngineError, EngineLimits};
use protocol::admission::Admission;
use protocol::credential::{Credential, SignedCredential, VerifiedCredential};
use protocol::receipt::{ModelRef, Numerics, Receipt, SignedReceipt};
use protocol::request_signature::{RequestHead, sign};
use protocol::{Did, Digest, JobId, Kind, RequestId, SigningKey, UnixMs};
use serde_json::{Value, json};
use transport::{Body, ConnectLimits, Connector, Drain, sse};

pub const AUTHORITY: &str = "localhost:8080";

const MANIFEST: &str = include_str!("../../../models/manifests/smollm2-135m-instruct-q4_1.toml");

const LABEL: &str = r#"model_name="smollm2-135m-instruct""#;

/// A running job and whoever may ask it.
pub struct Gateway {
    pub key: SigningKey,
    pub client: SigningKey,
    pub job: JobId,
    pub credential: VerifiedCredential,
    pub drain: Drain,
    engine: Connector,
    serving: tokio::task::JoinHandle<Result<(), EngineError>>,
    requests: AtomicU64,
    _dir: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Value,
    /// The data of its events, if it is a stream.
    pub events: Vec<String>,
}

impl Gateway {
    /// Starts a job that has everything it needs.
    pub async fn start(limits: EngineLimits) -> Self {
        let key = SigningKey::from_seed([1; 32]);
        let manifest = &models::Whitelist::embedded()[0];
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("job.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let config = EngineConfig {
            job: JobId::new([7; 16]),
            gateway: key.did(),
            manifest: MANIFEST.to_owned(),
            model_path: model_path(),
            allow_unsigned: true,
            authorities: vec![AUTHORITY.to_owned()],
            limits,
            threads: None,
            level: None,
        };
        let drain = Drain::new();
        let job = config.job.clone();
        let serving = tokio::spawn(job_runtime::serve(config, listener, drain.signal()));
        let engine = Connector::unix(&socket, ConnectLimits::default());
        let facts = ready(&engine).await;
        let did: Did = serde_json::from_value(facts["did"].clone()).unwrap();
        let model: ModelRef = serde_json::from_value(facts["model"].clone()).unwrap();
        let numerics: Numerics = serde_json::from_value(facts["numerics"].clone()).unwrap();
        assert_eq!(model, manifest.model());
        let credential = Credential {
            v: 1,
            iss: key.did(),
            job: job.clone(),
            sub: did,
            model,
            numerics: numerics.profile,
            class: "test".to_owned(),
            sandbox: Vec::new(),
            authorities: vec![AUTHORITY.to_owned()],
            nbf_ms: now(),
            exp_ms: now().plus_ms(3_600_000),
        };
        let signed: SignedCredential = credential.sign(&key);
        let gateway = Self {
            credential: signed.clone().verify(&key.did()).unwrap(),
            client: SigningKey::from_seed([2; 32]),
            key,
            job,
            drain,
            engine,
            serving,
            requests: AtomicU64::new(0),
            _dir: dir,
        };
        let early = gateway.complete(chat("hi")).await;
        assert_eq!(early.status, 503, "not before it has a credential");
        let put = gateway
            .control("PUT", "/job/credential", signed.compact())
            .await;
        assert_eq!(put.status, 204);
        gateway
    }

    /// A signed chat completion, read to its end.
    pub async fn complete(&self, body: Value) -> Answer {
        self.send("/v1/chat/completions", body.to_string().as_bytes())
            .await
    }

    /// A signed request, read to its end.
    pub async fn send(&self, path: &str, body: &[u8]) -> Answer {
        let request = self.signed(path, body);
        Answer::of(self.engine.send(request).await.unwrap()).await
    }

    /// A request that is underway.
    pub async fn open(&self, body: Value) -> Response<Body> {
        let request = self.signed("/v1/chat/completions", body.to_string().as_bytes());
        self.engine.send(request).await.unwrap()
    }

    /// Sends what the test has made of a request.
    pub async fn deliver(&self, request: Request<Body>) -> Answer {
        Answer::of(self.engine.send(request).await.unwrap()).await
    }

    /// A request as a client signs it and a gateway admits it.
    pub fn signed(&self, path: &str, body: &[u8]) -> Request<Body> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number);
        self.signed_with(path, body, nonce)
    }

    /// The same, with this nonce.
    pub fn signed_with(&self, path: &str, body: &[u8], nonce: [u8; 16]) -> Request<Body> {
        let content_type = [("content-type", "application/json")];
        let head = RequestHead {
            method: "POST",
            authority: AUTHORITY,
            path,
            query: None,
            headers: &content_type,
        };
        let seconds = now().as_secs();
        let signature = sign(&self.client, &head, body, seconds, seconds + 60, nonce);
        let mut request = self.admitted(path, body, Some(self.client.did()));
        for (name, value) in signature.fields() {
            request.headers_mut().insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        request
    }

    /// A request that the gateway admits in the name of `sub`, and nobody signed.
    pub fn admitted(&self, path: &str, body: &[u8], sub: Option<Did>) -> Request<Body> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut random = [0; 16];
        random[8..].copy_from_slice(&number);
        let admission = Admission {
            v: 1,
            iss: self.key.did(),
            jti: RequestId::new(Kind::Chat, random),
            job: self.job.clone(),
            sub,
            admitted_ms: now(),
            method: "POST".to_owned(),
            authority: AUTHORITY.to_owned(),
            path: path.to_owned(),
            query: None,
            body_sha256: Digest::of(body),
        };
        self.with_admission(path, body, admission)
    }

    /// A request with this admission.
    pub fn with_admission(&self, path: &str, body: &[u8], admission: Admission) -> Request<Body> {
        Request::post(path)
            .header("host", AUTHORITY)
            .header("content-type", "application/json")
            .header("countersign-admission", admission.sign(&self.key).compact())
            .body(Body::from(body.to_vec()))
            .unwrap()
    }

    /// What only a gateway asks.
    pub async fn control(&self, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from(body.to_owned()))
            .unwrap();
        Answer::of(self.engine.send(request).await.unwrap()).await
    }

    /// A metric without labels of its own.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metrics().await[&format!("countersign_{name}{{{LABEL}}}")]
    }

    /// Choices that ended so.
    pub async fn finished(&self, reason: &str) -> f64 {
        let labels = format!(r#"finished_reason="{reason}",{LABEL}"#);
        self.metrics().await[&format!("countersign_request_success_total{{{labels}}}")]
    }

    async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self.control("GET", "/metrics", "").await;
        let text = answer.body.as_str().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let split = lines.filter_map(|line| line.rsplit_once(' '));
        split
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// Waits until the job has ended.
    pub async fn ended(self) -> Result<(), EngineError> {
        self.serving.await.unwrap()
    }
}

impl Answer {
    pub async fn of(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let is_stream = head
            .headers
            .get("content-type")
            .is_some_and(|value| value == sse::CONTENT_TYPE);
        let mut events = Vec::new();
        if is_stream {
            sse::Decoder::new(1 << 20)
                .push(&bytes, &mut events)
                .unwrap();
        }
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            events: events.into_iter().map(|event| event.data).collect(),
        }
    }

    /// Every event but `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let data = self.events.iter().filter(|data| *data != sse::DONE_DATA);
        data.map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    /// What the choices say, read as any client reads it.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        let bodies = match self.events.is_empty() {
            true => vec![self.body.clone()],
            false => self.chunks(),
        };
        for choice in bodies
            .iter()
            .filter_map(|body| body["choices"].as_array())
            .flatten()
        {
            let index = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
            texts.resize(texts.len().max(index + 1), String::new());
            let said = [
                &choice["delta"]["content"],
                &choice["message"]["content"],
                &choice["text"],
            ];
            said.iter()
                .filter_map(|said| said.as_str())
                .for_each(|said| texts[index].push_str(said));
        }
        texts
    }

    /// The ids of each choice, where they were asked for.
    pub fn tokens(&self) -> Vec<u32> {
        let bodies = match self.events.is_empty() {
            true => vec![self.body.clone()],
            false => self.chunks(),
        };
        let choices = bodies
            .iter()
            .filter_map(|body| body["choices"].as_array())
            .flatten();
        let ids = choices
            .filter_map(|choice| choice["token_ids"].as_array())
            .flatten();
        ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
            .collect()
    }

    /// The receipt, wherever it rides.
    pub fn signed_receipt(&self) -> SignedReceipt {
        let chunks = self.chunks();
        let found = chunks
            .iter()
            .chain([&self.body])
            .find_map(|body| body["receipt"].as_str());
        SignedReceipt::parse(found.expect("there is a receipt")).unwrap()
    }

    /// The receipt, signed by this gateway's job and about exactly these texts.
    pub fn receipt(&self, gateway: &Gateway) -> Receipt {
        let verified = self.signed_receipt().verify(&gateway.credential).unwrap();
        let receipt = verified.claims().clone();
        let texts = self.texts();
        for (choice, output) in receipt.output.iter().enumerate() {
            let text = texts.get(choice).map_or("", String::as_str);
            assert_eq!(output.text_sha256, Digest::of(text.as_bytes()), "{text:?}");
        }
        receipt
    }

    /// The `code` of an error.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("none")
    }
}

/// A short request, greedy, so that its answer is known to be the same again.
pub fn chat(content: &str) -> Value {
    json!({
        "model": "smollm2-135m-instruct",
        "messages": [{ "role": "user", "content": content }],
        "max_tokens": 8,
        "temperature": 0,
    })
}

/// `body` with more members.
pub fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMs(u64::try_from(since.as_millis()).unwrap())
}

async fn ready(engine: &Connector) -> Value {
    // Polled, as the provider does: there is nothing to be told by.
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..1000 {
        tick.tick().await;
        let request = Request::get("/job").body(Body::empty()).unwrap();
        let facts = Answer::of(engine.send(request).await.unwrap()).await.body;
        if facts["ready"] == true {
            return facts;
        }
    }
    panic!("the engine isn't ready");
}

fn model_path() -> PathBuf {
    let folder = std::env::var_os("COUNTERSIGN_TEST_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models")),
        PathBuf::from,
    );
    let path = models::fetch::path(&models::Whitelist::embedded()[0], &folder);
    assert!(
        path.exists(),
        "no model at {}: run tests/run, which fetches it",
        path.display()
    );
    path
}
