//! Answers the requests that reach the model: admitted, understood, submitted,
//! replied to. Start at [`answer`].

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use protocol::api::Kind;
use protocol::credential::VerifiedCredential;
use protocol::receipt::Finish;
use protocol::{RequestId, UnixMs};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::{Job, Process, json_response};
use crate::admit::Admitted;
use crate::ambient;
use crate::engine::Submission;
use crate::mailbox::{AnswerReader, mailbox};
use crate::notary::Stated;
use crate::prepare::{PrepareError, Preparer, SeedSource};
use crate::problem::{self, Problem};
use crate::reply::{self, Form};
use crate::statement::Statement;

/// When the job began to read a request, by both clocks.
#[derive(Debug, Clone, Copy)]
struct Began {
    at: Instant,
    from_ms: UnixMs,
}

/// A request with all that was checked.
struct Received {
    admitted: Admitted,
    body: Bytes,
    statement: Statement,
}

/// `POST /v1/chat/completions` and `POST /v1/completions`.
pub(super) async fn answer(process: Arc<Process>, kind: Kind, request: Request) -> Response {
    let began = Began {
        at: Instant::now(),
        from_ms: ambient::now(),
    };
    let received = match receive(&process, request, began).await {
        Ok(received) => received,
        Err(problem) => return problem.into_response(),
    };
    let id = received.admitted.id.clone();
    let span = tracing::info_span!(
        "request",
        request_id = %id,
        job_id = %process.config.job,
        model = process.model.id,
    );
    let reply = complete(&process, kind, received, began).instrument(span);
    with_id(reply.await.unwrap_or_else(Problem::into_response), &id)
}

/// `POST /tokenize`, as vLLM has it.
pub(super) async fn tokenize(State(process): State<Arc<Process>>, request: Request) -> Response {
    let most = process.context_tokens;
    plain(&process, request, move |preparer, body| {
        let tokens = preparer.tokenize(body)?;
        Ok(json!({ "tokens": tokens, "count": tokens.len(), "max_model_len": most }))
    })
    .await
}

/// `POST /detokenize`, as vLLM has it.
pub(super) async fn detokenize(State(process): State<Arc<Process>>, request: Request) -> Response {
    plain(&process, request, |preparer, body| {
        Ok(json!({ "prompt": preparer.detokenize(body)? }))
    })
    .await
}

/// Reads a request whole, and has it checked.
async fn receive(process: &Process, request: Request, began: Began) -> Result<Received, Problem> {
    let job = process.serving()?;
    let credential = job.credential()?;
    let (head, body) = request.into_parts();
    let most = process.config.limits.body_bytes_max.get() as usize;
    let body = process.read(body, most).await?;
    let admitted = job.gate.admit(&head, &body, &credential, ambient::now())?;
    let stated = Stated {
        id: admitted.id.clone(),
        client: admitted.client.as_ref().map(|client| client.did),
        from_ms: began.from_ms,
        line: admitted.line.clone(),
        body_sha256: admitted.body_sha256,
    };
    let open = job.notary.open(stated, &credential);
    let signed = admitted.client.is_some();
    Ok(Received {
        statement: Statement::new(open, signed, Arc::clone(&job.notary)),
        admitted,
        body,
    })
}

async fn complete(
    process: &Process,
    kind: Kind,
    received: Received,
    began: Began,
) -> Result<Response, Problem> {
    let job = process.serving()?;
    let Received {
        admitted,
        body,
        mut statement,
    } = received;
    let unread = process.config.limits.unread_tokens_max.get() as usize;
    let (writer, reader) = mailbox(unread, job.inbox.waker());
    let listed = job.open.list(admitted.id.clone(), reader.canceller());
    let body_sha256 = admitted.body_sha256;
    let client = admitted.client.as_ref().map(|client| &client.did);
    let scope = process.config.limits.prefix_sharing.scope(client);
    let seed = admitted.client.map(|client| SeedSource {
        nonce: client.nonce,
        body_sha256,
    });
    let prepare = move |preparer: &Preparer| preparer.prepare(kind, &body, seed);
    let prepared = match job.compute(prepare).await {
        Some(Ok(prepared)) => prepared,
        Some(Err(error)) => {
            let receipt = statement.close(Finish::Refused);
            return Err(Problem::from(error).with_receipt(receipt.as_ref()));
        }
        None => {
            let receipt = statement.close(Finish::Error);
            return Err(problem::engine_failed().with_receipt(receipt.as_ref()));
        }
    };
    statement.understood(&prepared.prompt, &prepared.sampling);
    let permit = match process.permit() {
        Ok(permit) => permit,
        Err(problem) => {
            let receipt = statement.close(Finish::Refused);
            return Err(problem.with_receipt(receipt.as_ref()));
        }
    };
    let model = Arc::clone(&job.preparer.model);
    let form = Form::new(admitted.id, began.from_ms.as_secs(), &prepared, model);
    let streamed = prepared.ask.stream;
    let submission = Submission {
        open: statement.pass(),
        prompt: prepared.prompt,
        sampling: prepared.sampling,
        grammar: prepared.grammar,
        logprobs: prepared.ask.logprobs,
        scope,
        // An answer in one piece arrives with its receipt or not at all.
        checkpoint_tokens: match streamed {
            true => process.config.limits.checkpoint_tokens,
            false => 0,
        },
        answer: writer,
        began: began.at,
    };
    job.inbox
        .submit(submission)
        .map_err(|_ended| problem::engine_lost())?;
    reply(form, streamed, reader, (permit, listed)).await
}

/// The reply; `held` lasts until its body is sent or dropped.
async fn reply<H: Send + 'static>(
    form: Form,
    streamed: bool,
    reader: AnswerReader,
    held: H,
) -> Result<Response, Problem> {
    if streamed {
        let body = transport::hold(reply::stream(form, reader), held);
        let headers = [
            (header::CONTENT_TYPE, transport::sse::CONTENT_TYPE),
            (header::CACHE_CONTROL, "no-store"),
        ];
        return Ok((headers, body).into_response());
    }
    let (json, end) = reply::whole(&form, reader)
        .await
        .ok_or_else(problem::engine_lost)?;
    match end.cut {
        Some(cut) => Err(problem::cut(cut).with_receipt(Some(&end.receipt))),
        None => Ok(json_response(json).map(|body: Body| transport::hold(body, held))),
    }
}

/// A request that needs no receipt, since nothing is drawn.
async fn plain(
    process: &Process,
    request: Request,
    compute: impl FnOnce(&Preparer, &[u8]) -> Result<serde_json::Value, PrepareError> + Send + 'static,
) -> Response {
    let read = async {
        let job = process.serving()?;
        let credential = job.credential()?;
        let (head, body) = request.into_parts();
        let most = process.config.limits.body_bytes_max.get() as usize;
        let body = process.read(body, most).await?;
        let admitted = job.gate.admit(&head, &body, &credential, ambient::now())?;
        Ok::<_, Problem>((job, admitted.id, body))
    };
    let (job, id, body) = match read.await {
        Ok(read) => read,
        Err(problem) => return problem.into_response(),
    };
    let reply = match job.compute(move |preparer| compute(preparer, &body)).await {
        Some(Ok(json)) => json_response(json.to_string()),
        Some(Err(error)) => Problem::from(error).into_response(),
        None => problem::engine_failed().into_response(),
    };
    with_id(reply, &id)
}

impl Process {
    /// A place among the requests that are alive or being read.
    fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let requests = Arc::clone(&self.requests);
        // None is left during a drain either.
        requests
            .try_acquire_owned()
            .map_err(|_| match self.serving() {
                Err(problem) => problem,
                Ok(_) => problem::busy(self.retry_after_s()),
            })
    }

    /// When a place may be free: as long as those that wait need, at the pace so far.
    fn retry_after_s(&self) -> u64 {
        let latency = &self.metrics.e2e_request_latency_seconds;
        let mean_s = latency.get_sample_sum() / (latency.get_sample_count().max(1) as f64);
        let waiting = self.metrics.num_requests_waiting.get() + 1;
        let at_once = self.config.limits.sequences_max.get();
        (mean_s * waiting as f64 / f64::from(at_once)).clamp(1.0, 60.0) as u64
    }
}

impl Job {
    /// What the job answers under; none before the gateway brought it, or when it
    /// expired without being renewed.
    fn credential(&self) -> Result<Arc<VerifiedCredential>, Problem> {
        let credential = self.notary.credential();
        credential
            .filter(|credential| ambient::now() < credential.claims().exp_ms)
            .ok_or_else(problem::no_credential)
    }

    /// Computes off the async threads, a few at a time; none if it panicked.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Preparer) -> T + Send + 'static,
    ) -> Option<T> {
        let turn = Arc::clone(&self.preparing).acquire_owned().await;
        let turn = turn.expect("nobody closes it");
        let preparer = Arc::clone(&self.preparer);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&preparer);
            drop(turn);
            done
        });
        done.await
            .inspect_err(|error| tracing::error!(%error, "preparing a request"))
            .ok()
    }
}

fn with_id(mut response: Response, id: &RequestId) -> Response {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert("x-request-id", value);
    }
    response
}
