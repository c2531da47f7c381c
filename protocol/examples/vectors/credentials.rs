//! `credentials.json`: chains, right and wrong.

use protocol::credential::{Credential, TYP};
use serde_json::{Value, json};

use super::forge::{
    claims_of, did, header, invalid, jws, jws_of_text, key, set, valid, with_s_plus_l,
    with_signature,
};
use super::honest::{self, GATEWAY, JOB, OTHER_GATEWAY};

const ABOUT: &str = "docs/spec/receipt.md, 9.1: read `chain` trusting `gateway`. `error` is null, \
    or the code that the first failing rule gives.";

pub fn file() -> String {
    let common = json!({ "gateway": did(GATEWAY) });
    super::file(ABOUT, common, [valid_ones(), forms(), claims()].concat())
}

fn chained(name: &str, code: &str, compact: &str) -> Value {
    invalid(name, code, json!({ "chain": [compact] }))
}

fn valid_ones() -> Vec<Value> {
    let bare = Credential {
        sandbox: Vec::new(),
        authorities: Vec::new(),
        ..honest::credential()
    };
    let bare = bare.sign(&key(GATEWAY));
    vec![
        valid("a job's credential", json!({ "chain": honest::chain() })),
        valid(
            "no sandbox and no authorities",
            json!({ "chain": [bare.compact()] }),
        ),
    ]
}

fn forms() -> Vec<Value> {
    let honest = honest::signed_credential();
    let compact = honest.compact();
    let claims = claims_of(compact);
    let (message, _) = compact.rsplit_once('.').expect("three parts");
    let signature = key(GATEWAY).sign(message.as_bytes());
    let other = |name: &str| set(&header(TYP, GATEWAY), "typ", Some(json!(name)));
    let foreign = jws(
        &header(TYP, OTHER_GATEWAY),
        &set(&claims, "iss", Some(json!(did(OTHER_GATEWAY)))),
        OTHER_GATEWAY,
    );
    let none = set(&header(TYP, GATEWAY), "alg", Some(json!("none")));
    let twice = claims
        .to_string()
        .replacen("\"v\":1,", "\"v\":1,\"v\":1,", 1);
    let twice = jws_of_text(&header(TYP, GATEWAY).to_string(), twice.as_bytes(), GATEWAY);
    vec![
        invalid("no credential", "chain_length", json!({ "chain": [] })),
        invalid(
            "two credentials",
            "chain_length",
            json!({ "chain": [compact, compact] }),
        ),
        chained("empty", "jws_form", ""),
        chained(
            "too long",
            "jws_too_long",
            &format!("{compact}{}", "A".repeat(16_385 - compact.len())),
        ),
        chained(
            "alg none",
            "jws_alg",
            &with_signature(&jws(&none, &claims, GATEWAY), b""),
        ),
        chained(
            "typ of a receipt",
            "jws_typ",
            &jws(&other("countersign-receipt+jwt"), &claims, GATEWAY),
        ),
        chained("typ JWT", "jws_typ", &jws(&other("JWT"), &claims, GATEWAY)),
        chained("a duplicate claim", "json_duplicate_key", &twice),
        chained("another gateway's", "credential_untrusted", &foreign),
        chained(
            "issued by the job itself",
            "credential_untrusted",
            &jws(
                &header(TYP, JOB),
                &set(&claims, "iss", Some(json!(did(JOB)))),
                JOB,
            ),
        ),
        chained(
            "signed by another key",
            "jws_signature",
            &jws(&header(TYP, GATEWAY), &claims, OTHER_GATEWAY),
        ),
        chained(
            "malleable: S + L",
            "jws_signature",
            &with_signature(compact, &with_s_plus_l(&signature)),
        ),
        chained(
            "kid of another gateway",
            "credential_issuer",
            &jws(&header(TYP, OTHER_GATEWAY), &claims, OTHER_GATEWAY),
        ),
    ]
}

fn claims() -> Vec<Value> {
    let honest = honest::signed_credential();
    let claims = claims_of(honest.compact());
    let names: Vec<&String> = claims
        .as_object()
        .into_iter()
        .flat_map(|c| c.keys())
        .collect();
    let sealed = |claims: &Value| jws(&header(TYP, GATEWAY), claims, GATEWAY);
    let with = |name: &str, value: Value| sealed(&set(&claims, name, Some(value)));
    let mut cases: Vec<Value> = names
        .iter()
        .map(|name| {
            let missing = sealed(&set(&claims, name, None));
            chained(&format!("{name} missing"), "jws_claims", &missing)
        })
        .collect();
    let nbf = &claims["nbf_ms"];
    cases.extend([
        chained(
            "another version",
            "credential_version",
            &with("v", json!(2)),
        ),
        chained(
            "an unknown claim",
            "jws_claims",
            &with("scope", json!("all")),
        ),
        chained(
            "exp_ms is null",
            "jws_claim_value",
            &with("exp_ms", Value::Null),
        ),
        chained("exp_ms is text", "jws_claims", &with("exp_ms", json!("9"))),
        chained("sub isn't a DID", "jws_claims", &with("sub", json!("job"))),
        chained(
            "authorities is a text",
            "jws_claims",
            &with("authorities", json!("localhost")),
        ),
        chained(
            "expires when it begins",
            "credential_times",
            &with("exp_ms", nbf.clone()),
        ),
        chained(
            "expires before it begins",
            "credential_times",
            &with("exp_ms", json!(1)),
        ),
    ]);
    for name in [
        "job",
        "sub",
        "model",
        "numerics",
        "class",
        "sandbox",
        "authorities",
        "exp_ms",
    ] {
        let value = match name {
            "job" => json!(format!("job-{}", "0".repeat(32))),
            "sub" => json!(did(OTHER_GATEWAY)),
            "model" => set(&claims["model"], "id", Some(json!("other"))),
            "sandbox" | "authorities" => json!(["other"]),
            "exp_ms" => json!(honest::NOW_S * 1000 + 1),
            _ => json!("other"),
        };
        let changed = with_signature(&with(name, value), &signature_of(honest.compact()));
        chained_into(&mut cases, name, &changed);
    }
    cases
}

fn chained_into(cases: &mut Vec<Value>, name: &str, compact: &str) {
    cases.push(chained(
        &format!("{name} changed after signing"),
        "jws_signature",
        compact,
    ));
}

fn signature_of(compact: &str) -> [u8; 64] {
    let (message, _) = compact.rsplit_once('.').expect("three parts");
    key(GATEWAY).sign(message.as_bytes())
}
