//! A job's credential: what the party that answers for a job lets its key
//! say, and the chain from it to a gateway that the reader trusts.
//!
//! Start at [`Credential::sign`] and [`Chain::verify`]. Whether a credential
//! was valid at a time is checked with the receipt, which holds the times.

use serde::{Deserialize, Serialize};

use crate::did::Did;
use crate::digest::Digest;
use crate::ids::JobId;
use crate::jws::{JwsError, Unverified};
use crate::key::SigningKey;
use crate::receipt::ModelRef;
use crate::time::UnixMs;

/// The JWS type of a credential.
pub const TYP: &str = "countersign-credential+jwt";

/// Longest compact credential that is read, in bytes.
pub const COMPACT_BYTES_MAX: usize = 16 * 1024;

/// The claims of a job's credential. Fields are in the order in which they are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The version of this format: 1.
    pub v: u32,
    /// Who answers for the job: the gateway itself, for now.
    pub iss: Did,
    /// The job.
    pub job: JobId,
    /// The job's key.
    pub sub: Did,
    /// The model that it may serve.
    pub model: ModelRef,
    /// The numerics profile that it may use.
    pub numerics: String,
    /// The executor class that it runs on.
    pub class: String,
    /// The sandbox's layers; the issuer's word.
    pub sandbox: Vec<String>,
    /// The authorities that it may answer for.
    pub authorities: Vec<String>,
    /// Valid from then on.
    pub nbf_ms: UnixMs,
    /// Valid until before then.
    pub exp_ms: UnixMs,
}

/// A credential as received: its form is right, nothing else is known.
#[derive(Debug, Clone)]
pub struct SignedCredential {
    jws: Unverified,
    claims: Credential,
}

/// A credential that a trusted key signed.
/// Only [`SignedCredential::verify`] and [`Chain::verify`] make one.
#[derive(Debug, Clone)]
pub struct VerifiedCredential(SignedCredential);

/// Signed credentials, the job's first, towards the gateway; for now exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(pub Vec<String>);

/// Why a credential or a chain isn't what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Its JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Another version than 1.
    #[error("credential version {0} isn't known")]
    Version(u32),
    /// `kid` and `iss` differ.
    #[error("signed by another key than its issuer")]
    Issuer,
    /// It expires before it begins.
    #[error("exp_ms isn't after nbf_ms")]
    Times,
    /// Signed by a key that isn't the trusted one.
    #[error("issued by {found}, not by {trusted}")]
    Untrusted {
        /// The key that is trusted.
        trusted: Did,
        /// The key that signed.
        found: Did,
    },
    /// Not one credential.
    #[error("a chain has exactly one credential, not {0}")]
    ChainLength(usize),
}

impl CredentialError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            CredentialError::Jws(error) => error.code(),
            CredentialError::Version(_) => "credential_version",
            CredentialError::Issuer => "credential_issuer",
            CredentialError::Times => "credential_times",
            CredentialError::Untrusted { .. } => "credential_untrusted",
            CredentialError::ChainLength(_) => "chain_length",
        }
    }
}

impl Credential {
    /// Signs with the issuer's key.
    ///
    /// # Panics
    ///
    /// If `iss` isn't the key's DID.
    pub fn sign(self, key: &SigningKey) -> SignedCredential {
        assert_eq!(self.iss, key.did(), "a credential is signed by its issuer");
        SignedCredential {
            jws: Unverified::sign(key, TYP, &self),
            claims: self,
        }
    }
}

impl SignedCredential {
    /// Checks the form and the claims by themselves.
    pub fn parse(compact: &str) -> Result<Self, CredentialError> {
        let jws = Unverified::parse(compact, TYP, COMPACT_BYTES_MAX)?;
        let version = jws.version()?;
        if version != 1 {
            return Err(CredentialError::Version(version));
        }
        let claims: Credential = jws.claims()?;
        if jws.kid() != claims.iss {
            return Err(CredentialError::Issuer);
        }
        if claims.exp_ms <= claims.nbf_ms {
            return Err(CredentialError::Times);
        }
        Ok(SignedCredential { jws, claims })
    }

    /// The claims, which nobody has proved yet.
    pub fn unverified(&self) -> &Credential {
        &self.claims
    }

    /// The compact text, as received.
    pub fn compact(&self) -> &str {
        self.jws.compact()
    }

    /// SHA-256 of the compact text: a receipt's `cred`.
    pub fn digest(&self) -> Digest {
        Digest::of(self.compact().as_bytes())
    }

    /// Checks that `root` issued this.
    pub fn verify(self, root: &Did) -> Result<VerifiedCredential, CredentialError> {
        if self.claims.iss != *root {
            return Err(CredentialError::Untrusted {
                trusted: *root,
                found: self.claims.iss,
            });
        }
        self.jws.verify(root)?;
        Ok(VerifiedCredential(self))
    }
}

impl VerifiedCredential {
    /// The claims.
    pub fn claims(&self) -> &Credential {
        &self.0.claims
    }

    /// The compact text.
    pub fn compact(&self) -> &str {
        self.0.compact()
    }

    /// SHA-256 of the compact text: a receipt's `cred`.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// The trusted key at the chain's end.
    pub fn gateway(&self) -> Did {
        self.0.claims.iss
    }
}

impl Chain {
    /// The gateway that the chain claims to end in. Nothing is verified: for
    /// telling a user about a first use, never for trust.
    pub fn gateway(&self) -> Result<Did, CredentialError> {
        Ok(self.only()?.claims.iss)
    }

    /// Checks the chain up to the trusted gateway.
    pub fn verify(&self, gateway: &Did) -> Result<VerifiedCredential, CredentialError> {
        self.only()?.verify(gateway)
    }

    fn only(&self) -> Result<SignedCredential, CredentialError> {
        match &self.0[..] {
            [compact] => SignedCredential::parse(compact),
            other => Err(CredentialError::ChainLength(other.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::ModelDigest;

    proptest! {
        #[test]
        fn any_credential_round_trips(
            texts in prop::collection::vec(any::<String>(), 3),
            lists in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 2),
            nbf in 0..1_u64 << 52,
            lifetime in 1..1_u64 << 52,
        ) {
            let gateway = SigningKey::from_seed([1; 32]);
            let credential = Credential {
                v: 1,
                iss: gateway.did(),
                job: JobId::new([2; 16]),
                sub: SigningKey::from_seed([3; 32]).did(),
                model: ModelRef {
                    id: texts[0].clone(),
                    digest: ModelDigest::from_digest(Digest::of(b"m")),
                },
                numerics: texts[1].clone(),
                class: texts[2].clone(),
                sandbox: lists[0].clone(),
                authorities: lists[1].clone(),
                nbf_ms: UnixMs(nbf),
                exp_ms: UnixMs(nbf + lifetime),
            };
            let chain = Chain(vec![credential.clone().sign(&gateway).compact().to_owned()]);
            let json = serde_json::to_string(&chain).unwrap();
            let chain: Chain = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(chain.gateway(), Ok(gateway.did()));
            let verified = chain.verify(&gateway.did()).unwrap();
            prop_assert_eq!(verified.claims(), &credential);
        }

        #[test]
        fn arbitrary_texts_are_no_chain(texts: Vec<String>) {
            let chain = Chain(texts);
            prop_assert!(chain.gateway().is_err());
            prop_assert!(chain.verify(&SigningKey::from_seed([1; 32]).did()).is_err());
        }
    }
}
