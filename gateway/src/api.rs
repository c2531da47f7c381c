//! The public routes: OpenAI's, vLLM's two, and the receipts.
//!
//! Only from a path to what it calls, and from what comes back to JSON. What
//! happens in between is `front_door`'s. Start at [`router`].

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Uri};
use protocol::{Kind, RequestId};
use serde_json::{Value, json};
use tracing::Instrument;
use tracing::field::Empty;
use transport::Body;

use crate::front_door::{Endpoint, FrontDoor};
use crate::jobs::AttachedJob;
use crate::problem::{Problem, request_id_header};
use crate::store::StoredReceipt;

const RECEIPTS: &str = "/v1/receipts/";

/// Every public route.
pub(crate) fn router(door: Arc<FrontDoor>) -> Router {
    let mut router = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/receipts/{*id}", get(receipt));
    for endpoint in Endpoint::ALL {
        let handler = move |State(door), request| ask(door, endpoint, request);
        router = router.route(endpoint.path(), post(handler));
    }
    router
        .fallback(path_unknown)
        .method_not_allowed_fallback(method_wrong)
        .with_state(door)
}

async fn ask(door: Arc<FrontDoor>, endpoint: Endpoint, request: Request) -> Response {
    let id = new_id(endpoint.kind());
    let span = tracing::info_span!("request", request_id = %id, job_id = Empty, model = Empty);
    door.metrics.asked(endpoint);
    async {
        let answer = door.ask(&id, endpoint, request).await;
        answer.unwrap_or_else(|problem| refuse(&door, &id, &problem))
    }
    .instrument(span)
    .await
}

async fn receipt(State(door): State<Arc<FrontDoor>>, uri: Uri, request: Request) -> Response {
    let id = new_id(Kind::Completion);
    let asked = uri.path().strip_prefix(RECEIPTS).unwrap_or_default();
    match door.receipt(asked, request).await {
        Ok(found) => answer(&id, &kept(found)),
        Err(problem) => refuse(&door, &id, &problem),
    }
}

/// Absent is what there isn't: the receipt of an answer that was lost, checkpoints of a short one.
fn kept(found: StoredReceipt) -> Value {
    let mut kept = json!({ "chain": [found.credential] });
    if let Some(receipt) = found.compact {
        kept["receipt"] = receipt.into();
    }
    if !found.checkpoints.is_empty() {
        kept["checkpoints"] = found.checkpoints.into();
    }
    kept
}

async fn models(State(door): State<Arc<FrontDoor>>, request: Request) -> Response {
    let id = new_id(Kind::Completion);
    match for_us(&door, request) {
        Ok(()) => answer(&id, &json!({ "object": "list", "data": listed(&door) })),
        Err(problem) => refuse(&door, &id, &problem),
    }
}

async fn model(
    State(door): State<Arc<FrontDoor>>,
    asked: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let id = new_id(Kind::Completion);
    let asked = asked.map_or_else(|_| String::new(), |Path(asked)| asked);
    let found = for_us(&door, request).and_then(|()| {
        let mut listed = listed(&door).into_iter();
        let found = listed.find(|model| model["id"] == asked.as_str());
        found.ok_or(Problem::ModelUnknown(asked))
    });
    match found {
        Ok(model) => answer(&id, &model),
        Err(problem) => refuse(&door, &id, &problem),
    }
}

async fn path_unknown(State(door): State<Arc<FrontDoor>>, uri: Uri) -> Response {
    let problem = Problem::PathUnknown(uri.path().to_owned());
    refuse(&door, &new_id(Kind::Completion), &problem)
}

async fn method_wrong(State(door): State<Arc<FrontDoor>>, uri: Uri) -> Response {
    let posts = Endpoint::ALL.iter().any(|one| one.path() == uri.path());
    let problem = Problem::MethodWrong {
        path: uri.path().to_owned(),
        allowed: if posts { "POST" } else { "GET, HEAD" },
    };
    refuse(&door, &new_id(Kind::Completion), &problem)
}

fn for_us(door: &FrontDoor, request: Request) -> Result<(), Problem> {
    let (head, _) = request.into_parts();
    door.rules.target(&head).map(|_| ())
}

/// The models served, each once, with the digest that a client may pin.
fn listed(door: &FrontDoor) -> Vec<Value> {
    let mut listed: Vec<Value> = Vec::new();
    for job in door.jobs.all() {
        let facts = job.facts();
        let known = |other: &Value| other["id"] == facts.model.id.as_str();
        if !listed.iter().any(known) {
            listed.push(describe(facts));
        }
    }
    listed
}

fn describe(facts: &AttachedJob) -> Value {
    json!({
        "id": facts.model.id,
        "object": "model",
        "created": facts.since.as_secs(),
        "owned_by": "countersign",
        "digest": facts.model.digest,
        "numerics": facts.numerics,
        "max_model_len": facts.context_tokens,
    })
}

fn answer(id: &RequestId, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-request-id", request_id_header(id));
    response
}

fn refuse(door: &FrontDoor, id: &RequestId, problem: &Problem) -> Response {
    door.metrics.refused(problem);
    problem.respond(id)
}

/// Every response has an id, so that its log lines can be found.
fn new_id(kind: Kind) -> RequestId {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the system gives random bytes");
    RequestId::new(kind, random)
}
