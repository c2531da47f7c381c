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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key::SigningKey;

    #[test]
    fn a_known_key_has_its_known_did() {
        // From the did:key specification.
        let text = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK";
        assert_eq!(text.parse::<Did>().unwrap().to_string(), text);
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = SigningKey::from_seed([1; 32]).did().to_string();
        for changed in [
            text.replace("did:key:z", "did:key:"),
            text.replace("did:key:z", "did:web:z"),
            text.replace("did:key:z", "DID:key:z"),
            text.replace("did:key:z", "did:key:z1"),
            format!("{text}#{}", &text[8..]),
            format!("{text}0"),
            text[..text.len() - 1].to_owned(),
            // An X25519 key.
            "did:key:z6LSeu9HkTHSfLLeUs2nnzUSNedgDUevfNQgQjQC23ZCit6F".to_owned(),
        ] {
            assert_eq!(changed.parse::<Did>(), Err(DidError::Form), "{changed}");
        }
    }

    #[test]
    fn keys_that_verify_anything_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(Did::from_bytes(identity), Err(DidError::SmallOrder));
        assert_eq!(Did::from_bytes([0; 32]), Err(DidError::SmallOrder));
        // y = 2, which is on no point of the curve.
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(Did::from_bytes(off_curve), Err(DidError::Point));
    }

    #[test]
    fn a_second_encoding_of_a_point_is_refused() {
        // y + p for a small y: the same point in other bytes.
        let refused = (0xed..=0xff).filter_map(|low| {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, 0x7f);
            VerifyingKey::from_bytes(&bytes).ok()?;
            Some(Did::from_bytes(bytes))
        });
        let refused: Vec<_> = refused.collect();
        assert!(refused.contains(&Err(DidError::Point)), "{refused:?}");
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
    }

    proptest! {
        #[test]
        fn round_trips(seed: [u8; 32]) {
            let did = SigningKey::from_seed(seed).did();
            prop_assert_eq!(did.to_string().parse::<Did>(), Ok(did));
            let json = serde_json::to_string(&did).unwrap();
            prop_assert_eq!(serde_json::from_str::<Did>(&json).unwrap(), did);
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes: [u8; 32]) {
            if let Ok(did) = Did::from_bytes(bytes) {
                prop_assert_eq!(did.as_bytes(), &bytes);
                prop_assert_eq!(did.to_string().parse::<Did>(), Ok(did));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(did:key:z)?[1-9A-Za-z]{0,60}") {
            let _ = text.parse::<Did>();
        }
    }
}
