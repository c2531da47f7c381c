//! Checks that a request is one that the gateway admitted to this job, and
//! that the client signed it: the engine takes nobody's word for the latter.
//!
//! Start at [`Gatekeeper::admit`].

use std::sync::{Mutex, PoisonError};

use http::request::Parts;
use protocol::admission::{self, AdmissionError, SignedAdmission};
use protocol::credential::VerifiedCredential;
use protocol::receipt::RequestLine;
use protocol::request_signature::{self, Nonce, Policy, RequestHead, SignatureError};
use protocol::{Did, Digest, JobId, RequestId, UnixMs};

use crate::single_use::SingleUse;

/// Who may ask, and what was asked before.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    pub job: JobId,
    pub gateway: Did,
    pub allow_unsigned: bool,
    /// How long an admission counts. Nonces are remembered so long past their expiry.
    pub admission_ms: u64,
    pub used: Mutex<SingleUse>,
}

/// A request that was admitted, and signed if it says so.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub id: RequestId,
    pub client: Option<Client>,
    pub line: RequestLine,
    pub body_sha256: Digest,
}

/// Whoever signed a request.
#[derive(Debug)]
pub(crate) struct Client {
    pub did: Did,
    pub nonce: Nonce,
}

/// Why a request isn't taken. None of these gets a receipt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error("the request carries no admission of the gateway")]
    Missing,
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error("admitted {0} ms from the job's time")]
    Stale(u64),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("the admission's client isn't the one who signed")]
    Subject,
    #[error("the job's credential doesn't list the authority {0:?}")]
    Authority(String),
    #[error("this job answers signed requests only")]
    Unsigned,
    #[error("the admission was used before")]
    AdmissionReused,
    #[error("the nonce was used before")]
    NonceReused,
}

impl AdmitError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "admission_missing",
            Self::Admission(error) => error.code(),
            Self::Stale(_) => "admission_stale",
            Self::Signature(error) => error.code(),
            Self::Subject => "admission_subject",
            Self::Authority(_) => "admission_authority",
            Self::Unsigned => "signature_required",
            Self::AdmissionReused => "admission_reused",
            Self::NonceReused => "nonce_reused",
        }
    }
}

impl Gatekeeper {
    /// Checks everything and spends admission and nonce.
    pub(crate) fn admit(
        &self,
        head: &Parts,
        body: &[u8],
        credential: &VerifiedCredential,
        now: UnixMs,
    ) -> Result<Admitted, AdmitError> {
        let headers: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| {
                // No field value that we need has other characters.
                let value = std::str::from_utf8(value.as_bytes()).unwrap_or("\u{FFFD}");
                (name.as_str(), value)
            })
            .collect();
        let mut admissions = headers
            .iter()
            .filter(|(name, _)| *name == admission::HEADER);
        let (Some((_, compact)), None) = (admissions.next(), admissions.next()) else {
            return Err(AdmitError::Missing);
        };
        let admission = SignedAdmission::parse(compact)?.verify(&self.gateway)?;
        let claims = admission.claims();
        let head = RequestHead {
            method: head.method.as_str(),
            // The gateway says to whom the client spoke; a client's signature proves it.
            authority: &claims.authority,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &headers,
        };
        let body_sha256 = Digest::of(body);
        admission.admits(&self.job, &head, &body_sha256)?;
        let off = now.0.abs_diff(claims.admitted_ms.0);
        if off > self.admission_ms {
            return Err(AdmitError::Stale(off));
        }
        let authorities = &credential.claims().authorities;
        if !authorities.contains(&claims.authority) {
            return Err(AdmitError::Authority(claims.authority.clone()));
        }
        let policy = Policy { authorities };
        let signed = request_signature::verify(&head, body, claims.admitted_ms, &policy)?;
        if signed.as_ref().map(|signed| signed.did) != claims.sub {
            return Err(AdmitError::Subject);
        }
        if signed.is_none() && !self.allow_unsigned {
            return Err(AdmitError::Unsigned);
        }
        self.spend(claims.jti.as_str(), claims.admitted_ms, now)
            .then_some(())
            .ok_or(AdmitError::AdmissionReused)?;
        if let Some(signed) = &signed {
            let nonce = format!("{} {}", signed.did, signed.nonce);
            self.spend(&nonce, UnixMs::from_secs(signed.expires_s), now)
                .then_some(())
                .ok_or(AdmitError::NonceReused)?;
        }
        let line = RequestLine::unsigned(head.method, head.authority, head.path, head.query);
        let (client, line) = match signed {
            Some(signed) => {
                let client = Client {
                    did: signed.did,
                    nonce: signed.nonce,
                };
                (Some(client), signed.line)
            }
            None => (None, line),
        };
        Ok(Admitted {
            id: claims.jti.clone(),
            client,
            line,
            body_sha256,
        })
    }

    /// A value that counts by itself until `until` could come back in an
    /// admission as late as `admission_ms` after that.
    fn spend(&self, value: &str, until: UnixMs, now: UnixMs) -> bool {
        let until = until.plus_ms(2 * self.admission_ms);
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .spend(Digest::of(value.as_bytes()), until, now)
    }
}
