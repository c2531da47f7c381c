//! Identities: Ed25519 public keys written as `did:key:z6Mk…`.
//!
//! Only keys that can mean one thing are read: canonical encodings of points
//! that aren't of small order. [`Did::verify`] is the one place where a
//! signature is checked.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The multicodec prefix of an Ed25519 public key.
const ED25519_PUB: [u8; 2] = [0xed, 0x01];

/// Longest text that can be a DID of ours: `did:key:z` and 48 digits.
const TEXT_BYTES_MAX: usize = 64;

/// An Ed25519 public key as a `did:key`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did([u8; 32]);

/// Why a string or a key isn't an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DidError {
    /// Not `did:key:z…` of an Ed25519 key.
    #[error("not the did:key of an Ed25519 public key")]
    Form,
    /// The bytes aren't the canonical encoding of a point on the curve.
    #[error("the key isn't the canonical encoding of a point")]
    Point,
    /// The key is one of the eight of small order, which verify anything.
    #[error("the key is of small order")]
    SmallOrder,
}

impl DidError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            DidError::Form => "did_form",
            DidError::Point => "did_point",
            DidError::SmallOrder => "did_small_order",
        }
    }
}

impl Did {
    /// The identity of a public key.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, DidError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| DidError::Point)?;
        if key.is_weak() {
            return Err(DidError::SmallOrder);
        }
        if key.to_edwards().compress().to_bytes() != bytes {
            return Err(DidError::Point);
        }
        Ok(Did(bytes))
    }

    /// The public key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public key.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from_bytes(&self.0).expect("a Did is made from a valid key only")
    }

    /// Whether this key made the signature. Strict: RFC 8032 without the
    /// cofactor, S below the group order, neither point of small order.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.verifying_key()
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok()
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 34];
        bytes[..2].copy_from_slice(&ED25519_PUB);
        bytes[2..].copy_from_slice(&self.0);
        write!(f, "did:key:z{}", bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Did {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, DidError> {
        let encoded = text.strip_prefix("did:key:z").ok_or(DidError::Form)?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(DidError::Form);
        }
        let bytes = bs58::decode(encoded)
            .into_vec()
            .map_err(|_| DidError::Form)?;
        let key = bytes.strip_prefix(&ED25519_PUB).ok_or(DidError::Form)?;
        Did::from_bytes(key.try_into().map_err(|_| DidError::Form)?)
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
