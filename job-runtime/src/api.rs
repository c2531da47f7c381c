//! The engine's HTTP face on its Unix socket.
//!
//! Routes, and what lasts for the life of the job. How a completion is
//! answered is `completions`' matter. Start at [`router`].

mod completions;
mod open_requests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use protocol::api::Kind;
use protocol::credential;
use protocol::receipt::ModelRef;
use protocol::{Did, RequestId};
use serde_json::json;
use tokio::sync::Semaphore;
use transport::{BodyError, collect_body};

use crate::admit::Gatekeeper;
use crate::config::EngineConfig;
use crate::engine::Submission;
use crate::inbox::Sender;
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::prepare::Preparer;
use crate::problem::{self, Problem};

pub(crate) use open_requests::OpenRequests;

/// The process: what is known before the model is loaded, and the job after.
pub(crate) struct Process {
    pub config: EngineConfig,
    pub did: Did,
    pub model: ModelRef,
    pub context_tokens: u32,
    pub metrics: Arc<Metrics>,
    pub draining: AtomicBool,
    /// Requests that are alive or being read. The permit lies in the reply's body.
    pub requests: Arc<Semaphore>,
    pub job: OnceLock<Job>,
}

/// A job that can answer.
pub(crate) struct Job {
    pub notary: Arc<Notary>,
    pub gate: Gatekeeper,
    pub preparer: Arc<Preparer>,
    /// Requests that are parsed and tokenized at the same time.
    pub preparing: Arc<Semaphore>,
    pub inbox: Sender<Submission>,
    pub open: Arc<OpenRequests>,
}

/// Everything that the gateway can ask of the engine.
pub(crate) fn router(process: Arc<Process>) -> Router {
    let complete =
        |kind| post(move |State(process), request| completions::answer(process, kind, request));
    Router::new()
        .route("/v1/chat/completions", complete(Kind::Chat))
        .route("/v1/completions", complete(Kind::Completion))
        .route("/tokenize", post(completions::tokenize))
        .route("/detokenize", post(completions::detokenize))
        .route("/job", get(show))
        .route("/job/credential", put(appoint))
        .route("/job/requests/{id}/cancel", post(cancel))
        .route("/metrics", get(metrics))
        .fallback(async || problem::no_such_path())
        .method_not_allowed_fallback(async || problem::no_such_method())
        .with_state(process)
}

impl Process {
    /// The job, if it takes requests.
    fn serving(&self) -> Result<&Job, Problem> {
        if self.draining.load(Ordering::Acquire) {
            return Err(problem::draining());
        }
        self.job.get().ok_or_else(problem::loading)
    }

    async fn read(&self, body: Body, bytes_max: usize) -> Result<Bytes, BodyError> {
        let time = Duration::from_millis(self.config.limits.body_ms.get().into());
        collect_body(body, bytes_max, time).await
    }
}

async fn show(State(process): State<Arc<Process>>) -> Response {
    let job = process.job.get();
    let numerics = job.map(|job| job.notary.numerics());
    let facts = json!({
        "job": process.config.job,
        "did": process.did,
        "model": process.model,
        "numerics": numerics,
        "context_tokens": process.context_tokens,
        "ready": job.is_some(),
        "credential": job.is_some_and(|job| job.notary.credential().is_some()),
    });
    json_response(facts.to_string())
}

async fn appoint(
    State(process): State<Arc<Process>>,
    request: Request,
) -> Result<axum::http::StatusCode, Problem> {
    let job = process.job.get().ok_or_else(problem::loading)?;
    let body = process
        .read(request.into_body(), credential::COMPACT_BYTES_MAX)
        .await?;
    let compact = std::str::from_utf8(&body).map_err(|_| problem::not_a_credential())?;
    job.notary
        .appoint(compact.trim(), &process.config.authorities)?;
    Ok(problem::DONE)
}

async fn cancel(
    State(process): State<Arc<Process>>,
    Path(id): Path<String>,
) -> Result<axum::http::StatusCode, Problem> {
    let job = process.job.get().ok_or_else(problem::loading)?;
    let id: RequestId = id.parse().map_err(|_| problem::no_such_request())?;
    match job.open.cancel(&id) {
        true => Ok(problem::DONE),
        false => Err(problem::no_such_request()),
    }
}

async fn metrics(State(process): State<Arc<Process>>) -> Response {
    let text = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, text)], process.metrics.text()).into_response()
}

fn json_response(json: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}
