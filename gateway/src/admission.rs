//! Who may ask: the rules that a request must pass before it costs anything.
//!
//! Pure: a request's head and body and the time go in, an [`Admitted`] or a
//! [`Problem`] comes out. Reading the body, spending the nonce and asking the
//! engine belong to `api`. Start at [`Rules::admit`].

use std::collections::BTreeSet;

use http::request;
use protocol::admission::{Admission, SignedAdmission};
use protocol::receipt::RequestLine;
use protocol::request_signature::{self, Policy, RequestHead, VerifiedSignature};
use protocol::{Did, Digest, JobId, RequestId, SigningKey, UnixMs};
use transport::RequestTarget;

use crate::config::Signatures;
use crate::problem::Problem;

/// What this gateway asks of a request.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The names that it answers to, normalised.
    pub authorities: Vec<String>,
    pub signatures: Signatures,
    /// Empty only where unsigned requests are accepted: then any key may sign.
    pub allow_dids: BTreeSet<Did>,
    pub body_bytes_max: usize,
}

/// A request that may be answered, once its nonce is spent.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub at: UnixMs,
    pub body_sha256: Digest,
    /// What its receipt has to repeat.
    pub line: RequestLine,
    /// Who asked, if it signed.
    pub signature: Option<VerifiedSignature>,
}

impl Rules {
    /// Whether the request is for us at all, before a byte of its body is read.
    pub(crate) fn target<'a>(
        &self,
        head: &'a request::Parts,
    ) -> Result<RequestTarget<'a>, Problem> {
        let target = RequestTarget::of_parts(head).map_err(Problem::AuthorityUnclear)?;
        match self.authorities.contains(&target.authority) {
            true => Ok(target),
            false => Err(Problem::AuthorityUnknown {
                asked: target.authority,
                known: self.authorities.clone(),
            }),
        }
    }

    /// Whether who sent this may ask.
    pub(crate) fn admit(
        &self,
        head: &request::Parts,
        body: &[u8],
        now: UnixMs,
    ) -> Result<Admitted, Problem> {
        let target = self.target(head)?;
        if body.len() > self.body_bytes_max {
            return Err(Problem::BodyTooLarge {
                max: self.body_bytes_max,
            });
        }
        let headers: Vec<_> = (head.headers.iter())
            .map(|(name, value)| (name.as_str(), header_text(value)))
            .collect();
        let signed_head = RequestHead {
            method: head.method.as_str(),
            authority: &target.authority,
            path: target.path,
            query: target.query,
            headers: &headers,
        };
        let policy = Policy {
            authorities: &self.authorities,
        };
        let signature = request_signature::verify(&signed_head, body, now, &policy)
            .map_err(Problem::Signature)?;
        match &signature {
            None if self.signatures == Signatures::Required => {
                return Err(Problem::SignatureMissing);
            }
            Some(by) if !self.may_ask(&by.did) => return Err(Problem::DidNotAllowed(by.did)),
            _ => {}
        }
        // Verifying a signature hashes the body: once is enough.
        let (body_sha256, line) = match &signature {
            Some(signature) => (signature.body_sha256, signature.line.clone()),
            None => {
                let line = RequestLine::unsigned(
                    signed_head.method,
                    &target.authority,
                    target.path,
                    target.query,
                );
                (Digest::of(body), line)
            }
        };
        Ok(Admitted {
            at: now,
            body_sha256,
            line,
            signature,
        })
    }

    fn may_ask(&self, did: &Did) -> bool {
        self.allow_dids.is_empty() || self.allow_dids.contains(did)
    }
}

impl Admitted {
    /// Who asked, if it signed.
    pub(crate) fn did(&self) -> Option<Did> {
        self.signature.as_ref().map(|signature| signature.did)
    }

    /// The gateway's word to a job that it admitted this.
    pub(crate) fn certify(&self, id: &RequestId, job: &JobId, key: &SigningKey) -> SignedAdmission {
        let line = &self.line;
        Admission {
            v: 1,
            iss: key.did(),
            jti: id.clone(),
            job: job.clone(),
            sub: self.did(),
            admitted_ms: self.at,
            method: line.method.clone(),
            authority: line.authority.clone(),
            path: line.path.clone(),
            query: line.query.clone(),
            body_sha256: self.body_sha256,
        }
        .sign(key)
    }
}

/// A value that isn't text can't be signed: it stays one that can't.
fn header_text(value: &http::HeaderValue) -> &str {
    std::str::from_utf8(value.as_bytes()).unwrap_or("\u{fffd}")
}

#[cfg(test)]
mod tests;
