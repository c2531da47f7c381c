//! `admissions.json`: what a gateway tells a job, right and wrong.

use protocol::Digest;
use protocol::admission::{Admission, TYP};
use serde_json::{Value, json};

use super::forge::{claims_of, did, header, invalid, jws, key, set, valid, with_signature};
use super::honest::{self, AUTHORITY, BODY, CLIENT, GATEWAY, OTHER_GATEWAY, PATH};

const ABOUT: &str = "docs/spec/receipt.md, section 6: the job `job` of the gateway `gateway` reads \
    `admission` with a request of `method`, `authority`, `path`, `query` and `body`. `error` is \
    null, or the code that the first failing rule gives.";

pub fn file() -> String {
    let common = json!({
        "gateway": did(GATEWAY),
        "job": honest::job_id(),
        "method": "POST",
        "authority": AUTHORITY,
        "path": PATH,
        "query": null,
        "body": BODY,
    });
    super::file(ABOUT, common, cases())
}

fn admission() -> Admission {
    Admission {
        v: 1,
        iss: did(GATEWAY),
        jti: honest::request_id(),
        job: honest::job_id(),
        sub: Some(did(CLIENT)),
        admitted_ms: honest::NOW.plus_ms(50),
        method: "POST".to_owned(),
        authority: AUTHORITY.to_owned(),
        path: PATH.to_owned(),
        query: None,
        body_sha256: Digest::of(BODY.as_bytes()),
    }
}

fn signed(admission: Admission) -> String {
    admission.sign(&key(GATEWAY)).compact().to_owned()
}

fn cases() -> Vec<Value> {
    let honest = signed(admission());
    let claims = claims_of(&honest);
    let wrong = |name: &str, code: &str, compact: String| {
        invalid(name, code, json!({ "admission": compact }))
    };
    let with = |name: &str, value: Value| {
        jws(
            &header(TYP, GATEWAY),
            &set(&claims, name, Some(value)),
            GATEWAY,
        )
    };
    let for_other = |name: &str, code: &str, member: &str, value: Value| {
        let mut case = wrong(name, code, honest.clone());
        case[member] = value;
        case
    };
    let unsigned = Admission {
        sub: None,
        ..admission()
    };
    let queried = Admission {
        query: Some("a=b".to_owned()),
        ..admission()
    };
    let foreign = set(&claims, "iss", Some(json!(did(OTHER_GATEWAY))));
    let (message, _) = honest.rsplit_once('.').expect("three parts");
    let signature = key(GATEWAY).sign(message.as_bytes());
    let mut cases = vec![
        valid("a signed request", json!({ "admission": honest })),
        valid(
            "an unsigned request",
            json!({ "admission": signed(unsigned) }),
        ),
        valid(
            "a query",
            json!({ "admission": signed(queried), "query": "a=b" }),
        ),
        wrong(
            "another gateway's",
            "admission_gateway",
            jws(&header(TYP, OTHER_GATEWAY), &foreign, OTHER_GATEWAY),
        ),
        wrong(
            "signed by another key",
            "jws_signature",
            jws(&header(TYP, GATEWAY), &claims, OTHER_GATEWAY),
        ),
        wrong(
            "kid of another gateway",
            "admission_issuer",
            jws(&header(TYP, OTHER_GATEWAY), &claims, OTHER_GATEWAY),
        ),
        wrong(
            "typ of a receipt",
            "jws_typ",
            jws(
                &header("countersign-receipt+jwt", GATEWAY),
                &claims,
                GATEWAY,
            ),
        ),
        wrong("another version", "admission_version", with("v", json!(2))),
        wrong(
            "an unknown claim",
            "jws_claims",
            with("role", json!("admin")),
        ),
        wrong("sub is null", "jws_claim_value", with("sub", Value::Null)),
        for_other(
            "for another job",
            "admission_job",
            "job",
            json!(format!("job-{}", "9".repeat(32))),
        ),
        for_other(
            "for another method",
            "admission_line",
            "method",
            json!("GET"),
        ),
        for_other(
            "for another authority",
            "admission_line",
            "authority",
            json!("localhost"),
        ),
        for_other(
            "for another path",
            "admission_line",
            "path",
            json!("/v1/completions"),
        ),
        for_other("for no query", "admission_line", "query", json!("")),
        for_other("for another body", "admission_body", "body", json!("{}")),
    ];
    let changes = [
        ("jti", json!(format!("chatcmpl-{}", "0".repeat(32)))),
        ("job", json!(format!("job-{}", "9".repeat(32)))),
        ("sub", json!(did(OTHER_GATEWAY))),
        ("admitted_ms", json!(1)),
        ("path", json!("/v1/completions")),
        ("body_sha256", json!("0".repeat(64))),
    ];
    cases.extend(changes.into_iter().map(|(name, value)| {
        let changed = with_signature(&with(name, value), &signature);
        wrong(
            &format!("{name} changed after signing"),
            "jws_signature",
            changed,
        )
    }));
    cases
}
