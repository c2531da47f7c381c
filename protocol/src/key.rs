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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As OpenSSL writes the key of the seed 03 03 … 03.
    const OPENSSL_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD\n\
        -----END PRIVATE KEY-----\n";

    #[test]
    fn key_files_are_those_of_openssl() {
        let key = SigningKey::from_seed([3; 32]);
        assert_eq!(key.to_pkcs8_pem().as_str(), OPENSSL_PEM);
        let read = SigningKey::from_pkcs8_pem(OPENSSL_PEM).unwrap();
        assert_eq!(read.did(), key.did());
    }

    #[test]
    fn other_texts_are_no_key_files() {
        for text in [
            "",
            "did:key:z6Mk",
            &OPENSSL_PEM.replace("K2Vw", "K2Vu"),
            &OPENSSL_PEM[..60],
        ] {
            assert_eq!(
                SigningKey::from_pkcs8_pem(text).map(|key| key.did()),
                Err(KeyError)
            );
        }
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        let key = SigningKey::from_seed([3; 32]);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.did()));
    }

    #[test]
    fn signs_as_rfc_8032_does() {
        // Its first test vector.
        let seed = crate::digest::read_hex(
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        );
        let key = SigningKey::from_seed(seed.unwrap());
        let signature = crate::digest::read_hex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
             fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        );
        assert_eq!(key.sign(b""), signature.unwrap());
    }

    proptest! {
        #[test]
        fn round_trips(seed: [u8; 32], message: Vec<u8>) {
            let key = SigningKey::from_seed(seed);
            let read = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
            prop_assert!(key.did().verify(&message, &read.sign(&message)));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = SigningKey::from_pkcs8_pem(&text);
        }
    }
}
