//! A client's signature over its HTTP request: RFC 9421 with Ed25519, and
//! which parts it must cover, how fresh it must be, for whom it is.
//!
//! Normative in `docs/spec/request-signature.md`. Start at [`sign`],
//! [`verify`] and, for those who hold a receipt alone, [`recheck`]. That a
//! nonce is used only once is the caller's to keep.

use std::fmt;

use crate::did::{Did, DidError};
use crate::digest::Digest;
use crate::key::SigningKey;
use crate::receipt::RequestLine;
use crate::time::UnixMs;

/// The `tag` of our signatures.
pub const TAG: &str = "countersign";

/// The label of the signatures that [`sign`] makes.
pub const LABEL: &str = "countersign";

/// Longest time between `created` and `expires`, in seconds.
pub const LIFETIME_S_MAX: u64 = 300;

/// How far `created` may lie in the future, in seconds.
pub const SKEW_S: u64 = 30;

/// What a signature covers of a request, beside its body.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method, as on the wire.
    pub method: &'a str,
    /// The Host field or `:authority`; [`normalize_authority`] is applied to it.
    pub authority: &'a str,
    /// The path, as on the wire.
    pub path: &'a str,
    /// The query, as on the wire, without its question mark; `Some("")` if
    /// there is a question mark and nothing after it.
    pub query: Option<&'a str>,
    /// Every header field line, in order: its name in lower case, its value.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The three fields that [`sign`] adds to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// The value of `content-digest`.
    pub content_digest: String,
    /// The value of `signature-input`.
    pub signature_input: String,
    /// The value of `signature`.
    pub signature: String,
}

impl SignatureHeaders {
    /// The fields to add to the request: names in lower case, values.
    pub fn fields(&self) -> [(&'static str, &str); 3] {
        [
            ("content-digest", &self.content_digest),
            ("signature-input", &self.signature_input),
            ("signature", &self.signature),
        ]
    }
}

/// What a server asks of a signature beside its form.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// The authorities that the server answers for, normalised.
    pub authorities: &'a [String],
}

/// A client's single-use value: 22 to 128 characters of base64 or base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Nonce(String);

impl Nonce {
    /// The nonce as signed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes of its text: what [`crate::sampling::seed_from_nonce`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A signature that holds: who signed what, and until when its nonce counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The client.
    pub did: Did,
    /// When it signed.
    pub created_s: u64,
    /// Until when the signature, and so the nonce, counts.
    pub expires_s: u64,
    /// Single-use, for this client.
    pub nonce: Nonce,
    /// The digest of the body.
    pub body_sha256: Digest,
    /// What a receipt keeps, so that anyone can check the signature again.
    pub line: RequestLine,
}

/// Why a request's signature isn't accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Signature-Input isn't a dictionary, or its member isn't an inner list.
    #[error("Signature-Input isn't a structured-field dictionary of inner lists")]
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
    /// Signature-Input's member, or a covered field, is too long.
    #[error("{what} is longer than {limit} bytes")]
    TooLong {
        /// What is too long.
        what: String,
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
    /// A covered field with characters that a signature base can't hold.
    #[error("the field {0} has characters other than visible ASCII, space and tab")]
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
        format!(
            "created {} s after the server's time, {now}",
            created_s - now
        )
    } else {
        format!(
            "expired {} s before the server's time, {now}",
            now.saturating_sub(expires_s)
        )
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

/// Signs a request. `head.headers` are those that the request already has;
/// the ones that must be covered are. `nonce` is 128 fresh random bits.
pub fn sign(
    key: &SigningKey,
    head: &RequestHead<'_>,
    body: &[u8],
    created_s: u64,
    expires_s: u64,
    nonce: [u8; 16],
) -> SignatureHeaders {
    let _ = (key, head, body, created_s, expires_s, nonce);
    todo!()
}

/// Checks a request's signature, all but the single use of its nonce.
/// `Ok(None)` if no signature has our tag: the request is unsigned.
pub fn verify(
    head: &RequestHead<'_>,
    body: &[u8],
    now: UnixMs,
    policy: &Policy<'_>,
) -> Result<Option<VerifiedSignature>, SignatureError> {
    let _ = (head, body, now, policy);
    todo!()
}

/// Checks the signature that a receipt keeps, with nothing but the receipt:
/// everything that [`verify`] checks but the clock and the server's authorities.
pub fn recheck(
    line: &RequestLine,
    body_sha256: &Digest,
    client: &Did,
) -> Result<VerifiedSignature, SignatureError> {
    let _ = (line, body_sha256, client);
    todo!()
}

/// The authority as it is signed: in lower case, and without `default_port`
/// (80 where the scheme is http, 443 where it is https).
pub fn normalize_authority(authority: &str, default_port: Option<u16>) -> String {
    let authority = authority.to_ascii_lowercase();
    match default_port {
        Some(port) => match authority.strip_suffix(&format!(":{port}")) {
            Some(host) if !host.is_empty() => host.to_owned(),
            _ => authority,
        },
        None => authority,
    }
}
