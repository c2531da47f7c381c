//! The checks by name, and the finding that one has failed.
//!
//! Names are for scripts and never change; sentences are for people.

use std::fmt;

/// One rule, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The server said no, before or in the middle of the answer.
    Refused,
    /// The response is one that the API doesn't allow.
    Response,
    /// The response broke off, stalled, or left something out.
    Truncated,
    /// The response is whole and has no receipt.
    NoReceipt,
    /// The receipt can't be read.
    Receipt,
    /// The gateway gave no credential chain for the receipt.
    NoChain,
    /// The credential chain doesn't hold.
    Chain,
    /// The chain ends in another gateway key than the trusted one.
    GatewayKey,
    /// The receipt isn't signed by the job of the chain.
    Signature,
    /// The receipt goes beyond what the job's credential allows.
    Credential,
    /// The gateway keeps another receipt than the one in the response.
    Stored,
    /// The receipt is somebody else's.
    Subject,
    /// The receipt is for another request than the one that was signed.
    Request,
    /// The job read another body than the one that was sent.
    Body,
    /// The receipt's id isn't the response's.
    Id,
    /// The job wrote another text than the one that came.
    Text,
    /// The token ids aren't those of the receipt.
    Tokens,
    /// The answer ended otherwise than the receipt says.
    Finish,
    /// The token counts aren't those of the receipt.
    Usage,
    /// Another model answered.
    Model,
    /// Another arithmetic than expected computed the answer.
    Numerics,
    /// The sampling parameters in force aren't those that were asked for.
    Sampling,
    /// The arithmetic is exact, but nothing binds the tokens to it.
    Trace,
    /// A checkpoint isn't about what had come by then.
    Checkpoint,
    /// The job's clock and ours disagree about when this happened.
    Clock,
}

impl Check {
    /// Every check, in the order in which they are made.
    pub const ALL: [Check; 25] = [
        Check::Refused,
        Check::Response,
        Check::Truncated,
        Check::NoReceipt,
        Check::Receipt,
        Check::NoChain,
        Check::Chain,
        Check::GatewayKey,
        Check::Signature,
        Check::Credential,
        Check::Stored,
        Check::Subject,
        Check::Request,
        Check::Body,
        Check::Id,
        Check::Text,
        Check::Tokens,
        Check::Finish,
        Check::Usage,
        Check::Model,
        Check::Numerics,
        Check::Sampling,
        Check::Trace,
        Check::Checkpoint,
        Check::Clock,
    ];

    /// The name that scripts may rely on.
    pub fn name(self) -> &'static str {
        match self {
            Check::Refused => "refused",
            Check::Response => "response",
            Check::Truncated => "truncated",
            Check::NoReceipt => "no_receipt",
            Check::Receipt => "receipt",
            Check::NoChain => "no_chain",
            Check::Chain => "chain",
            Check::GatewayKey => "gateway_key",
            Check::Signature => "signature",
            Check::Credential => "credential",
            Check::Stored => "stored",
            Check::Subject => "subject",
            Check::Request => "request",
            Check::Body => "body",
            Check::Id => "id",
            Check::Text => "text",
            Check::Tokens => "tokens",
            Check::Finish => "finish",
            Check::Usage => "usage",
            Check::Model => "model",
            Check::Numerics => "numerics",
            Check::Sampling => "sampling",
            Check::Trace => "trace",
            Check::Checkpoint => "checkpoint",
            Check::Clock => "clock",
        }
    }

    /// The rejection of an answer that fails this check.
    pub(crate) fn fails(self, sentence: impl Into<String>) -> Rejection {
        Rejection {
            check: self,
            sentence: sentence.into(),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an answer isn't accepted. This is a finding, not a failure to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The check that failed.
    pub check: Check,
    /// What was found, in one sentence.
    pub sentence: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.sentence)
    }
}
