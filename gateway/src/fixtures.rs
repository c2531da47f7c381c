//! What the unit tests share: a job that signs real receipts.

use protocol::credential::{Credential, VerifiedCredential};
use protocol::receipt::{
    Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, Receipt, RequestLine, Salt,
    SignedReceipt, VerifiedReceipt,
};
use protocol::{Did, Digest, JobId, Kind, ModelDigest, RequestId, SigningKey, UnixMs};

/// When everything happens.
pub(crate) const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// A gateway's key.
pub(crate) fn gateway_key() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

/// Any request id, by number.
pub(crate) fn request_id(number: u8) -> RequestId {
    RequestId::new(Kind::Chat, [number; 16])
}

/// A job's key and what was issued to it.
pub(crate) struct Signer {
    pub key: SigningKey,
    pub credential: VerifiedCredential,
}

/// What a receipt is about.
#[derive(Clone)]
pub(crate) struct About {
    pub id: RequestId,
    pub sub: Option<Did>,
    pub line: RequestLine,
    pub body: Digest,
    pub seq: u64,
    /// 0, or the number of a checkpoint.
    pub part: u32,
}

impl About {
    pub(crate) fn unsigned(id: RequestId) -> Self {
        Self {
            id,
            sub: None,
            line: RequestLine::unsigned("POST", "localhost:8080", "/v1/chat/completions", None),
            body: Digest::of(b"body"),
            seq: 0,
            part: 0,
        }
    }
}

impl Signer {
    pub(crate) fn new(seed: u8) -> Self {
        let key = SigningKey::from_seed([seed; 32]);
        let gateway = gateway_key();
        let credential = Credential {
            v: 1,
            iss: gateway.did(),
            job: JobId::new([seed; 16]),
            sub: key.did(),
            model: model(),
            numerics: numerics().profile,
            class: "local".to_owned(),
            sandbox: Vec::new(),
            authorities: vec!["localhost:8080".to_owned()],
            nbf_ms: NOW.minus_ms(1000),
            exp_ms: NOW.plus_ms(1000),
        };
        let credential = credential.sign(&gateway).verify(&gateway.did()).unwrap();
        Self { key, credential }
    }

    pub(crate) fn receipt(&self, about: &About) -> Receipt {
        let open = OpenReceipt::begin(Opening {
            jti: about.id.clone(),
            job: self.credential.claims().job.clone(),
            iss: self.key.did(),
            sub: about.sub,
            salt: Salt([3; 16]),
            from_ms: NOW,
            request: about.line.clone(),
            body_sha256: about.body,
            model: model(),
            numerics: numerics(),
            cred: self.credential.digest(),
        });
        let closing = Closing {
            to_ms: NOW,
            unfinished: Finish::Stop,
            seq: about.seq,
            prev: (about.seq > 0).then(|| Digest::of(b"previous")),
            trace: None,
        };
        match about.part {
            0 => open.close(closing),
            part => open.checkpoint(part, closing),
        }
    }

    pub(crate) fn sign(&self, about: &About) -> SignedReceipt {
        self.receipt(about).sign(&self.key)
    }

    pub(crate) fn verified(&self, about: &About) -> VerifiedReceipt {
        self.sign(about).verify(&self.credential).unwrap()
    }
}

fn model() -> ModelRef {
    ModelRef {
        id: "m".to_owned(),
        digest: ModelDigest::from_digest(Digest::of(b"m")),
    }
}

fn numerics() -> Numerics {
    Numerics {
        profile: "candle-cpu/1".to_owned(),
        device: "cpu".to_owned(),
        detail: Default::default(),
    }
}
