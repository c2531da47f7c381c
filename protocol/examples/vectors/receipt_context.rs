//! Receipts that are signed rightly, and aren't for this credential, client
//! or request.

use protocol::credential::Credential;
use protocol::receipt::{ModelRef, Numerics, Receipt, RequestLine, TYP};
use protocol::{Digest, JobId, ModelDigest, UnixMs};
use serde_json::{Value, json};

use super::forge::{did, header, invalid, jws, key};
use super::honest::{self, BODY, CLIENT, GATEWAY, OTHER_CLIENT, OTHER_GATEWAY, OTHER_JOB};
use super::receipts::signed;

pub fn cases() -> Vec<Value> {
    [credentials(), owners(), client_signatures()].concat()
}

fn wrong(name: &str, code: &str, receipt: Receipt) -> Value {
    invalid(name, code, json!({ "receipt": signed(receipt) }))
}

fn credentials() -> Vec<Value> {
    let honest = honest::receipt;
    let allowed = honest::credential();
    let chain = |credential: Credential| json!([credential.sign(&key(GATEWAY)).compact()]);
    let with_chain = |name: &str, code: &str, chain: Value| {
        invalid(
            name,
            code,
            json!({ "receipt": signed(honest()), "chain": chain }),
        )
    };
    let foreign = Credential {
        iss: did(OTHER_GATEWAY),
        ..allowed.clone()
    };
    let foreign = json!([foreign.sign(&key(OTHER_GATEWAY)).compact()]);
    let compact = honest::signed_credential().compact().to_owned();
    let other_model = ModelRef {
        digest: ModelDigest::from_digest(Digest::of(b"another identity")),
        ..honest::model()
    };
    let other_name = ModelRef {
        id: "smollm2-360m-instruct".to_owned(),
        ..honest::model()
    };
    let other_job_signs = {
        let mut claims = honest::claims();
        claims["iss"] = json!(did(OTHER_JOB));
        jws(&header(TYP, OTHER_JOB), &claims, OTHER_JOB)
    };
    let mut elsewhere = honest();
    elsewhere.input.request.authority = "example.com".to_owned();
    vec![
        invalid(
            "signed by another job",
            "receipt_key",
            json!({ "receipt": other_job_signs }),
        ),
        wrong(
            "another job's id",
            "receipt_job",
            Receipt {
                job: JobId::new([9; 16]),
                ..honest()
            },
        ),
        wrong(
            "another model's digest",
            "receipt_model",
            Receipt {
                model: other_model,
                ..honest()
            },
        ),
        wrong(
            "another model's name",
            "receipt_model",
            Receipt {
                model: other_name,
                ..honest()
            },
        ),
        wrong(
            "another numerics profile",
            "receipt_numerics",
            Receipt {
                numerics: Numerics {
                    profile: "exact/1".to_owned(),
                    ..honest().numerics
                },
                ..honest()
            },
        ),
        wrong(
            "another credential's digest",
            "receipt_credential",
            Receipt {
                cred: Digest::of(b"x"),
                ..honest()
            },
        ),
        with_chain(
            "a renewed credential",
            "receipt_credential",
            chain(Credential {
                exp_ms: allowed.exp_ms.plus_ms(1),
                ..allowed.clone()
            }),
        ),
        wrong(
            "before its credential",
            "receipt_validity",
            Receipt {
                from_ms: UnixMs(allowed.nbf_ms.0 - 1),
                ..honest()
            },
        ),
        wrong(
            "after its credential",
            "receipt_validity",
            Receipt {
                to_ms: allowed.exp_ms,
                ..honest()
            },
        ),
        wrong(
            "an authority that the credential doesn't list",
            "receipt_authority",
            elsewhere,
        ),
        with_chain(
            "the credential of another gateway",
            "credential_untrusted",
            foreign,
        ),
        with_chain(
            "the credential of another job",
            "receipt_key",
            chain(Credential {
                sub: did(OTHER_JOB),
                ..allowed
            }),
        ),
        with_chain("no credential", "chain_length", json!([])),
        with_chain("two credentials", "chain_length", json!([compact, compact])),
        with_chain(
            "a receipt as its credential",
            "jws_typ",
            json!([signed(honest())]),
        ),
    ]
}

fn owners() -> Vec<Value> {
    let others = honest::receipt_for(
        Some(did(OTHER_CLIENT)),
        honest::signed(OTHER_CLIENT, [7; 16]).line,
    );
    let earlier = honest::receipt_for(Some(did(CLIENT)), honest::signed(CLIENT, [8; 16]).line);
    let unsigned = honest::receipt_for(None, honest::unsigned_line());
    let asked_unsigned = |name: &str, code: &str, receipt: &Receipt| {
        invalid(
            name,
            code,
            json!({
                "receipt": signed(receipt.clone()), "client": null, "request": honest::unsigned_line(),
            }),
        )
    };
    let other_body = Receipt {
        input: protocol::receipt::Input {
            body_sha256: Digest::of(b"{}"),
            ..unsigned.input.clone()
        },
        ..unsigned.clone()
    };
    let mut other_path = unsigned.clone();
    other_path.input.request.path = "/v1/completions".to_owned();
    vec![
        wrong(
            "another client's receipt for the same body",
            "receipt_client",
            others,
        ),
        wrong(
            "the same client's receipt for an earlier request with the same body",
            "receipt_request",
            earlier,
        ),
        wrong(
            "no client's receipt for the same body",
            "receipt_client",
            unsigned,
        ),
        asked_unsigned(
            "a client's receipt for an unsigned request",
            "receipt_client",
            &honest::receipt(),
        ),
        asked_unsigned("another body", "receipt_body", &other_body),
        asked_unsigned("another path", "receipt_request", &other_path),
    ]
}

/// A job that signs what no client signed. Read by someone who wasn't there.
fn client_signatures() -> Vec<Value> {
    let by_all = |name: &str, code: &str, receipt: Receipt| {
        invalid(
            name,
            code,
            json!({ "receipt": signed(receipt), "request": null }),
        )
    };
    let changed = |change: fn(&mut RequestLine)| {
        let mut receipt = honest::receipt();
        change(&mut receipt.input.request);
        receipt
    };
    let other_client = honest::receipt_for(Some(did(OTHER_CLIENT)), honest::client_line());
    let other_body = {
        let mut receipt = honest::receipt();
        receipt.input.body_sha256 = Digest::of(&[BODY.as_bytes(), b" "].concat());
        receipt
    };
    vec![
        by_all(
            "the client signed another path",
            "signature_invalid",
            changed(|line| line.path.push('/')),
        ),
        by_all(
            "the client signed another method",
            "signature_invalid",
            changed(|line| line.method = "PUT".to_owned()),
        ),
        by_all(
            "the client signed another authority",
            "signature_invalid",
            changed(|line| line.authority = "127.0.0.1:8080".to_owned()),
        ),
        by_all(
            "the client signed another header",
            "signature_invalid",
            changed(|line| {
                line.headers
                    .insert("content-type".to_owned(), "text/plain".to_owned());
            }),
        ),
        by_all(
            "another client's signature",
            "signature_client",
            other_client,
        ),
        by_all(
            "the client signed another body",
            "content_digest_mismatch",
            other_body,
        ),
        by_all(
            "the client signed no query",
            "signature_uncovered",
            changed(|line| line.query = Some("a".to_owned())),
        ),
    ]
}
