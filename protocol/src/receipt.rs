//! The receipt: a job's signed statement about one request.
//!
//! Normative in `docs/spec/receipt.md`. An engine builds one with
//! [`OpenReceipt`] and signs it; everyone else starts at
//! [`SignedReceipt::parse`] and [`SignedReceipt::verify`].

use crate::credential::VerifiedCredential;
use crate::did::Did;
use crate::digest::Digest;
use crate::jws::Unverified;
use crate::key::SigningKey;
use crate::sampling::Sampling;

mod claims;
mod error;
mod open;

pub use claims::{
    Finish, Input, ModelRef, Numerics, Output, Receipt, RequestLine, Salt, SaltError,
};
pub use error::ReceiptError;
pub use open::{Closing, OpenReceipt, Opening};

/// The JWS type of a receipt.
pub const TYP: &str = "countersign-receipt+jwt";

/// What the hashes of a receipt mean.
pub const DOMAIN: &str = "text/1";

/// The same, for answers that may call tools.
pub const DOMAIN_CALLS: &str = "text+calls/1";

/// Longest compact receipt that is read, in bytes.
pub const COMPACT_BYTES_MAX: usize = 256 * 1024;

/// A receipt as received: its form is right, nothing else is known.
#[derive(Debug, Clone)]
pub struct SignedReceipt {
    jws: Unverified,
    claims: Receipt,
}

/// A receipt that the job of a verified credential signed.
/// Only [`SignedReceipt::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedReceipt(SignedReceipt);

impl Receipt {
    /// Signs with the job's key.
    ///
    /// # Panics
    ///
    /// If `iss` isn't the key's DID.
    pub fn sign(self, key: &SigningKey) -> SignedReceipt {
        assert_eq!(self.iss, key.did(), "a receipt is signed by its issuer");
        SignedReceipt {
            jws: Unverified::sign(key, TYP, &self),
            claims: self,
        }
    }

    /// What must hold of the claims by themselves. // spec 4.10
    fn check(&self) -> Result<(), ReceiptError> {
        if self.domain != domain(self.sampling.as_ref()) {
            return Err(ReceiptError::Domain(self.domain.clone()));
        }
        if self.prev.is_some() != (self.seq > 0) {
            return Err(ReceiptError::Sequence);
        }
        if self.to_ms < self.from_ms {
            return Err(ReceiptError::Times);
        }
        let request = &self.input.request;
        let signed = self.sub.is_some();
        if request.signature_input.is_some() != signed
            || request.signature.is_some() != signed
            || (!signed && !request.headers.is_empty())
        {
            return Err(ReceiptError::Subject);
        }
        let choices = self.sampling.as_ref().map_or(1, |sampling| sampling.n);
        if choices == 0 || self.output.len() != usize::from(choices) {
            return Err(ReceiptError::Choices);
        }
        let open = self.output.iter().any(|o| o.finish == Finish::Open);
        if open != (self.part > 0) {
            return Err(ReceiptError::Part);
        }
        Ok(())
    }
}

/// What the hashes mean under these parameters. // spec 4.4
fn domain(sampling: Option<&Sampling>) -> &'static str {
    match sampling.is_some_and(Sampling::may_call) {
        true => DOMAIN_CALLS,
        false => DOMAIN,
    }
}

impl SignedReceipt {
    /// Checks the form and the claims by themselves.
    pub fn parse(compact: &str) -> Result<Self, ReceiptError> {
        let jws = Unverified::parse(compact, TYP, COMPACT_BYTES_MAX)?;
        let version = jws.version()?;
        if version != 1 {
            return Err(ReceiptError::Version(version));
        }
        let claims: Receipt = jws.claims()?;
        if jws.kid() != claims.iss {
            return Err(ReceiptError::Issuer);
        }
        claims.check()?;
        Ok(SignedReceipt { jws, claims })
    }

    /// The claims, which nobody has proved yet.
    pub fn unverified(&self) -> &Receipt {
        &self.claims
    }

    /// The compact text, as received.
    pub fn compact(&self) -> &str {
        self.jws.compact()
    }

    /// SHA-256 of the compact text: what `prev` and the ledger name it by.
    pub fn digest(&self) -> Digest {
        Digest::of(self.compact().as_bytes())
    }

    /// Checks that the credential's job signed this, within what the credential allows. // spec 9.3
    pub fn verify(self, credential: &VerifiedCredential) -> Result<VerifiedReceipt, ReceiptError> {
        let claims = &self.claims;
        let allowed = credential.claims();
        if claims.iss != allowed.sub {
            return Err(ReceiptError::Key);
        }
        self.jws.verify(&allowed.sub)?;
        if claims.job != allowed.job {
            return Err(ReceiptError::Job);
        }
        if claims.model != allowed.model {
            return Err(ReceiptError::Model);
        }
        if claims.numerics.profile != allowed.numerics {
            return Err(ReceiptError::Numerics);
        }
        if claims.cred != credential.digest() {
            return Err(ReceiptError::Credential);
        }
        if claims.from_ms < allowed.nbf_ms || claims.to_ms >= allowed.exp_ms {
            return Err(ReceiptError::Validity);
        }
        if !allowed
            .authorities
            .contains(&claims.input.request.authority)
        {
            return Err(ReceiptError::Authority);
        }
        Ok(VerifiedReceipt(self))
    }
}

/// Two receipts are the same if their compact texts are.
impl PartialEq for SignedReceipt {
    fn eq(&self, other: &Self) -> bool {
        self.compact() == other.compact()
    }
}

impl VerifiedReceipt {
    /// The claims.
    pub fn claims(&self) -> &Receipt {
        &self.0.claims
    }

    /// Checks that this client, if one, sent this request and this body. // spec 9.4
    pub fn is_for(
        &self,
        client: Option<&Did>,
        request: &RequestLine,
        body_sha256: &Digest,
    ) -> Result<(), ReceiptError> {
        let claims = self.claims();
        if claims.sub.as_ref() != client {
            return Err(ReceiptError::Client);
        }
        if claims.input.request != *request {
            return Err(ReceiptError::Request);
        }
        if claims.input.body_sha256 != *body_sha256 {
            return Err(ReceiptError::Body);
        }
        Ok(())
    }

    /// The compact text.
    pub fn compact(&self) -> &str {
        self.0.compact()
    }

    /// SHA-256 of the compact text.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }
}
