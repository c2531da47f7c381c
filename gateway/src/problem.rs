//! What a client is told when something goes wrong.
//!
//! The only place with HTTP statuses for errors. A [`Problem`] becomes an
//! OpenAI-shaped body with a stable code and a safe sentence; the chain of
//! causes goes to the log, under the request's id. Start at [`Problem`].

use std::error::Error;

use axum::response::Response;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use protocol::api::ApiError;
use protocol::request_signature::SignatureError;
use protocol::{Did, RequestId};
use serde_json::{Value, json};
use transport::{Body, TargetError};

use crate::engine::EngineError;
use crate::relay::Breach;
use crate::store::StoreError;

/// Why a request isn't answered as its client hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the request's authority is unclear: {0}")]
    AuthorityUnclear(TargetError),
    #[error("this server doesn't answer for {asked}, but for {}", known.join(", "))]
    AuthorityUnknown { asked: String, known: Vec<String> },
    #[error("the body is longer than {max} bytes")]
    BodyTooLarge { max: usize },
    #[error("the body didn't arrive in time")]
    BodyTooSlow,
    #[error("the body broke off")]
    BodyBroken,
    #[error("the request must be signed")]
    SignatureMissing,
    #[error("the request's signature isn't accepted: {0}")]
    Signature(SignatureError),
    #[error("{0} may not ask here; whoever runs this server can allow it")]
    DidNotAllowed(Did),
    #[error("this nonce was used before: every request needs a new one")]
    NonceReused,
    #[error("nonces of that age are forgotten here: sign the request again, with a later expiry")]
    NonceForgotten,
    #[error("{}", .0.message)]
    Ask(ApiError),
    #[error("the model {0:?} doesn't exist here")]
    ModelUnknown(String),
    #[error("there is no receipt {0:?} that you may read")]
    ReceiptUnknown(String),
    #[error("there is nothing at {0}")]
    PathUnknown(String),
    #[error("{path} takes {allowed} only")]
    MethodWrong { path: String, allowed: &'static str },
    #[error("too many requests are in flight, try again")]
    Busy,
    #[error("no model is being served at the moment")]
    NoJob,
    #[error("{0}")]
    NotReady(&'static str),
    #[error("the gateway's store doesn't work at the moment")]
    Store(#[source] StoreError),
    #[error("the engine can't be reached")]
    EngineUnreachable(#[source] EngineError),
    #[error("the engine broke off before the answer was complete")]
    EngineLost(#[source] Option<EngineError>),
    #[error("the engine didn't finish in time")]
    EngineTooSlow,
    #[error("the engine's answer isn't passed on: {0}")]
    Breach(Breach),
}

/// What a problem is, on the wire.
struct Shape {
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    param: Option<String>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
/// After how many seconds a busy or unready gateway is worth asking again.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    /// The stable name of this problem.
    pub(crate) fn code(&self) -> &'static str {
        self.shape().code
    }

    /// The whole response, logged under the request's id.
    pub(crate) fn respond(&self, id: &RequestId) -> Response {
        self.log();
        let shape = self.shape();
        let mut response = Response::new(Body::from(self.body().to_string()));
        *response.status_mut() = shape.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-request-id", request_id_header(id));
        match self {
            Self::MethodWrong { allowed, .. } => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::Busy | Self::NoJob => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_S);
            }
            _ => {}
        }
        response
    }

    /// The data of an event that says so inside a stream.
    pub(crate) fn event(&self) -> String {
        self.log();
        self.body().to_string()
    }

    fn body(&self) -> Value {
        let shape = self.shape();
        json!({ "error": {
            "message": self.to_string(),
            "type": shape.kind,
            "param": shape.param,
            "code": shape.code,
        }})
    }

    fn log(&self) {
        let shape = self.shape();
        if shape.status.is_server_error() {
            let error = self as &dyn Error;
            tracing::warn!(code = shape.code, error, "refused");
        } else {
            tracing::debug!(code = shape.code, "refused");
        }
    }

    fn shape(&self) -> Shape {
        let (status, kind, code) = match self {
            Self::AuthorityUnclear(_) => (400, INVALID, "authority_unclear"),
            Self::AuthorityUnknown { .. } => (421, INVALID, "authority_unknown"),
            Self::BodyTooLarge { .. } => (413, INVALID, "body_too_large"),
            Self::BodyTooSlow => (408, INVALID, "body_too_slow"),
            Self::BodyBroken => (400, INVALID, "body_broken"),
            Self::SignatureMissing => (401, "authentication_error", "signature_missing"),
            Self::Signature(error) => (401, "authentication_error", error.code()),
            Self::DidNotAllowed(_) => (403, "permission_error", "did_not_allowed"),
            Self::NonceReused => (401, "authentication_error", "nonce_reused"),
            Self::NonceForgotten => (401, "authentication_error", "nonce_forgotten"),
            Self::Ask(error) => (400, INVALID, error.code),
            Self::ModelUnknown(_) => (404, INVALID, "model_not_found"),
            Self::ReceiptUnknown(_) => (404, INVALID, "receipt_not_found"),
            Self::PathUnknown(_) => (404, INVALID, "path_not_found"),
            Self::MethodWrong { .. } => (405, INVALID, "method_not_allowed"),
            Self::Busy => (503, SERVER, "gateway_busy"),
            Self::NoJob => (503, SERVER, "no_job"),
            Self::NotReady(_) => (503, SERVER, "not_ready"),
            Self::Store(_) => (503, SERVER, "store_unavailable"),
            Self::EngineUnreachable(_) => (503, SERVER, "engine_unavailable"),
            Self::EngineLost(_) => (503, SERVER, "engine_lost"),
            Self::EngineTooSlow => (504, SERVER, "engine_too_slow"),
            Self::Breach(breach) => (502, SERVER, breach.code()),
        };
        let param = match self {
            Self::Ask(error) => error.param.clone(),
            Self::ModelUnknown(_) => Some("model".to_owned()),
            _ => None,
        };
        Shape {
            status: StatusCode::from_u16(status).expect("the statuses above are statuses"),
            kind,
            code,
            param,
        }
    }
}

/// A request id as a header value.
pub(crate) fn request_id_header(id: &RequestId) -> HeaderValue {
    HeaderValue::from_str(id.as_str()).expect("request ids are plain ASCII")
}
