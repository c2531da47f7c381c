//! Compact JWS (RFC 7515) signed with Ed25519, read strictly: exactly the
//! header fields `alg`, `typ` and `kid`, unpadded canonical base64url, strict
//! JSON claims without `null`. Normative in `docs/spec/receipt.md`, 1. Start at
//! [`sign`] and [`Unverified::parse`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::did::{Did, DidError};
use crate::json::{self, JsonError};
use crate::key::SigningKey;

/// The largest integer of I-JSON, 2^53 - 1.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Signs claims: the compact JWS with `alg: EdDSA`, this `typ`, and the key's DID as `kid`.
pub fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> String {
    sign_parts(key, typ, claims).0
}

fn sign_parts(key: &SigningKey, typ: &str, claims: &impl Serialize) -> (String, [u8; 64]) {
    let header = json!({ "alg": "EdDSA", "typ": typ, "kid": key.did() });
    let mut compact = encode(header.to_string().as_bytes());
    compact.push('.');
    let claims = serde_json::to_vec(claims).expect("claims are plain data with text keys");
    compact.push_str(&encode(&claims));
    let signature = key.sign(compact.as_bytes());
    compact.push('.');
    compact.push_str(&encode(&signature));
    (compact, signature)
}

/// A JWS whose form is right and whose signature hasn't been checked.
#[derive(Debug, Clone)]
pub struct Unverified {
    compact: String,
    kid: Did,
    claims: Value,
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
    /// Signs claims, as [`sign`] does.
    pub(crate) fn sign(key: &SigningKey, typ: &str, claims: &impl Serialize) -> Self {
        let (compact, signature) = sign_parts(key, typ, claims);
        Unverified {
            compact,
            kid: key.did(),
            claims: serde_json::to_value(claims).expect("claims are plain data with text keys"),
            signature,
        }
    }

    /// Checks the form of a JWS of this `typ`, of at most `limit` bytes.
    pub fn parse(compact: &str, typ: &'static str, limit: usize) -> Result<Self, JwsError> {
        if compact.len() > limit {
            return Err(JwsError::TooLong { limit });
        }
        let parts: Vec<&str> = compact.splitn(4, '.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(JwsError::Form);
        };
        let kid = read_header(header, typ)?;
        let claims = read_json("claims", claims)?;
        if !claims_are_portable(&claims) {
            return Err(JwsError::ClaimValue);
        }
        let signature = decode("signature", signature)?
            .try_into()
            .map_err(|_| JwsError::SignatureLength)?;
        Ok(Unverified {
            compact: compact.to_owned(),
            kid,
            claims,
            signature,
        })
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
        if self.kid != *key {
            return Err(JwsError::Key {
                expected: *key,
                found: self.kid,
            });
        }
        let (signed, _) = self
            .compact
            .rsplit_once('.')
            .expect("parse found three parts");
        if key.verify(signed.as_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(JwsError::Signature)
        }
    }

    /// The claim `v`, which says how to read the others.
    pub(crate) fn version(&self) -> Result<u32, JwsError> {
        self.claims
            .get("v")
            .and_then(Value::as_u64)
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| JwsError::Claims("v must be a number".to_owned()))
    }
}

/// The header's `kid`, if the header is exactly what it must be. // spec 1.5 to 1.8
fn read_header(encoded: &str, typ: &'static str) -> Result<Did, JwsError> {
    let header = read_json("header", encoded)?;
    let field = |name| header.get(name).and_then(Value::as_str);
    let (Some(alg), Some(found_typ), Some(kid), Some(3)) = (
        field("alg"),
        field("typ"),
        field("kid"),
        header.as_object().map(Map::len),
    ) else {
        return Err(JwsError::HeaderFields);
    };
    if !matches!(alg, "EdDSA" | "Ed25519") {
        return Err(JwsError::Alg);
    }
    if found_typ != typ {
        return Err(JwsError::Typ { expected: typ });
    }
    kid.parse().map_err(JwsError::Kid)
}

fn read_json(part: &'static str, encoded: &str) -> Result<Value, JwsError> {
    json::parse(&decode(part, encoded)?).map_err(|error| JwsError::Json { part, error })
}

/// Whether there is no `null` and no integer that JavaScript would round. // spec 1.9
fn claims_are_portable(claims: &Value) -> bool {
    match claims {
        Value::Null => false,
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => {
            number.is_f64()
                || number
                    .as_i64()
                    .is_some_and(|integer| integer.unsigned_abs() <= INTEGER_MAX)
        }
        Value::Array(items) => items.iter().all(claims_are_portable),
        Value::Object(members) => members.values().all(claims_are_portable),
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(part: &'static str, encoded: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| JwsError::Base64 { part })
}

#[cfg(test)]
mod tests;
