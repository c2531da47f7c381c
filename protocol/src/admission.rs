//! An admission: the gateway's signed word to a job that it admitted one
//! request, when, and from whom. It rides in the header [`HEADER`].
//!
//! Start at [`Admission::sign`], [`SignedAdmission::verify`] and
//! [`VerifiedAdmission::admits`].

use serde::{Deserialize, Serialize};

use crate::did::Did;
use crate::digest::Digest;
use crate::ids::{JobId, RequestId};
use crate::jws::{JwsError, Unverified};
use crate::key::SigningKey;
use crate::request_signature::RequestHead;
use crate::time::UnixMs;

/// The JWS type of an admission.
pub const TYP: &str = "countersign-admission+jwt";

/// The header that carries it from gateway to job. A gateway drops a client's own.
pub const HEADER: &str = "countersign-admission";

/// Longest compact admission that is read, in bytes.
pub const COMPACT_BYTES_MAX: usize = 16 * 1024;

/// The claims of an admission. Fields are in the order in which they are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The version of this format: 1.
    pub v: u32,
    /// The gateway.
    pub iss: Did,
    /// The request's id.
    pub jti: RequestId,
    /// The job that it is for.
    pub job: JobId,
    /// The client, if it signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Did>,
    /// When the gateway admitted it: the time that the signature is judged by.
    pub admitted_ms: UnixMs,
    /// The method.
    pub method: String,
    /// The authority, normalised.
    pub authority: String,
    /// The path as on the wire.
    pub path: String,
    /// The query as on the wire, without its question mark; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Over the exact bytes of the body.
    pub body_sha256: Digest,
}

/// An admission as received: its form is right, nothing else is known.
#[derive(Debug, Clone)]
pub struct SignedAdmission {
    jws: Unverified,
    claims: Admission,
}

/// An admission that the gateway signed. Only [`SignedAdmission::verify`] makes one.
#[derive(Debug, Clone)]
pub struct VerifiedAdmission(Admission);

/// Why an admission doesn't admit a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// Its JWS.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// Another version than 1.
    #[error("admission version {0} isn't known")]
    Version(u32),
    /// `kid` and `iss` differ.
    #[error("signed by another key than its issuer")]
    Issuer,
    /// Signed by another gateway.
    #[error("admitted by {found}, not by {gateway}")]
    Gateway {
        /// The job's gateway.
        gateway: Did,
        /// The key that signed.
        found: Did,
    },
    /// For another job.
    #[error("admitted to another job")]
    Job,
    /// For another method, authority, path or query.
    #[error("the admission is for another request line")]
    Line,
    /// For another body.
    #[error("the admission is for another body")]
    Body,
}

impl AdmissionError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            AdmissionError::Jws(error) => error.code(),
            AdmissionError::Version(_) => "admission_version",
            AdmissionError::Issuer => "admission_issuer",
            AdmissionError::Gateway { .. } => "admission_gateway",
            AdmissionError::Job => "admission_job",
            AdmissionError::Line => "admission_line",
            AdmissionError::Body => "admission_body",
        }
    }
}

impl Admission {
    /// Signs with the gateway's key.
    ///
    /// # Panics
    ///
    /// If `iss` isn't the key's DID.
    pub fn sign(self, key: &SigningKey) -> SignedAdmission {
        assert_eq!(self.iss, key.did(), "an admission is signed by its issuer");
        SignedAdmission {
            jws: Unverified::sign(key, TYP, &self),
            claims: self,
        }
    }
}

impl SignedAdmission {
    /// Checks the form and the claims by themselves.
    pub fn parse(compact: &str) -> Result<Self, AdmissionError> {
        let jws = Unverified::parse(compact, TYP, COMPACT_BYTES_MAX)?;
        let version = jws.version()?;
        if version != 1 {
            return Err(AdmissionError::Version(version));
        }
        let claims: Admission = jws.claims()?;
        if jws.kid() != claims.iss {
            return Err(AdmissionError::Issuer);
        }
        Ok(SignedAdmission { jws, claims })
    }

    /// The compact text: the header's value.
    pub fn compact(&self) -> &str {
        self.jws.compact()
    }

    /// The claims, which nobody has proved yet.
    pub fn unverified(&self) -> &Admission {
        &self.claims
    }

    /// Checks that the job's gateway signed this.
    pub fn verify(self, gateway: &Did) -> Result<VerifiedAdmission, AdmissionError> {
        if self.claims.iss != *gateway {
            return Err(AdmissionError::Gateway {
                gateway: *gateway,
                found: self.claims.iss,
            });
        }
        self.jws.verify(gateway)?;
        Ok(VerifiedAdmission(self.claims))
    }
}

impl VerifiedAdmission {
    /// The claims.
    pub fn claims(&self) -> &Admission {
        &self.0
    }

    /// Checks that it admits this request, with this body, to this job.
    /// `head.authority` is normalised, as in the claims.
    pub fn admits(
        &self,
        job: &JobId,
        head: &RequestHead<'_>,
        body_sha256: &Digest,
    ) -> Result<(), AdmissionError> {
        let claims = &self.0;
        if claims.job != *job {
            return Err(AdmissionError::Job);
        }
        if claims.method != head.method
            || claims.authority != head.authority
            || claims.path != head.path
            || claims.query.as_deref() != head.query
        {
            return Err(AdmissionError::Line);
        }
        if claims.body_sha256 != *body_sha256 {
            return Err(AdmissionError::Body);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Kind;

    proptest! {
        #[test]
        fn any_admission_round_trips(
            texts in prop::collection::vec(any::<String>(), 3),
            query: Option<String>,
            admitted_ms in 0..1_u64 << 53,
        ) {
            let gateway = SigningKey::from_seed([1; 32]);
            let admission = Admission {
                v: 1,
                iss: gateway.did(),
                jti: RequestId::new(Kind::Completion, [2; 16]),
                job: JobId::new([3; 16]),
                sub: None,
                admitted_ms: UnixMs(admitted_ms),
                method: texts[0].clone(),
                authority: texts[1].clone(),
                path: texts[2].clone(),
                query: query.clone(),
                body_sha256: Digest::of(b"body"),
            };
            let signed = admission.clone().sign(&gateway);
            let read = SignedAdmission::parse(signed.compact()).unwrap();
            let read = read.verify(&gateway.did()).unwrap();
            prop_assert_eq!(read.claims(), &admission);
            let head = RequestHead {
                method: &texts[0],
                authority: &texts[1],
                path: &texts[2],
                query: query.as_deref(),
                headers: &[],
            };
            prop_assert_eq!(read.admits(&admission.job, &head, &Digest::of(b"body")), Ok(()));
        }

        #[test]
        fn arbitrary_text_is_no_admission(text: String) {
            prop_assert!(SignedAdmission::parse(&text).is_err());
        }
    }
}
