//! The credentials issued to one job: what they say, and when they are due.
//!
//! Pure. A job's credentials overlap: each is valid from when the job came, so
//! that a request which began under one may end under the next.

use protocol::credential::{Credential, SignedCredential, VerifiedCredential};
use protocol::{Did, Digest, SigningKey, UnixMs};

use super::AttachedJob;

/// How long a credential is valid: a day.
const VALID_MS: u64 = 24 * 60 * 60 * 1000;
/// How long before its end it is renewed: longer than any request takes.
const RENEW_MS: u64 = VALID_MS / 3;
/// How much earlier than the job it begins: the engine's clock may be behind.
const SKEW_MS: u64 = 60 * 1000;

/// What a job's credentials say beside what its engine says.
#[derive(Debug)]
pub(super) struct Terms {
    pub class: String,
    pub sandbox: Vec<String>,
    pub authorities: Vec<String>,
}

/// What was issued to a job, the latest last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    issued: Vec<VerifiedCredential>,
    /// Until when the one is valid that the engine is known to have.
    in_force_to: Option<UnixMs>,
}

impl Terms {
    pub(super) fn sign(
        &self,
        facts: &AttachedJob,
        key: &SigningKey,
        now: UnixMs,
    ) -> SignedCredential {
        Credential {
            v: 1,
            iss: key.did(),
            job: facts.job.clone(),
            sub: facts.did,
            model: facts.model.clone(),
            numerics: facts.numerics.profile.clone(),
            class: self.class.clone(),
            sandbox: self.sandbox.clone(),
            authorities: self.authorities.clone(),
            nbf_ms: facts.since.minus_ms(SKEW_MS),
            exp_ms: now.plus_ms(VALID_MS),
        }
        .sign(key)
    }
}

impl Credentials {
    /// The credential that a receipt names, if it was issued to this job.
    pub(crate) fn by_digest(&self, digest: &Digest) -> Option<&VerifiedCredential> {
        (self.issued.iter().rev()).find(|credential| credential.digest() == *digest)
    }

    /// Whether it is time for a new one.
    pub(super) fn is_due(&self, now: UnixMs) -> bool {
        self.in_force_to.is_none_or(|end| end.0 < now.0 + RENEW_MS)
    }

    /// These and one more, without those that expired before it was signed.
    pub(crate) fn with(&self, signed: SignedCredential, gateway: &Did) -> Self {
        let signed_ms = signed.unverified().exp_ms.0 - VALID_MS;
        let mut next = self.clone();
        next.issued
            .retain(|credential| credential.claims().exp_ms.0 > signed_ms);
        let verified = signed.verify(gateway);
        next.issued
            .push(verified.expect("the gateway signed it just now"));
        next
    }

    /// The same, once the engine has the last of them.
    pub(super) fn in_force(&self) -> Self {
        Self {
            issued: self.issued.clone(),
            in_force_to: self.issued.last().map(|last| last.claims().exp_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::receipt::{ModelRef, Numerics};
    use protocol::{JobId, ModelDigest};

    use super::*;

    const BEGAN: UnixMs = UnixMs(1_800_000_000_000);
    const HOUR: u64 = 3_600_000;

    fn issue(credentials: &Credentials, after_hours: u64) -> (Credentials, Digest) {
        let key = SigningKey::from_seed([1; 32]);
        let facts = AttachedJob {
            job: JobId::new([1; 16]),
            did: SigningKey::from_seed([2; 32]).did(),
            model: ModelRef {
                id: "m".to_owned(),
                digest: ModelDigest::from_digest(Digest::of(b"m")),
            },
            numerics: Numerics {
                profile: "candle-cpu/1".to_owned(),
                device: "cpu".to_owned(),
                detail: Default::default(),
            },
            context_tokens: 8,
            since: BEGAN,
        };
        let terms = Terms {
            class: "local".to_owned(),
            sandbox: Vec::new(),
            authorities: vec!["a".to_owned()],
        };
        let signed = terms.sign(&facts, &key, BEGAN.plus_ms(after_hours * HOUR));
        let digest = signed.digest();
        (credentials.with(signed, &key.did()), digest)
    }

    #[test]
    fn renewed_with_hours_to_spare() {
        let none = Credentials::default();
        assert!(none.is_due(BEGAN));
        let (one, _) = issue(&none, 0);
        assert!(one.is_due(BEGAN), "the engine may not have it");
        let one = one.in_force();
        assert!(!one.is_due(BEGAN.plus_ms(15 * HOUR)));
        assert!(one.is_due(BEGAN.plus_ms(17 * HOUR)));
        let (two, _) = issue(&one, 17);
        assert!(two.is_due(BEGAN.plus_ms(17 * HOUR)), "not handed over yet");
    }

    #[test]
    fn a_request_may_begin_under_one_and_end_under_the_next() {
        let (one, first) = issue(&Credentials::default(), 0);
        let (two, second) = issue(&one, 17);
        assert!(two.by_digest(&first).is_some());
        let next = two.by_digest(&second).unwrap().claims();
        assert!(next.nbf_ms < BEGAN);
        let (three, _) = issue(&two, 34);
        assert!(three.by_digest(&first).is_none());
        assert!(three.by_digest(&second).is_some());
    }
}
