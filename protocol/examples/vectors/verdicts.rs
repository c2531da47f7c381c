//! `verdicts.json`: what an auditor says of a receipt, right and wrong.

use protocol::Digest;
use protocol::verdict::{Fault, Finding, Ids, Lane, Replay, Replayed, TYP, Verdict, Word};
use serde_json::{Value, json};

use super::forge::{claims_of, did, header, invalid, jws, key, set, valid, with_signature};
use super::honest::{self, AUDITOR, OTHER_CLIENT};

const ABOUT: &str = "docs/spec/verdict.md: a reader who wants the word of `auditor` reads `compact`. \
    `error` is null, or the code that the first failing rule gives.";

pub fn file() -> String {
    let common = json!({ "auditor": did(AUDITOR) });
    super::file(ABOUT, common, cases())
}

fn matching() -> Verdict {
    Verdict {
        v: 1,
        iss: did(AUDITOR),
        receipt: Digest::of(b"a.receipt.jws"),
        at_ms: honest::NOW.plus_ms(86_400_000),
        verdict: Word::Match,
        fault: None,
        lane: Some(Lane::Exact),
        replay: Some(Replay {
            profile: "exact/1".to_owned(),
            verifier: "countersign/0.1.0".to_owned(),
            choices: vec![replayed(Ids::Text, 0)],
        }),
        findings: Vec::new(),
    }
}

fn replayed(ids: Ids, differing: u32) -> Replayed {
    Replayed {
        ids,
        tokens: 12,
        differing,
    }
}

fn finding(check: &str, says: &str) -> Finding {
    Finding {
        check: check.to_owned(),
        says: says.to_owned(),
        choice: None,
        position: None,
        claimed: None,
        expected: None,
        margin: None,
        excluded: None,
    }
}

fn mismatch() -> Verdict {
    let token = Finding {
        choice: Some(1),
        position: Some(41),
        claimed: Some("198".to_owned()),
        expected: Some("260".to_owned()),
        margin: Some(0.625),
        ..finding("token", "another token is drawn at this position")
    };
    Verdict {
        verdict: Word::Mismatch,
        replay: Some(Replay {
            choices: vec![replayed(Ids::Response, 0), replayed(Ids::Drawn, 7)],
            ..matching().replay.expect("a match has one")
        }),
        findings: vec![token],
        ..matching()
    }
}

fn excluded() -> Verdict {
    let mut verdict = mismatch();
    verdict.findings[0].margin = None;
    verdict.findings[0].excluded = Some("top_p".to_owned());
    verdict
}

fn without_replay(verdict: Word, fault: Option<Fault>, check: &str) -> Verdict {
    Verdict {
        verdict,
        fault,
        lane: None,
        replay: None,
        findings: vec![finding(check, "that is how it is")],
        ..matching()
    }
}

fn signed(verdict: Verdict) -> Value {
    json!({ "compact": verdict.sign(&key(AUDITOR)).compact() })
}

fn cases() -> Vec<Value> {
    let honest = matching().sign(&key(AUDITOR)).compact().to_owned();
    let claims = claims_of(&honest);
    let wrong = |name: &str, code: &str, compact: String| {
        invalid(name, code, json!({ "compact": compact }))
    };
    let with = |name: &str, value: Option<Value>| {
        let changed = set(&claims, name, value);
        jws(&header(TYP, AUDITOR), &changed, AUDITOR)
    };
    let foreign = set(&claims, "iss", Some(json!(did(OTHER_CLIENT))));
    let (message, _) = honest.rsplit_once('.').expect("three parts");
    let signature = key(AUDITOR).sign(message.as_bytes());
    let tolerated = Verdict {
        verdict: Word::Tolerated,
        lane: Some(Lane::Tolerant),
        ..matching()
    };
    let faults = [
        (Fault::Client, "client"),
        (Fault::Job, "job"),
        (Fault::Provider, "provider"),
        (Fault::Gateway, "gateway"),
        (Fault::Auditor, "auditor"),
    ];
    let mut cases = vec![
        valid("a match", json!({ "compact": honest })),
        valid("a mismatch of one token", signed(mismatch())),
        valid("a mismatch of one excluded token", signed(excluded())),
        valid("a difference within the tolerance", signed(tolerated)),
        valid(
            "a malformed receipt",
            signed(without_replay(Word::Malformed, None, "numerics")),
        ),
        valid(
            "a mismatch without a replay",
            signed(without_replay(Word::Mismatch, None, "sampling")),
        ),
    ];
    cases.extend(faults.into_iter().map(|(fault, name)| {
        let verdict = without_replay(Word::Unverifiable, Some(fault), "model");
        valid(
            format!("unverifiable by the {name}'s fault"),
            signed(verdict),
        )
    }));
    let token = json!([{ "check": "token", "says": "no" }]);
    cases.extend([
        wrong(
            "another auditor's",
            "verdict_auditor",
            jws(&header(TYP, OTHER_CLIENT), &foreign, OTHER_CLIENT),
        ),
        wrong(
            "kid of another auditor",
            "verdict_issuer",
            jws(&header(TYP, OTHER_CLIENT), &claims, OTHER_CLIENT),
        ),
        wrong(
            "signed by another key",
            "jws_signature",
            jws(&header(TYP, AUDITOR), &claims, OTHER_CLIENT),
        ),
        wrong(
            "typ of a receipt",
            "jws_typ",
            jws(
                &header("countersign-receipt+jwt", AUDITOR),
                &claims,
                AUDITOR,
            ),
        ),
        wrong(
            "another version",
            "verdict_version",
            with("v", Some(json!(2))),
        ),
        wrong(
            "an unknown claim",
            "jws_claims",
            with("score", Some(json!(1))),
        ),
        wrong(
            "an unknown word",
            "jws_claims",
            with("verdict", Some(json!("fine"))),
        ),
        wrong(
            "fault is null",
            "jws_claim_value",
            with("fault", Some(Value::Null)),
        ),
        wrong(
            "a match with a fault",
            "verdict_fault",
            with("fault", Some(json!("job"))),
        ),
        wrong(
            "unverifiable without a fault",
            "verdict_fault",
            with("verdict", Some(json!("unverifiable"))),
        ),
        wrong("a match without a lane", "verdict_lane", with("lane", None)),
        wrong(
            "a match without a replay",
            "verdict_lane",
            with("replay", None),
        ),
        wrong(
            "a match on the tolerant lane",
            "verdict_lane",
            with("lane", Some(json!("tolerant"))),
        ),
        wrong(
            "tolerated on the exact lane",
            "verdict_lane",
            with("verdict", Some(json!("tolerated"))),
        ),
        wrong(
            "a match with a finding",
            "verdict_findings",
            with("findings", Some(token)),
        ),
        wrong(
            "a mismatch without a finding",
            "verdict_findings",
            with("verdict", Some(json!("mismatch"))),
        ),
    ]);
    let changes = [
        ("receipt", json!("0".repeat(64))),
        ("at_ms", json!(1)),
        ("replay/profile", json!("exact/2")),
    ];
    cases.extend(changes.into_iter().map(|(name, value)| {
        let changed = with_signature(&with(name, Some(value)), &signature);
        wrong(
            &format!("{name} changed after signing"),
            "jws_signature",
            changed,
        )
    }));
    cases
}
