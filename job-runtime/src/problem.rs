//! What a client is told when something is wrong: OpenAI's error object, a
//! stable code, a safe sentence, and the receipt if one is owed.
//!
//! The only place in this crate that knows HTTP statuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::receipt::SignedReceipt;
use serde::Serialize;
use transport::BodyError;

use crate::admit::AdmitError;
use crate::mailbox::Cut;
use crate::notary::CredentialRefused;
use crate::prepare::PrepareError;

/// An error as the client sees it.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    retry_after_s: Option<u64>,
    error: Box<ErrorObject>,
    receipt: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorObject {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: &'static str,
}

#[derive(Debug, Serialize)]
struct ErrorBody<'a> {
    error: &'a ErrorObject,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a str>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl AsRef<str>) -> Self {
        let r#type = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self {
            status,
            retry_after_s: None,
            error: Box::new(ErrorObject {
                message: sentence(message.as_ref()),
                r#type,
                param: None,
                code,
            }),
            receipt: None,
        }
    }

    /// Adds the receipt that says so too.
    pub(crate) fn with_receipt(mut self, receipt: Option<&SignedReceipt>) -> Self {
        self.receipt = receipt.map(|receipt| receipt.compact().to_owned());
        self
    }

    /// The body, or the data of an error event.
    pub(crate) fn json(&self) -> String {
        let body = ErrorBody {
            error: &self.error,
            receipt: self.receipt.as_deref(),
        };
        serde_json::to_string(&body).expect("strings are always JSON")
    }
}

/// An error's message, as somebody reads it who doesn't see its source.
fn sentence(message: &str) -> String {
    let mut rest = message.chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    let end = if message.ends_with('.') { "" } else { "." };
    first
        .chain(rest.as_str().chars())
        .chain(end.chars())
        .collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = (self.status, self.json()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<AdmitError> for Problem {
    fn from(error: AdmitError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
    }
}

impl From<PrepareError> for Problem {
    fn from(error: PrepareError) -> Self {
        let message = error.to_string();
        match error {
            PrepareError::Api(api) => {
                let mut problem = Self::new(StatusCode::BAD_REQUEST, api.code, message);
                problem.error.param = api.param;
                problem
            }
            PrepareError::UnknownModel(_) => {
                let mut problem = Self::new(StatusCode::NOT_FOUND, "model_not_found", message);
                problem.error.param = Some("model".to_owned());
                problem
            }
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            BodyError::TimedOut { .. } | BodyError::Stalled { .. } => {
                (StatusCode::REQUEST_TIMEOUT, "body_timeout")
            }
            BodyError::Broken(_) => (StatusCode::BAD_REQUEST, "body_broken"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<CredentialRefused> for Problem {
    fn from(error: CredentialRefused) -> Self {
        Self::new(StatusCode::FORBIDDEN, error.code(), error.to_string())
    }
}

/// There is nothing to say.
pub(crate) const DONE: StatusCode = StatusCode::NO_CONTENT;

pub(crate) fn loading() -> Problem {
    unavailable("loading", "the model isn't loaded yet")
}

pub(crate) fn no_credential() -> Problem {
    unavailable(
        "no_credential",
        "the job has no credential that is valid now",
    )
}

pub(crate) fn draining() -> Problem {
    unavailable("draining", "the job is ending and takes no new requests")
}

fn unavailable(code: &'static str, message: &str) -> Problem {
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
    problem.retry_after_s = Some(1);
    problem
}

/// Everything is in use.
pub(crate) fn busy(retry_after_s: u64) -> Problem {
    let message =
        format!("the job has all the requests that it can hold; try again in {retry_after_s} s");
    let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message);
    problem.retry_after_s = Some(retry_after_s);
    problem
}

/// A request that ended before the model was done.
pub(crate) fn cut(cut: Cut) -> Problem {
    let (status, code, message) = match cut {
        Cut::Cancelled => (
            StatusCode::CONFLICT,
            "cancelled",
            "the request was cancelled",
        ),
        Cut::Stalled => (
            StatusCode::REQUEST_TIMEOUT,
            "reader_stalled",
            "the answer wasn't read for too long",
        ),
        Cut::Draining => (
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            "the job ended before the answer did",
        ),
        Cut::Failed => return engine_failed(),
    };
    Problem::new(status, code, message)
}

/// Our fault, on this request.
pub(crate) fn engine_failed() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "engine_failed",
        "the engine failed on this request",
    )
}

pub(crate) fn engine_lost() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "engine_lost",
        "the engine ended before the answer did",
    )
}

pub(crate) fn no_such_request() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "request_not_found",
        "no such request is running",
    )
}

pub(crate) fn no_such_path() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
    )
}

pub(crate) fn no_such_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path doesn't take that method",
    )
}

pub(crate) fn not_a_credential() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "jws_form",
        "the body isn't a compact JWS",
    )
}
