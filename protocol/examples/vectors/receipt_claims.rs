//! Receipts with claims that are changed after signing, or signed although
//! they are wrong.

use protocol::Digest;
use protocol::receipt::TYP;
use serde_json::{Value, json};

use super::forge::{base64url, claims_of, did, header, invalid, jws, set};
use super::honest::{self, JOB, OTHER_CLIENT, OTHER_JOB};
use super::receipts;

pub fn cases() -> Vec<Value> {
    [changed(), removed(), ill_typed(), contradictory()].concat()
}

/// Each claim changed after signing. Where a rule about the claims by
/// themselves is broken too, its code comes first.
fn changed() -> Vec<Value> {
    let honest = receipts::signed(honest::receipt());
    let claims = claims_of(&honest);
    let line = serde_json::to_value(honest::signed(OTHER_CLIENT, [8; 16]).line)
        .expect("a line is plain data");
    let zeros = json!("0".repeat(64));
    let changes = [
        ("v", json!(2), "receipt_version"),
        ("domain", json!("text/2"), "receipt_domain"),
        ("salt", json!("0".repeat(32)), ""),
        ("jti", json!(format!("chatcmpl-{}", "0".repeat(32))), ""),
        ("part", json!(1), "receipt_part"),
        ("job", json!(format!("job-{}", "0".repeat(32))), ""),
        ("seq", json!(6), ""),
        ("prev", zeros.clone(), ""),
        ("iss", json!(did(OTHER_JOB)), "receipt_issuer"),
        ("sub", json!(did(OTHER_CLIENT)), ""),
        ("from_ms", json!(honest::NOW_S * 1000 + 101), ""),
        ("to_ms", json!(honest::NOW_S * 1000 + 901), ""),
        ("input/request", line.clone(), ""),
        ("input/request/method", json!("GET"), ""),
        ("input/request/authority", json!("127.0.0.1:8080"), ""),
        ("input/request/path", json!("/v1/completions"), ""),
        ("input/request/query", json!(""), ""),
        (
            "input/request/headers/content-type",
            json!("text/plain"),
            "",
        ),
        (
            "input/request/headers/content-digest",
            line["headers"]["content-digest"].clone(),
            "",
        ),
        (
            "input/request/signature_input",
            line["signature_input"].clone(),
            "",
        ),
        ("input/request/signature", line["signature"].clone(), ""),
        ("input/body_sha256", zeros.clone(), ""),
        ("input/prompt_tokens_sha256", zeros.clone(), ""),
        ("input/prompt_tokens", json!(6), ""),
        ("output", json!([]), "receipt_choices"),
        ("model/id", json!("smollm2-1.7b-instruct"), ""),
        ("model/digest", zeros.clone(), ""),
        ("sampling/version", json!("gumbel-philox/2"), ""),
        ("sampling/temperature", json!(0.0), ""),
        ("sampling/top_p", json!(0.5), ""),
        ("sampling/top_k", json!(1), ""),
        ("sampling/min_p", json!(0.5), ""),
        ("sampling/repetition_penalty", json!(1.5), ""),
        ("sampling/presence_penalty", json!(1.0), ""),
        ("sampling/frequency_penalty", json!(1.0), ""),
        ("sampling/logit_bias", json!({ "5": 1.0 }), ""),
        ("sampling/max_tokens", json!(17), ""),
        ("sampling/min_tokens", json!(1), ""),
        ("sampling/stop", json!(["."]), ""),
        ("sampling/stop_token_ids", json!([5]), ""),
        ("sampling/ignore_eos", json!(true), ""),
        ("sampling/n", json!(2), "receipt_choices"),
        ("sampling/seed", json!("1"), ""),
        ("sampling/seed_by", json!("server"), ""),
        ("sampling/template_date", json!("2026-01-01"), ""),
        ("numerics/profile", json!("exact/1"), ""),
        ("numerics/device", json!("cuda"), ""),
        ("numerics/detail/isa", json!("x86-64"), ""),
        ("trace", zeros.clone(), ""),
        ("cred", zeros.clone(), ""),
    ];
    let mut cases: Vec<Value> = changes
        .into_iter()
        .filter(|(path, value, _)| {
            // The body is the same, and so is its digest.
            claims.pointer(&format!("/{path}")) != Some(value)
        })
        .map(|(path, value, code)| {
            let code = if code.is_empty() {
                "jws_signature"
            } else {
                code
            };
            let receipt = resealed(&honest, &set(&claims, path, Some(value)));
            let name = format!("{} changed after signing", path.replace('/', "."));
            invalid(name, code, json!({ "receipt": receipt }))
        })
        .collect();
    for (member, value) in [
        ("text_sha256", json!(Digest::of(b"another text"))),
        ("tokens_sha256", zeros),
        ("tokens", json!(5)),
        ("finish", json!("length")),
    ] {
        let mut changed = claims.clone();
        changed["output"][0][member] = value;
        let receipt = resealed(&honest, &changed);
        let name = format!("output.0.{member} changed after signing");
        cases.push(invalid(
            name,
            "jws_signature",
            json!({ "receipt": receipt }),
        ));
    }
    cases
}

/// Other claims under the signature of `honest`.
fn resealed(honest: &str, claims: &Value) -> String {
    let header = honest.split('.').next().expect("three parts");
    let signature = honest.rsplit('.').next().expect("three parts");
    format!(
        "{header}.{}.{signature}",
        base64url(claims.to_string().as_bytes())
    )
}

fn signed_wrong(name: &str, code: &str, claims: &Value) -> Value {
    invalid(
        name,
        code,
        json!({ "receipt": jws(&header(TYP, JOB), claims, JOB) }),
    )
}

/// Each required claim left out, and signed so.
fn removed() -> Vec<Value> {
    let claims = honest::claims();
    let paths = [
        "v",
        "domain",
        "salt",
        "jti",
        "part",
        "job",
        "seq",
        "iss",
        "from_ms",
        "to_ms",
        "input",
        "input/request",
        "input/request/method",
        "input/request/authority",
        "input/request/path",
        "input/body_sha256",
        "input/prompt_tokens_sha256",
        "input/prompt_tokens",
        "output",
        "model",
        "model/id",
        "model/digest",
        "sampling/version",
        "sampling/temperature",
        "sampling/n",
        "sampling/seed",
        "sampling/seed_by",
        "numerics",
        "numerics/profile",
        "numerics/device",
        "cred",
    ];
    paths
        .into_iter()
        .map(|path| {
            let name = format!("{} missing", path.replace('/', "."));
            signed_wrong(&name, "jws_claims", &set(&claims, path, None))
        })
        .collect()
}

/// Claims of a wrong type or spelling, and claims that there are not.
fn ill_typed() -> Vec<Value> {
    let claims = honest::claims();
    let upper = |path: &str| {
        let text = claims.pointer(path).and_then(Value::as_str);
        json!(text.expect("a digest is text").to_uppercase())
    };
    let changes = [
        ("v is text", "v", json!("1"), "jws_claims"),
        ("v is negative", "v", json!(-1), "jws_claims"),
        ("v is a fraction", "v", json!(1.0), "jws_claims"),
        ("v is 0", "v", json!(0), "receipt_version"),
        ("seq is a fraction", "seq", json!(5.0), "jws_claims"),
        ("seq is negative", "seq", json!(-5), "jws_claims"),
        ("seq is text", "seq", json!("5"), "jws_claims"),
        (
            "seq beyond 2^53 - 1",
            "seq",
            json!(1_u64 << 53),
            "jws_claim_value",
        ),
        (
            "to_ms beyond 2^53 - 1",
            "to_ms",
            json!(u64::MAX),
            "jws_claim_value",
        ),
        (
            "part beyond 2^32 - 1",
            "part",
            json!(1_u64 << 32),
            "jws_claims",
        ),
        ("prev is null", "prev", Value::Null, "jws_claim_value"),
        ("sub is null", "sub", Value::Null, "jws_claim_value"),
        (
            "sampling is null",
            "sampling",
            Value::Null,
            "jws_claim_value",
        ),
        (
            "a header is null",
            "input/request/headers/content-type",
            Value::Null,
            "jws_claim_value",
        ),
        (
            "salt in upper case",
            "salt",
            json!("ABCDEF0123456789ABCDEF0123456789"),
            "jws_claims",
        ),
        ("salt too short", "salt", json!("00"), "jws_claims"),
        ("cred in upper case", "cred", upper("/cred"), "jws_claims"),
        (
            "jti without its prefix",
            "jti",
            json!("0".repeat(32)),
            "jws_claims",
        ),
        ("job of another form", "job", json!("1"), "jws_claims"),
        ("iss isn't a DID", "iss", json!("job"), "jws_claims"),
        (
            "finish isn't known",
            "output",
            json!([{ "text_sha256": "0".repeat(64), "tokens_sha256": "0".repeat(64), "tokens": 0, "finish": "eos" }]),
            "jws_claims",
        ),
        ("output is an object", "output", json!({}), "jws_claims"),
        ("seed is a number", "sampling/seed", json!(1), "jws_claims"),
        (
            "seed with leading zeros",
            "sampling/seed",
            json!("01"),
            "jws_claims",
        ),
        (
            "seed beyond 2^64 - 1",
            "sampling/seed",
            json!("18446744073709551616"),
            "jws_claims",
        ),
        (
            "seed_by isn't known",
            "sampling/seed_by",
            json!("provider"),
            "jws_claims",
        ),
        ("an unknown claim", "ext", json!({}), "jws_claims"),
        (
            "exp of ordinary JWTs",
            "exp",
            json!(honest::NOW_S + 60),
            "jws_claims",
        ),
        (
            "an unknown member of input",
            "input/extra",
            json!(1),
            "jws_claims",
        ),
        (
            "an unknown member of input.request",
            "input/request/extra",
            json!(1),
            "jws_claims",
        ),
        (
            "an unknown member of model",
            "model/extra",
            json!(1),
            "jws_claims",
        ),
        (
            "an unknown member of sampling",
            "sampling/grammar",
            json!("x"),
            "jws_claims",
        ),
        (
            "an unknown member of numerics",
            "numerics/extra",
            json!(1),
            "jws_claims",
        ),
    ];
    changes
        .into_iter()
        .map(|(name, path, value, code)| signed_wrong(name, code, &set(&claims, path, Some(value))))
        .collect()
}

/// Claims that contradict one another, signed by the right key.
fn contradictory() -> Vec<Value> {
    let claims = honest::claims();
    let with = |path: &str, value: Value| set(&claims, path, Some(value));
    let without = |path: &str| set(&claims, path, None);
    let output = claims["output"][0].clone();
    let no_client = set(
        &set(&without("sub"), "input/request/signature", None),
        "input/request/signature_input",
        None,
    );
    let open = {
        let mut open = claims.clone();
        open["output"][0]["finish"] = json!("open");
        open
    };
    vec![
        signed_wrong("another version", "receipt_version", &with("v", json!(2))),
        signed_wrong(
            "another domain",
            "receipt_domain",
            &with("domain", json!("text/2")),
        ),
        signed_wrong(
            "calls without a grammar",
            "receipt_domain",
            &with("domain", json!("text+calls/1")),
        ),
        signed_wrong(
            "a grammar with tools for a text",
            "receipt_domain",
            &with("sampling/grammar", json!("tools/llguidance-1.9")),
        ),
        signed_wrong("prev missing", "receipt_sequence", &without("prev")),
        signed_wrong(
            "prev in the first",
            "receipt_sequence",
            &with("seq", json!(0)),
        ),
        signed_wrong(
            "ends before it begins",
            "receipt_times",
            &with("to_ms", json!(honest::NOW_S * 1000)),
        ),
        signed_wrong(
            "a client's signature without sub",
            "receipt_subject",
            &without("sub"),
        ),
        signed_wrong(
            "sub without signature_input",
            "receipt_subject",
            &without("input/request/signature_input"),
        ),
        signed_wrong(
            "sub without signature",
            "receipt_subject",
            &without("input/request/signature"),
        ),
        signed_wrong("covered headers without sub", "receipt_subject", &no_client),
        signed_wrong(
            "two outputs for one choice",
            "receipt_choices",
            &with("output", json!([output, output])),
        ),
        signed_wrong("no output", "receipt_choices", &with("output", json!([]))),
        signed_wrong(
            "no choice",
            "receipt_choices",
            &with("sampling/n", json!(0)),
        ),
        signed_wrong(
            "two outputs without sampling",
            "receipt_choices",
            &set(&with("output", json!([output, output])), "sampling", None),
        ),
        signed_wrong(
            "a checkpoint that ended",
            "receipt_part",
            &with("part", json!(1)),
        ),
        signed_wrong("open without a checkpoint", "receipt_part", &open),
        signed_wrong(
            "iss of another job",
            "receipt_issuer",
            &with("iss", json!(did(OTHER_JOB))),
        ),
    ]
}
