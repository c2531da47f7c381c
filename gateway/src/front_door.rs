//! What happens to a request that comes to the front door, step by step.
//!
//! Each step is somebody else's rule: `admission` says who may ask, `store`
//! whether a nonce is new, `jobs` who answers, `relay` carries it. Here is
//! their order, and what runs at once. Start at [`FrontDoor::ask`].

mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::request;
use protocol::api::{self, ApiError};
use protocol::{Did, Kind, RequestId, SigningKey};
use tokio::sync::{Semaphore, oneshot};
use tracing::Instrument;
use transport::{Body, BodyError, collect_body};

use crate::admission::{Admitted, Rules};
use crate::clock;
use crate::config::{GatewayLimits, Signatures};
use crate::engine;
use crate::jobs::{Jobs, Seat};
use crate::problem::Problem;
use crate::relay::{Passage, Relay, RelayMetrics};
use crate::store::{NonceUse, Spent, Store, StoredReceipt};
use crate::tasks::Tasks;
pub(crate) use metrics::FrontDoorMetrics;

/// Bodies from this size on are hashed and parsed beside the async threads.
const OFFLOAD_BYTES: usize = 64 * 1024;

/// All that requests share.
#[derive(Debug)]
pub(crate) struct FrontDoor {
    pub key: Arc<SigningKey>,
    pub rules: Rules,
    pub store: Store,
    pub jobs: Jobs,
    pub limits: GatewayLimits,
    /// One for each request in flight; without one left, a request is refused
    /// at once rather than kept waiting.
    pub permits: Arc<Semaphore>,
    pub relays: Tasks,
    pub metrics: FrontDoorMetrics,
    pub relay_metrics: RelayMetrics,
}

/// What an engine can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
    Tokenize,
    Detokenize,
}

/// A request that has passed the rules, and the model that it wants.
struct Judged {
    head: request::Parts,
    body: Bytes,
    admitted: Admitted,
    wanted: Result<Option<String>, ApiError>,
}

impl FrontDoor {
    /// Answers one request to an engine.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        id: &RequestId,
        endpoint: Endpoint,
        request: Request,
    ) -> Result<Response, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| Problem::Busy)?;
        let (head, body) = request.into_parts();
        self.rules.target(&head)?;
        let body = self.read(body).await?;
        let began = Instant::now();
        let judged = self.judge(endpoint, head, body).await?;
        if self.jobs.is_empty() {
            return Err(Problem::NoJob); // before the nonce is used up
        }
        self.spend_nonce(&judged.admitted).await?;
        let seat = self.seat(judged.wanted, judged.admitted.signature.is_some())?;
        self.metrics.admitted(began.elapsed());

        let facts = seat.job().facts();
        let span = tracing::Span::current();
        span.record("job_id", facts.job.as_str());
        span.record("model", facts.model.id.as_str());
        let admission = judged.admitted.certify(id, &facts.job, &self.key);
        let authority = &judged.admitted.line.authority;
        let forwarded = engine::forward(&judged.head, authority, judged.body, &admission);
        let relay = Relay {
            passage: Passage::new(id.clone(), judged.admitted, endpoint.is_receipted()),
            seat,
            store: self.store.clone(),
            limits: self.limits.clone(),
            metrics: self.relay_metrics.clone(),
            _permit: permit,
        };
        let (reply, answer) = oneshot::channel();
        self.relays
            .spawn(relay.run(forwarded, reply).instrument(span));
        answer.await.unwrap_or(Err(Problem::EngineLost(None)))
    }

    /// Reads a receipt back for its owner.
    pub(crate) async fn receipt(
        self: &Arc<Self>,
        asked: &str,
        request: Request,
    ) -> Result<StoredReceipt, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let _permit = permit.map_err(|_| Problem::Busy)?;
        let (head, body) = request.into_parts();
        self.rules.target(&head)?;
        let body = self.read(body).await?;
        let admitted = self.rules.admit(&head, &body, clock::now())?;
        self.spend_nonce(&admitted).await?;
        let unknown = || Problem::ReceiptUnknown(asked.to_owned());
        let id: RequestId = asked.parse().map_err(|_| unknown())?;
        let found = self.store.receipt(&id).await.map_err(Problem::Store)?;
        let found = found.ok_or_else(unknown)?;
        match may_read(found.sub.as_deref(), admitted.did(), self.rules.signatures) {
            true => Ok(found),
            false => Err(unknown()),
        }
    }

    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let max = self.limits.body_bytes_max.get();
        let time = Duration::from_millis(self.limits.body_ms_max.get());
        collect_body(body, max, time)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge { max } => Problem::BodyTooLarge { max },
                BodyError::TimedOut { .. } | BodyError::Stalled { .. } => Problem::BodyTooSlow,
                BodyError::Broken(_) => Problem::BodyBroken,
            })
    }

    async fn judge(
        self: &Arc<Self>,
        endpoint: Endpoint,
        head: request::Parts,
        body: Bytes,
    ) -> Result<Judged, Problem> {
        let door = Arc::clone(self);
        let is_small = body.len() < OFFLOAD_BYTES;
        let judge = move || {
            Ok(Judged {
                admitted: door.rules.admit(&head, &body, clock::now())?,
                wanted: endpoint.model(&body),
                head,
                body,
            })
        };
        if is_small {
            return judge();
        }
        let judged = tokio::task::spawn_blocking(judge).await;
        judged.expect("judging a request doesn't panic")
    }

    async fn spend_nonce(&self, admitted: &Admitted) -> Result<(), Problem> {
        let Some(signature) = &admitted.signature else {
            return Ok(());
        };
        let usage = NonceUse {
            did: signature.did,
            nonce: signature.nonce.as_bytes().to_vec(),
            expires_s: signature.expires_s,
            now_s: admitted.at.as_secs(),
        };
        match self.store.spend_nonce(usage).await {
            Ok(Spent::Fresh) => Ok(()),
            Ok(Spent::Reused) => Err(Problem::NonceReused),
            Ok(Spent::Forgotten) => Err(Problem::NonceForgotten),
            Err(error) => Err(Problem::Store(error)),
        }
    }

    /// Who answers. What was signed is answered by an engine even where it
    /// can only be refused: the client gets a receipt for that.
    fn seat(
        &self,
        wanted: Result<Option<String>, ApiError>,
        signed: bool,
    ) -> Result<Seat, Problem> {
        let anyone = || self.jobs.default_seat().ok_or(Problem::NoJob);
        match wanted {
            Ok(None) => anyone(),
            Ok(Some(model)) => match self.jobs.seat(&model) {
                Some(seat) => Ok(seat),
                None if signed => anyone(),
                None => Err(Problem::ModelUnknown(model)),
            },
            Err(_) if signed => anyone(),
            Err(error) => Err(Problem::Ask(error)),
        }
    }
}

impl Endpoint {
    pub(crate) const ALL: [Self; 4] = [
        Self::Chat,
        Self::Completion,
        Self::Tokenize,
        Self::Detokenize,
    ];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
        }
    }

    /// The name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Tokenize => "tokenize",
            Self::Detokenize => "detokenize",
        }
    }

    /// What its requests' ids look like.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Chat => Kind::Chat,
            _ => Kind::Completion,
        }
    }

    /// Whether its answers carry receipts: those with tokens that were drawn.
    fn is_receipted(self) -> bool {
        matches!(self, Self::Chat | Self::Completion)
    }

    /// The model that a body names.
    fn model(self, body: &[u8]) -> Result<Option<String>, ApiError> {
        let limits = api::Limits::default();
        match self {
            Self::Chat => api::parse_chat(body, &limits).map(|ask| Some(ask.model)),
            Self::Completion => api::parse_completion(body, &limits).map(|ask| Some(ask.model)),
            Self::Tokenize => api::parse_tokenize(body).map(|ask| ask.model),
            Self::Detokenize => api::parse_detokenize(body).map(|ask| ask.model),
        }
    }
}

/// A receipt is its owner's; one that nobody owns is for everybody, where
/// everybody may ask.
fn may_read(owner: Option<&str>, reader: Option<Did>, signatures: Signatures) -> bool {
    match owner {
        Some(owner) => reader.is_some_and(|reader| reader.to_string() == owner),
        None => signatures == Signatures::Optional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_their_owners() {
        let [ann, bob] = [1, 2].map(|seed| SigningKey::from_seed([seed; 32]).did());
        let owner = ann.to_string();
        use Signatures::{Optional, Required};
        assert!(may_read(Some(&owner), Some(ann), Required));
        assert!(!may_read(Some(&owner), Some(bob), Optional));
        assert!(!may_read(Some(&owner), None, Optional));
        assert!(may_read(None, None, Optional));
        assert!(may_read(None, Some(bob), Optional));
        assert!(!may_read(None, Some(bob), Required));
    }
}
