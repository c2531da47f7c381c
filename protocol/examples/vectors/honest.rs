//! One honest exchange, which the cases vary.

use std::collections::BTreeMap;

use protocol::api::SamplingAsk;
use protocol::credential::{Credential, SignedCredential};
use protocol::receipt::{
    Closing, Finish, ModelRef, Numerics, OpenReceipt, Opening, Receipt, RequestLine, Salt,
};
use protocol::request_signature::{RequestHead, SignatureHeaders, sign};
use protocol::sampling::{Effective, Sampling, SeedBy, seed_from_nonce};
use protocol::{Did, Digest, JobId, Kind, ModelDigest, RequestId, UnixMs};
use serde_json::{Value, json};

use super::forge::{did, key};

// The seeds: 32 times this byte.
pub const GATEWAY: u8 = 1;
pub const JOB: u8 = 2;
pub const CLIENT: u8 = 3;
pub const OTHER_GATEWAY: u8 = 4;
pub const OTHER_JOB: u8 = 5;
pub const OTHER_CLIENT: u8 = 6;
pub const AUDITOR: u8 = 7;

/// 2026-01-01T00:00:00Z.
pub const NOW_S: u64 = 1_767_225_600;
pub const NOW: UnixMs = UnixMs(NOW_S * 1000);

pub const AUTHORITY: &str = "localhost:8080";
pub const PATH: &str = "/v1/chat/completions";
pub const BODY: &str = r#"{"model":"smollm2-135m-instruct","messages":[{"role":"user","content":"Say é."}],"max_tokens":16}"#;
pub const PROMPT_TOKENS: [u32; 5] = [1, 9690, 198, 49151, 2];
pub const OUTPUT_TEXT: &str = "é! \u{1f642}";
pub const OUTPUT_TOKENS: [u32; 4] = [27, 113, 17, 2];

/// The request's signature, by whom and with which nonce.
pub fn signed(seed: u8, nonce: [u8; 16]) -> SignatureHeaders {
    let head = RequestHead {
        method: "POST",
        authority: AUTHORITY,
        path: PATH,
        query: None,
        headers: &[("content-type", "application/json")],
    };
    sign(&key(seed), &head, BODY.as_bytes(), NOW_S, NOW_S + 60, nonce)
}

pub fn client_line() -> RequestLine {
    signed(CLIENT, [7; 16]).line
}

pub fn unsigned_line() -> RequestLine {
    RequestLine::unsigned("POST", AUTHORITY, PATH, None)
}

pub fn job_id() -> JobId {
    JobId::new([0x10; 16])
}

pub fn request_id() -> RequestId {
    RequestId::new(Kind::Chat, [0x20; 16])
}

pub fn model() -> ModelRef {
    ModelRef {
        id: "smollm2-135m-instruct".to_owned(),
        digest: ModelDigest::from_digest(Digest::of(b"a manifest's identity")),
    }
}

pub fn credential() -> Credential {
    Credential {
        v: 1,
        iss: did(GATEWAY),
        job: job_id(),
        sub: did(JOB),
        model: model(),
        numerics: "candle-cpu/1".to_owned(),
        class: "local".to_owned(),
        sandbox: vec!["process".to_owned()],
        authorities: vec![AUTHORITY.to_owned(), "127.0.0.1:8080".to_owned()],
        nbf_ms: NOW.minus_ms(60_000),
        exp_ms: NOW.plus_ms(24 * 3_600_000),
    }
}

pub fn signed_credential() -> SignedCredential {
    credential().sign(&key(GATEWAY))
}

pub fn chain() -> Value {
    json!([signed_credential().compact()])
}

pub fn opening(sub: Option<Did>, request: RequestLine) -> Opening {
    Opening {
        jti: request_id(),
        job: job_id(),
        iss: did(JOB),
        sub,
        salt: Salt([0x30; 16]),
        from_ms: NOW.plus_ms(100),
        request,
        body_sha256: Digest::of(BODY.as_bytes()),
        model: model(),
        numerics: Numerics {
            profile: "candle-cpu/1".to_owned(),
            device: "cpu".to_owned(),
            detail: BTreeMap::from([("isa".to_owned(), "x86-64+avx2".to_owned())]),
        },
        cred: signed_credential().digest(),
    }
}

pub fn closing() -> Closing {
    Closing {
        to_ms: NOW.plus_ms(900),
        unfinished: Finish::Stop,
        seq: 5,
        prev: Some(Digest::of(b"the job's receipt with the number 4")),
        trace: None,
    }
}

pub fn sampling(n: u8) -> Sampling {
    let effective = Effective {
        max_tokens: 16,
        seed: seed_from_nonce(b"BwcHBwcHBwcHBwcHBwcHBw", &Digest::of(BODY.as_bytes())),
        seed_by: SeedBy::Nonce,
        template_date: None,
    };
    Sampling::in_force(&SamplingAsk::default(), n, effective)
}

/// The receipt of the whole exchange.
pub fn receipt() -> Receipt {
    receipt_for(Some(did(CLIENT)), client_line())
}

pub fn receipt_for(sub: Option<Did>, request: RequestLine) -> Receipt {
    answered(OpenReceipt::begin(opening(sub, request))).close(closing())
}

/// The answer in one choice.
pub fn answered(mut open: OpenReceipt) -> OpenReceipt {
    open.prompt(&PROMPT_TOKENS);
    open.sampling(sampling(1));
    open.absorb(0, OUTPUT_TOKENS[0], "");
    open.absorb(0, OUTPUT_TOKENS[1], "é");
    open.absorb(0, OUTPUT_TOKENS[2], "! \u{1f642}");
    open.absorb(0, OUTPUT_TOKENS[3], "");
    open
}

/// The claims of the receipt, to be changed.
pub fn claims() -> Value {
    serde_json::to_value(receipt()).expect("claims are plain data")
}
