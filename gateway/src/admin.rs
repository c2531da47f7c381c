//! Health and metrics, on a listener of their own.
//!
//! `/livez`: the process serves. `/readyz`: a request would be answered, as
//! just asked of the engines. `/metrics`: ours and the engines', in one text.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Uri};
use prometheus::{Encoder, Registry, TextEncoder};
use protocol::{Kind, RequestId};
use transport::{Body, DrainSignal};

use crate::front_door::FrontDoor;
use crate::metrics::merge;
use crate::problem::Problem;

/// What the admin listener tells about.
#[derive(Debug)]
pub(crate) struct Admin {
    pub door: Arc<FrontDoor>,
    pub registry: Registry,
    pub drain: DrainSignal,
}

/// Every admin route.
pub(crate) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { text("ok\n".to_owned()) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async |uri: Uri| refuse(&Problem::PathUnknown(uri.path().to_owned())))
        .with_state(Arc::new(admin))
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.readiness().await {
        Ok(()) => text("ok\n".to_owned()),
        Err(reason) => refuse(&Problem::NotReady(reason)),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let mut own = Vec::new();
    TextEncoder::new()
        .encode(&admin.registry.gather(), &mut own)
        .expect("writing to memory doesn't fail");
    let mut texts = vec![String::from_utf8_lossy(&own).into_owned()];
    for job in admin.door.jobs.all() {
        // An engine that is gone has no metrics; ours say that it is gone.
        texts.extend(job.engine().metrics().await);
    }
    text(merge(&texts))
}

impl Admin {
    async fn readiness(&self) -> Result<(), &'static str> {
        if self.drain.has_begun() {
            return Err("the gateway is shutting down");
        }
        let jobs = self.door.jobs.all();
        if jobs.is_empty() {
            return Err("no job is attached");
        }
        for job in jobs {
            if job.engine().facts().await.is_ok_and(|facts| facts.ready) {
                return Ok(());
            }
        }
        Err("no engine answers")
    }
}

fn text(body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn refuse(problem: &Problem) -> Response {
    problem.respond(&RequestId::new(Kind::Completion, [0; 16]))
}
