//! What of an engine's answer may be passed on to its client.
//!
//! Pure: the engine's events go in one by one, or its whole reply; what may
//! be done with each comes out. A receipt counts only when it verifies against
//! a credential that this gateway issued, and is about this very request.
//! Start at [`Passage::event`] and [`Passage::reply`].

use http::StatusCode;
use protocol::receipt::{ReceiptError, SignedReceipt, VerifiedReceipt};
use protocol::{Digest, RequestId};
use serde::Deserialize;
use serde::de::IgnoredAny;
use transport::sse;

use crate::admission::Admitted;
use crate::jobs::Credentials;

/// The passage of one request's answer.
#[derive(Debug)]
pub(crate) struct Passage {
    id: RequestId,
    admitted: Admitted,
    /// Whether an answer of this kind carries a receipt.
    receipted: bool,
    receipt: Option<Digest>,
    /// Checkpoints so far.
    checkpoints: u32,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// The engine told the client of an error.
    Error,
    /// `[DONE]`.
    Done,
}

/// What to do with an event or a reply.
#[derive(Debug)]
pub(crate) enum Step {
    /// Pass it on.
    Pass,
    /// Store this first, then pass it on.
    Keep(Box<VerifiedReceipt>),
    /// Pass it on: it was the last.
    Done,
}

/// What an engine did that an engine doesn't do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    #[error("an event isn't a JSON object")]
    EventForm,
    #[error("an event is too long, or isn't text")]
    EventBytes,
    #[error("the reply isn't a JSON object with an answer or an error")]
    ReplyForm,
    #[error("its receipt isn't valid: {0}")]
    Receipt(ReceiptError),
    #[error("its receipt names a credential that wasn't issued here")]
    Credential,
    #[error("its receipt is for another request")]
    OtherRequest,
    #[error("it signed two receipts for one request")]
    TwoReceipts,
    #[error("its checkpoint has the number {found}, and {expected} is next")]
    Checkpoint {
        /// As it says.
        found: u32,
        /// As it should be.
        expected: u32,
    },
    #[error("it carries no receipt")]
    NoReceipt,
    #[error("it goes on after its end")]
    AfterEnd,
}

/// What we need to see of an event or a reply.
#[derive(Deserialize)]
struct Glance {
    receipt: Option<String>,
    error: Option<IgnoredAny>,
}

impl Passage {
    pub(crate) fn new(id: RequestId, admitted: Admitted, receipted: bool) -> Self {
        Self {
            id,
            admitted,
            receipted,
            receipt: None,
            checkpoints: 0,
            end: End::NotYet,
        }
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// Judges the next event of a stream.
    pub(crate) fn event(&mut self, data: &str, issued: &Credentials) -> Result<Step, Breach> {
        if self.end == End::Done {
            return Err(Breach::AfterEnd);
        }
        if data == sse::DONE_DATA {
            if self.receipted && self.receipt.is_none() {
                return Err(Breach::NoReceipt);
            }
            self.end = End::Done;
            return Ok(Step::Done);
        }
        let seen: Glance = serde_json::from_str(data).map_err(|_| Breach::EventForm)?;
        if seen.error.is_some() {
            self.end = End::Error;
        }
        self.receipt(seen.receipt.as_deref(), issued)
    }

    /// Judges a reply that isn't a stream.
    pub(crate) fn reply(
        &mut self,
        status: StatusCode,
        body: &[u8],
        issued: &Credentials,
    ) -> Result<Step, Breach> {
        let seen: Glance = serde_json::from_slice(body).map_err(|_| Breach::ReplyForm)?;
        if status.is_success() == seen.error.is_some() {
            return Err(Breach::ReplyForm);
        }
        self.end = End::Done;
        let step = self.receipt(seen.receipt.as_deref(), issued)?;
        if status.is_success() && self.receipted && self.receipt.is_none() {
            return Err(Breach::NoReceipt);
        }
        Ok(step)
    }

    /// Whether the answer is complete, so that its stream may end here.
    pub(crate) fn is_complete(&self) -> bool {
        self.end != End::NotYet
    }

    /// Whether its receipt came.
    pub(crate) fn has_receipt(&self) -> bool {
        self.receipt.is_some()
    }

    fn receipt(&mut self, compact: Option<&str>, issued: &Credentials) -> Result<Step, Breach> {
        let Some(compact) = compact else {
            return Ok(Step::Pass);
        };
        let digest = Digest::of(compact.as_bytes());
        if self.receipt == Some(digest) {
            return Ok(Step::Pass); // the usage chunk repeats it
        }
        let receipt = self.check(compact, issued)?;
        if self.receipt.is_some() {
            return Err(Breach::TwoReceipts);
        }
        match receipt.claims().part {
            0 => self.receipt = Some(digest),
            found => {
                let expected = self.checkpoints + 1;
                if found != expected {
                    return Err(Breach::Checkpoint { found, expected });
                }
                self.checkpoints = found;
            }
        }
        Ok(Step::Keep(Box::new(receipt)))
    }

    fn check(&self, compact: &str, issued: &Credentials) -> Result<VerifiedReceipt, Breach> {
        let receipt = SignedReceipt::parse(compact).map_err(Breach::Receipt)?;
        let credential = issued.by_digest(&receipt.unverified().cred);
        let receipt = receipt
            .verify(credential.ok_or(Breach::Credential)?)
            .map_err(Breach::Receipt)?;
        let claims = receipt.claims();
        let ours = claims.jti == self.id
            && claims.sub == self.admitted.did()
            && claims.input.body_sha256 == self.admitted.body_sha256
            && claims.input.request == self.admitted.line;
        match ours {
            true => Ok(receipt),
            false => Err(Breach::OtherRequest),
        }
    }
}

impl Breach {
    /// The stable name of this breach.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::EventForm => "engine_event_form",
            Self::EventBytes => "engine_event_bytes",
            Self::ReplyForm => "engine_reply_form",
            Self::Receipt(error) => error.code(),
            Self::Credential => "receipt_credential_unknown",
            Self::OtherRequest => "receipt_other_request",
            Self::TwoReceipts => "receipt_second",
            Self::Checkpoint { .. } => "receipt_checkpoint",
            Self::NoReceipt => "receipt_missing",
            Self::AfterEnd => "engine_after_end",
        }
    }
}

#[cfg(test)]
mod tests;
