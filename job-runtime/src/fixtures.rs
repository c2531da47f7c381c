//! A job for the unit tests of this crate: its keys, its credential, its notary.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::credential::{Credential, SignedCredential, VerifiedCredential};
use protocol::receipt::{ModelRef, Numerics, OpenReceipt, RequestLine};
use protocol::{Digest, JobId, Kind, ModelDigest, RequestId, SigningKey, UnixMs};

use crate::metrics::Metrics;
use crate::notary::{Notary, Stated};

pub(crate) const AUTHORITY: &str = "localhost";

pub(crate) fn gateway() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

pub(crate) fn notary(metrics: &Arc<Metrics>) -> Notary {
    let claims = claims();
    let numerics = Numerics {
        profile: claims.numerics,
        device: "cpu".to_owned(),
        detail: BTreeMap::new(),
    };
    let key = SigningKey::from_seed([2; 32]);
    let metrics = Arc::clone(metrics);
    Notary::new(key, claims.job, claims.iss, claims.model, numerics, metrics)
}

/// What the gateway says of the notary's job.
pub(crate) fn claims() -> Credential {
    Credential {
        v: 1,
        iss: gateway().did(),
        job: JobId::new([3; 16]),
        sub: SigningKey::from_seed([2; 32]).did(),
        model: ModelRef {
            id: "alphabet".to_owned(),
            digest: ModelDigest::from_digest(Digest::of(b"alphabet")),
        },
        numerics: "test/1".to_owned(),
        class: "test".to_owned(),
        sandbox: Vec::new(),
        authorities: vec![AUTHORITY.to_owned()],
        nbf_ms: UnixMs(0),
        exp_ms: UnixMs(9_000_000_000_000_000),
    }
}

pub(crate) fn credential() -> VerifiedCredential {
    let signed: SignedCredential = claims().sign(&gateway());
    signed.verify(&gateway().did()).unwrap()
}

/// The open receipt of some request.
pub(crate) fn open(notary: &Notary, number: u8) -> OpenReceipt {
    let stated = Stated {
        id: RequestId::new(Kind::Completion, [number; 16]),
        client: None,
        from_ms: UnixMs(0),
        line: RequestLine::unsigned("POST", AUTHORITY, "/v1/completions", None),
        body_sha256: Digest::of(b""),
    };
    notary.open(stated, &credential())
}
