//! Talks to one job's engine over its Unix socket.
//!
//! Knows the engine's paths and the form of its answers, nothing of what they
//! mean: receipts are `relay`'s to judge, credentials `jobs`' to issue.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use protocol::admission::{self, SignedAdmission};
use protocol::credential::SignedCredential;
use protocol::receipt::{ModelRef, Numerics};
use protocol::{Did, JobId, RequestId};
use serde::Deserialize;
use transport::{Body, BodyError, ConnectError, ConnectLimits, Connector, collect_body};

/// How long the engine may take to answer anything but a client's request.
const CONTROL: Duration = Duration::from_secs(5);
/// The same, where the connector asks for it.
const CONTROL_MS: u32 = 5_000;
/// The longest answer to one of those: metrics are the longest.
const CONTROL_BYTES_MAX: usize = 1 << 20;
/// Headers that speak of a connection, not of a request.
const HOP_BY_HOP: [HeaderName; 6] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, HOST];

/// A job's engine, as far as it can be called.
#[derive(Debug)]
pub(crate) struct Engine {
    /// For clients' requests: they take as long as they take.
    requests: Connector,
    /// For everything else.
    control: Connector,
}

/// What an engine says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct JobFacts {
    pub job: JobId,
    pub did: Did,
    pub model: ModelRef,
    /// Known once the model is loaded.
    pub numerics: Option<Numerics>,
    pub context_tokens: u32,
    pub ready: bool,
}

/// Why an engine couldn't be asked, or what was wrong with its answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It can't be reached, or left before it answered.
    #[error("asking the engine")]
    Connect(#[source] ConnectError),
    /// Its answer broke off, or is too long.
    #[error("reading the engine's answer")]
    Answer(#[source] BodyError),
    /// It refused.
    #[error("the engine answered {asked} with {status}")]
    Refused {
        /// What it was asked.
        asked: &'static str,
        /// Its status.
        status: StatusCode,
    },
    /// What it says of itself isn't what a job says.
    #[error("the engine's description of its job")]
    Facts(#[source] serde_json::Error),
}

impl Engine {
    pub(crate) fn at(socket: &Path) -> Self {
        let control = ConnectLimits {
            answer_ms: NonZeroU32::new(CONTROL_MS),
            ..ConnectLimits::default()
        };
        Self {
            requests: Connector::unix(socket, ConnectLimits::default()),
            control: Connector::unix(socket, control),
        }
    }

    /// What the engine serves, and by which key.
    pub(crate) async fn facts(&self) -> Result<JobFacts, EngineError> {
        let body = self.control(Method::GET, "/job", Body::empty()).await?;
        serde_json::from_slice(&body).map_err(EngineError::Facts)
    }

    /// Hands over the credential that its receipts will name.
    pub(crate) async fn put_credential(
        &self,
        credential: &SignedCredential,
    ) -> Result<(), EngineError> {
        let body = Body::from(credential.compact().to_owned());
        self.control(Method::PUT, "/job/credential", body).await?;
        Ok(())
    }

    /// Ends a request early. Its open answer still gets its receipt.
    pub(crate) async fn cancel(&self, id: &RequestId) -> Result<(), EngineError> {
        let path = format!("/job/requests/{id}/cancel");
        self.control(Method::POST, &path, Body::empty()).await?;
        Ok(())
    }

    /// The engine's own metrics, as Prometheus text.
    pub(crate) async fn metrics(&self) -> Result<String, EngineError> {
        let body = self.control(Method::GET, "/metrics", Body::empty()).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Passes a client's request on. Dropping the answer cancels it.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, EngineError> {
        let sent = self.requests.send(request).await;
        sent.map_err(EngineError::Connect)
    }

    async fn control(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<bytes::Bytes, EngineError> {
        let asked = match method {
            Method::GET => "GET",
            Method::PUT => "PUT /job/credential",
            _ => "cancel",
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("control paths are valid paths");
        let sent = self.control.send(request).await;
        let response = sent.map_err(EngineError::Connect)?;
        let status = response.status();
        if !status.is_success() {
            return Err(EngineError::Refused { asked, status });
        }
        collect_body(response.into_body(), CONTROL_BYTES_MAX, CONTROL)
            .await
            .map_err(EngineError::Answer)
    }
}

impl EngineError {
    /// Whether the engine surely hasn't seen what was sent.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(self, Self::Connect(error) if error.was_not_sent())
    }
}

/// The request that the engine sees: the client's, byte for byte where the
/// signature reaches, and the admission.
pub(crate) fn forward(
    head: &http::request::Parts,
    authority: &str,
    body: bytes::Bytes,
    admission: &SignedAdmission,
) -> Request<Body> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = path.parse().expect("it was parsed before");
    let headers = request.headers_mut();
    *headers = head.headers.clone();
    strip_hop_by_hop(headers);
    // The body is at hand, so its length is the connector's to say.
    headers.remove(CONTENT_LENGTH);
    // Whatever the client put there isn't our word.
    headers.remove(admission::HEADER);
    headers.insert(HOST, ascii(authority));
    headers.insert(admission::HEADER, ascii(admission.compact()));
    request
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = (headers.get_all(CONNECTION).iter())
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "expect"] {
        headers.remove(name);
    }
}

fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("authorities and JWS are plain ASCII")
}

/// Whether an answer is a stream of events.
pub(crate) fn is_event_stream<B>(response: &Response<B>) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE);
    let text = content_type.and_then(|value| value.to_str().ok());
    response.status() == StatusCode::OK
        && text.is_some_and(|text| text.starts_with(transport::sse::CONTENT_TYPE))
}
