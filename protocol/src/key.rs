//! Signing keys. The secret never leaves a [`SigningKey`], except as the PEM
//! text of a key file.

use std::fmt;

use ed25519_dalek::Signer;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use zeroize::Zeroizing;

use crate::did::Did;

/// An Ed25519 key pair. It can't be cloned, is wiped when dropped, and shows
/// its public half only.
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    did: Did,
}

/// Why a text isn't a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PKCS#8 PEM")]
pub struct KeyError;

impl KeyError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        "key_form"
    }
}

impl SigningKey {
    /// The key of a 32-byte seed (RFC 8032). The caller wipes its copy.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self::new(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// Reads a key file: PKCS#8 (RFC 5958) in PEM, with or without the public key.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem)
            .map(Self::new)
            .map_err(|_| KeyError)
    }

    fn new(secret: ed25519_dalek::SigningKey) -> Self {
        let did = Did::from_bytes(secret.verifying_key().to_bytes())
            .expect("a clamped scalar times the base point has full order");
        SigningKey { secret, did }
    }

    /// The text of a key file: PKCS#8 version 1 in PEM, which OpenSSL, Python
    /// and Node read too.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        // Version 2 would add the public key, which OpenSSL refuses.
        KeypairBytes {
            secret_key: self.secret.to_bytes(),
            public_key: None,
        }
        .to_pkcs8_pem(LineEnding::LF)
        .expect("32 bytes always fit the encoding")
    }

    /// The public half.
    pub fn did(&self) -> Did {
        self.did
    }

    /// Signs `message`; the same message always gives the same bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.did)
    }
}
