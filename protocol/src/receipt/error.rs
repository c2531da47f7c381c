//! Why a receipt isn't accepted, with a stable code for each reason.

use crate::jws::JwsError;

/// Why a receipt isn't what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Its JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Another version than 1.
    #[error("receipt version {0} isn't known")]
    Version(u32),
    /// Another domain than [`super::DOMAIN`].
    #[error("receipt domain {0:?} isn't known")]
    Domain(String),
    /// `kid` and `iss` differ.
    #[error("signed by another key than its issuer")]
    Issuer,
    /// `prev` is there in the first receipt, or absent in a later one.
    #[error("prev must be there exactly when seq isn't 0")]
    Sequence,
    /// It ends before it begins.
    #[error("to_ms is before from_ms")]
    Times,
    /// `sub` without a signature, or a signature without `sub`.
    #[error("sub must be there exactly when the request's signature is")]
    Subject,
    /// No choice, or another number of choices than `sampling` says.
    #[error("the outputs aren't those of the choices asked for")]
    Choices,
    /// `finish` and `part` contradict each other.
    #[error("a finish must be open exactly when part isn't 0")]
    Part,
    /// Another key than the credential's.
    #[error("not signed by the credential's job key")]
    Key,
    /// Another job than the credential's.
    #[error("the credential is another job's")]
    Job,
    /// Another model than the credential's.
    #[error("the credential is for another model")]
    Model,
    /// Another numerics profile than the credential's.
    #[error("the credential is for another numerics profile")]
    Numerics,
    /// Another credential.
    #[error("cred isn't this credential's digest")]
    Credential,
    /// The credential wasn't valid from `from_ms` to `to_ms`.
    #[error("the credential wasn't valid when the job answered")]
    Validity,
    /// The credential doesn't list the request's authority.
    #[error("the credential doesn't list the request's authority")]
    Authority,
    /// Another client's.
    #[error("the receipt is another client's")]
    Client,
    /// Of another request, or of this one changed.
    #[error("the receipt is for another request")]
    Request,
    /// Over another body.
    #[error("the receipt is over another body")]
    Body,
}

impl ReceiptError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ReceiptError::Jws(error) => error.code(),
            ReceiptError::Version(_) => "receipt_version",
            ReceiptError::Domain(_) => "receipt_domain",
            ReceiptError::Issuer => "receipt_issuer",
            ReceiptError::Sequence => "receipt_sequence",
            ReceiptError::Times => "receipt_times",
            ReceiptError::Subject => "receipt_subject",
            ReceiptError::Choices => "receipt_choices",
            ReceiptError::Part => "receipt_part",
            ReceiptError::Key => "receipt_key",
            ReceiptError::Job => "receipt_job",
            ReceiptError::Model => "receipt_model",
            ReceiptError::Numerics => "receipt_numerics",
            ReceiptError::Credential => "receipt_credential",
            ReceiptError::Validity => "receipt_validity",
            ReceiptError::Authority => "receipt_authority",
            ReceiptError::Client => "receipt_client",
            ReceiptError::Request => "receipt_request",
            ReceiptError::Body => "receipt_body",
        }
    }
}
