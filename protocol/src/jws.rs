//! Compact JWS (RFC 7515) signed with Ed25519, read strictly: exactly the
//! header fields `alg`, `typ` and `kid`, unpadded canonical base64url, strict
//! JSON claims without `null`. Start at [`sign`] and [`Unverified::parse`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::did::{Did, DidError};
use crate::json::JsonError;
use crate::key::SigningKey;

/// Signs claims: the compact JWS with `alg: EdDSA`, this `typ`, and the key's DID as `kid`.
pub fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> String {
    let _ = (key, typ, claims);
    todo!()
}

/// A JWS whose form is right and whose signature hasn't been checked.
#[derive(Debug, Clone)]
pub struct Unverified {
    compact: String,
    kid: Did,
    claims: serde_json::Value,
    signature: [u8; 64],
}

/// Why a text isn't the JWS it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than the reader's limit.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Not three parts with two dots.
    #[error("not three parts with dots between them")]
    Form,
    /// A part that isn't unpadded, canonical base64url.
    #[error("the {part} isn't unpadded canonical base64url")]
    Base64 {
        /// `header`, `claims` or `signature`.
        part: &'static str,
    },
    /// A part that isn't strict JSON.
    #[error("the {part}: {error}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// What is wrong with it.
        error: JsonError,
    },
    /// The header isn't an object with exactly `alg`, `typ` and `kid`, all text.
    #[error("the header must have exactly the fields alg, typ and kid")]
    HeaderFields,
    /// Another algorithm than Ed25519.
    #[error("the algorithm must be EdDSA or Ed25519")]
    Alg,
    /// A statement of another type.
    #[error("the type must be {expected}")]
    Typ {
        /// The type that was asked for.
        expected: &'static str,
    },
    /// `kid` isn't a DID.
    #[error("kid: {0}")]
    Kid(DidError),
    /// A claim is `null`, or an integer that JavaScript can't hold.
    #[error("a claim is null or an integer beyond 2^53 - 1")]
    ClaimValue,
    /// The claims aren't those of this type.
    #[error("claims: {0}")]
    Claims(String),
    /// The signature isn't 64 bytes.
    #[error("the signature isn't 64 bytes")]
    SignatureLength,
    /// Signed by another key than the one asked for.
    #[error("signed by {found}, not by {expected}")]
    Key {
        /// The key that should have signed.
        expected: Did,
        /// The key that `kid` names.
        found: Did,
    },
    /// The signature is wrong.
    #[error("the signature doesn't verify")]
    Signature,
}

impl JwsError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            JwsError::TooLong { .. } => "jws_too_long",
            JwsError::Form => "jws_form",
            JwsError::Base64 { .. } => "jws_base64",
            JwsError::Json { error, .. } => error.code(),
            JwsError::HeaderFields => "jws_header_fields",
            JwsError::Alg => "jws_alg",
            JwsError::Typ { .. } => "jws_typ",
            JwsError::Kid(error) => error.code(),
            JwsError::ClaimValue => "jws_claim_value",
            JwsError::Claims(_) => "jws_claims",
            JwsError::SignatureLength => "jws_signature_length",
            JwsError::Key { .. } => "jws_key",
            JwsError::Signature => "jws_signature",
        }
    }
}

impl Unverified {
    /// Checks the form of a JWS of this `typ`, of at most `limit` bytes.
    pub fn parse(compact: &str, typ: &'static str, limit: usize) -> Result<Self, JwsError> {
        let _ = (compact, typ, limit);
        todo!()
    }

    /// The compact text, as received.
    pub fn compact(&self) -> &str {
        &self.compact
    }

    /// The key that claims to have signed.
    pub fn kid(&self) -> Did {
        self.kid
    }

    /// The claims as a type; unknown members are the type's to refuse.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwsError> {
        T::deserialize(&self.claims).map_err(|error| JwsError::Claims(error.to_string()))
    }

    /// Checks that this key, and no other, signed.
    pub fn verify(&self, key: &Did) -> Result<(), JwsError> {
        let _ = (key, &self.signature);
        todo!()
    }
}
