//! The job's key, and the one place where it signs.
//!
//! Receipts are numbered in the order of signing, each naming the digest of
//! the one before, so signing happens under one lock: whoever holds it owns
//! the chain. Start at [`Notary::open`] and [`Notary::close`].

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use protocol::credential::{CredentialError, SignedCredential, VerifiedCredential};
use protocol::receipt::{
    Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, Receipt, RequestLine, Salt,
    SignedReceipt,
};
use protocol::{Did, Digest, JobId, RequestId, SigningKey, UnixMs};

use crate::ambient;
use crate::metrics::Metrics;

/// Holds the job's key for the life of the process; nothing gets it out.
#[derive(Debug)]
pub(crate) struct Notary {
    key: SigningKey,
    job: JobId,
    gateway: Did,
    model: ModelRef,
    numerics: Numerics,
    credential: RwLock<Option<Arc<VerifiedCredential>>>,
    chain: Mutex<Link>,
    metrics: Arc<Metrics>,
}

/// Where the chain goes on.
#[derive(Debug, Default)]
struct Link {
    seq: u64,
    prev: Option<Digest>,
}

/// What the notary states about a request before anything is computed.
#[derive(Debug)]
pub(crate) struct Stated {
    pub id: RequestId,
    pub client: Option<Did>,
    pub from_ms: UnixMs,
    pub line: RequestLine,
    pub body_sha256: Digest,
}

/// Why a credential isn't this job's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialRefused {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("the credential is for another {0}")]
    Other(&'static str),
    #[error("the credential isn't valid now")]
    Validity,
    #[error("the credential lists the authority {0:?}, for which this job wasn't started")]
    Authority(String),
}

impl CredentialRefused {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Credential(error) => error.code(),
            Self::Other(_) => "credential_other",
            Self::Validity => "credential_validity",
            Self::Authority(_) => "credential_authority",
        }
    }
}

impl Notary {
    pub(crate) fn new(
        key: SigningKey,
        job: JobId,
        gateway: Did,
        model: ModelRef,
        numerics: Numerics,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            key,
            job,
            gateway,
            model,
            numerics,
            credential: RwLock::new(None),
            chain: Mutex::new(Link::default()),
            metrics,
        }
    }

    pub(crate) fn numerics(&self) -> &Numerics {
        &self.numerics
    }

    /// What the job answers under; none until the gateway brought it.
    pub(crate) fn credential(&self) -> Option<Arc<VerifiedCredential>> {
        self.credential
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the gateway's credential, if it is for this job as it is.
    /// `authorities` are those that the job was started for; none: any.
    pub(crate) fn appoint(
        &self,
        compact: &str,
        authorities: &[String],
    ) -> Result<(), CredentialRefused> {
        let verified = SignedCredential::parse(compact)?.verify(&self.gateway)?;
        let claims = verified.claims();
        let now = ambient::now();
        let other = [
            ("job", claims.job == self.job),
            ("key", claims.sub == self.key.did()),
            ("model", claims.model == self.model),
            ("numerics profile", claims.numerics == self.numerics.profile),
        ];
        if let Some((what, _)) = other.iter().find(|(_, same)| !same) {
            return Err(CredentialRefused::Other(what));
        }
        if now < claims.nbf_ms || now >= claims.exp_ms {
            return Err(CredentialRefused::Validity);
        }
        let foreign = |authority: &&String| !authorities.contains(*authority);
        if let Some(foreign) = claims.authorities.iter().find(foreign)
            && !authorities.is_empty()
        {
            return Err(CredentialRefused::Authority(foreign.clone()));
        }
        *self
            .credential
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(verified));
        Ok(())
    }

    /// Begins the receipt of a request, under the credential of now.
    pub(crate) fn open(&self, stated: Stated, credential: &VerifiedCredential) -> OpenReceipt {
        OpenReceipt::begin(Opening {
            jti: stated.id,
            job: self.job.clone(),
            iss: self.key.did(),
            sub: stated.client,
            salt: Salt(ambient::random()),
            from_ms: stated.from_ms,
            request: stated.line,
            body_sha256: stated.body_sha256,
            model: self.model.clone(),
            numerics: self.numerics.clone(),
            cred: credential.digest(),
        })
    }

    /// Closes and signs it, as the next of the chain. `unfinished` is the word on
    /// every choice that hasn't ended by itself; `trace` is there if tokens were drawn.
    pub(crate) fn close(
        &self,
        open: OpenReceipt,
        unfinished: Finish,
        trace: Option<Digest>,
    ) -> SignedReceipt {
        self.sign(unfinished, trace, |closing| {
            let receipt = open.close(closing);
            for output in &receipt.output {
                self.metrics.finished(output.finish);
            }
            receipt
        })
    }

    /// Signs what there is of a request that goes on, as its checkpoint `part`.
    pub(crate) fn checkpoint(
        &self,
        open: &OpenReceipt,
        part: u32,
        trace: Option<Digest>,
    ) -> SignedReceipt {
        self.metrics.receipt_checkpoints_total.inc();
        self.sign(Finish::Open, trace, |closing| {
            open.checkpoint(part, closing)
        })
    }

    fn sign(
        &self,
        unfinished: Finish,
        trace: Option<Digest>,
        close: impl FnOnce(Closing) -> Receipt,
    ) -> SignedReceipt {
        let mut link = self.chain.lock().unwrap_or_else(PoisonError::into_inner);
        let receipt = close(Closing {
            to_ms: ambient::now(),
            unfinished,
            seq: link.seq,
            prev: link.prev,
            trace,
        });
        let signed = receipt.sign(&self.key);
        *link = Link {
            seq: link.seq + 1,
            prev: Some(signed.digest()),
        };
        signed
    }
}

#[cfg(test)]
mod tests {
    use protocol::credential::Credential;

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_chain_is_gap_free_whoever_signs() {
        let notary = fixtures::notary(&Arc::new(Metrics::new("alphabet")));
        let sign = |number| notary.close(fixtures::open(&notary, number), Finish::Refused, None);
        let mut signed: Vec<_> = std::thread::scope(|scope| {
            let threads = [0, 1, 2, 3].map(|thread| {
                let sign = &sign;
                scope.spawn(move || (0..50).map(|i| sign(thread * 50 + i)).collect::<Vec<_>>())
            });
            let joined = threads.into_iter().map(|thread| thread.join().unwrap());
            joined.flatten().collect()
        });
        signed.sort_by_key(|receipt| receipt.unverified().seq);
        let mut prev = None;
        for (seq, receipt) in signed.iter().enumerate() {
            assert_eq!(receipt.unverified().seq, seq as u64);
            assert_eq!(receipt.unverified().prev, prev);
            prev = Some(receipt.digest());
        }
    }

    #[test]
    fn only_its_own_credential_appoints_it() {
        let check = |change: fn(&mut Credential), expected: Result<(), &str>| {
            let notary = fixtures::notary(&Arc::new(Metrics::new("alphabet")));
            let mut claims = fixtures::claims();
            change(&mut claims);
            let signed = claims.sign(&fixtures::gateway());
            let authorities = [fixtures::AUTHORITY.to_owned()];
            let appointed = notary.appoint(signed.compact(), &authorities);
            assert_eq!(appointed.map_err(|refused| refused.code()), expected);
            assert_eq!(notary.credential().is_some(), expected.is_ok());
        };
        check(|_| {}, Ok(()));
        check(|c| c.job = JobId::new([9; 16]), Err("credential_other"));
        check(|c| c.model.id.push('x'), Err("credential_other"));
        check(|c| c.numerics.push('x'), Err("credential_other"));
        check(|c| c.exp_ms = UnixMs(1), Err("credential_validity"));
        check(
            |c| c.nbf_ms = UnixMs(8_000_000_000_000_000),
            Err("credential_validity"),
        );
        check(
            |c| c.authorities.push("evil".into()),
            Err("credential_authority"),
        );
        let another = |c: &mut Credential| c.sub = SigningKey::from_seed([9; 32]).did();
        check(another, Err("credential_other"));

        let notary = fixtures::notary(&Arc::new(Metrics::new("alphabet")));
        let key = SigningKey::from_seed([9; 32]);
        let claims = Credential {
            iss: key.did(),
            ..fixtures::claims()
        };
        let forged = claims.sign(&key);
        assert_eq!(
            notary.appoint(forged.compact(), &[]).unwrap_err().code(),
            "credential_untrusted"
        );
    }
}
