//! Why a request's signature isn't accepted, with a stable code for each reason.

use crate::did::{Did, DidError};
use crate::time::UnixMs;

/// Why a request's signature isn't accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Signature-Input isn't a dictionary, or its member isn't an inner list.
    #[error("Signature-Input must be a structured-field dictionary of inner lists")]
    InputForm,
    /// Two signatures with our tag.
    #[error("more than one signature has the tag \"countersign\"")]
    Several,
    /// Signature isn't a dictionary, or lacks the label, or isn't 64 bytes.
    #[error("Signature must hold 64 bytes under the label {label}")]
    SignatureForm {
        /// The label in Signature-Input.
        label: String,
    },
    /// Signature-Input or the signature base is too long.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A parameter is missing.
    #[error("the signature parameter {0} is missing")]
    ParameterMissing(&'static str),
    /// A parameter of the wrong type, or with a value that none has.
    #[error("the signature parameter {0} has a wrong type or value")]
    ParameterValue(String),
    /// A parameter that we don't know.
    #[error("the signature parameter {0} isn't known")]
    ParameterUnknown(String),
    /// `alg` isn't `ed25519`.
    #[error("the signature parameter alg must be \"ed25519\"")]
    Algorithm,
    /// `keyid` isn't a DID.
    #[error("the signature parameter keyid: {0}")]
    KeyId(DidError),
    /// Signed by another key than the receipt's `sub`.
    #[error("signed by {found}, not by {expected}")]
    Client {
        /// The client that was expected.
        expected: Did,
        /// The key that `keyid` names.
        found: Did,
    },
    /// `nonce` is too short, too long, or of other characters.
    #[error("the nonce must be 22 to 128 characters of base64 or base64url")]
    Nonce,
    /// A component that may not be covered.
    #[error("the component {0} can't be covered")]
    Component(String),
    /// A component covered twice.
    #[error("the component {0} is covered twice")]
    ComponentTwice(String),
    /// A component that must be covered and isn't.
    #[error("the component {0} must be covered")]
    Uncovered(String),
    /// A covered field that the request doesn't have.
    #[error("the covered field {0} is missing")]
    FieldMissing(String),
    /// A covered component with characters that a signature base can't hold.
    #[error("the component {0} has characters other than visible ASCII, space and tab")]
    FieldValue(String),
    /// The authority isn't one of the server's.
    #[error("the authority {0:?} isn't this server's")]
    Authority(String),
    /// `expires` isn't after `created`, or too long after.
    #[error("expires must be after created, by at most 300 seconds")]
    Lifetime,
    /// The signature isn't valid yet, or no more.
    #[error("{}", clock_message(*.server, *.created_s, *.expires_s))]
    Clock {
        /// The server's time.
        server: UnixMs,
        /// When it was signed.
        created_s: u64,
        /// When it expires.
        expires_s: u64,
    },
    /// Content-Digest isn't a dictionary with a sha-256 digest.
    #[error("Content-Digest must be a dictionary with sha-256")]
    ContentDigestForm,
    /// Content-Digest isn't the body's.
    #[error("Content-Digest isn't the digest of the body")]
    ContentDigest,
    /// The signature is wrong.
    #[error("the signature doesn't verify")]
    Signature,
}

fn clock_message(server: UnixMs, created_s: u64, expires_s: u64) -> String {
    let now = server.as_secs();
    if now < created_s {
        let ahead = created_s - now;
        format!("the signature was created {ahead} s after the server's time, which is {now}")
    } else {
        let late = now.saturating_sub(expires_s);
        format!("the signature expired {late} s before the server's time, which is {now}")
    }
}

impl SignatureError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            SignatureError::InputForm => "signature_input_form",
            SignatureError::Several => "signature_several",
            SignatureError::SignatureForm { .. } => "signature_form",
            SignatureError::TooLong { .. } => "signature_too_long",
            SignatureError::ParameterMissing(_) => "signature_parameter_missing",
            SignatureError::ParameterValue(_) => "signature_parameter_value",
            SignatureError::ParameterUnknown(_) => "signature_parameter_unknown",
            SignatureError::Algorithm => "signature_algorithm",
            SignatureError::KeyId(_) => "signature_keyid",
            SignatureError::Client { .. } => "signature_client",
            SignatureError::Nonce => "signature_nonce",
            SignatureError::Component(_) => "signature_component",
            SignatureError::ComponentTwice(_) => "signature_component_twice",
            SignatureError::Uncovered(_) => "signature_uncovered",
            SignatureError::FieldMissing(_) => "signature_field_missing",
            SignatureError::FieldValue(_) => "signature_field_value",
            SignatureError::Authority(_) => "signature_authority",
            SignatureError::Lifetime => "signature_lifetime",
            SignatureError::Clock { .. } => "signature_clock",
            SignatureError::ContentDigestForm => "content_digest_form",
            SignatureError::ContentDigest => "content_digest_mismatch",
            SignatureError::Signature => "signature_invalid",
        }
    }
}
