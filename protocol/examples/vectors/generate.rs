//! The vectors: everything in `protocol/vectors/`, made from fixed seeds.
//!
//! Shared by the example that writes them and the test that compares. What is
//! invalid is forged here by hand, without the code that it tests.

use protocol::SigningKey;
use serde_json::{Value, json};

mod admissions;
mod calls;
mod credentials;
mod forge;
mod honest;
mod plain;
mod receipt_claims;
mod receipt_context;
mod receipt_form;
mod receipts;
mod request_line;
mod requests;
mod verdicts;

/// Every file: its name and its text.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("keys.json", pretty(&keys())),
        (
            "json.json",
            file(plain::JSON, json!({}), plain::json_texts()),
        ),
        ("dids.json", file(plain::DIDS, json!({}), plain::dids())),
        ("seeds.json", file(plain::SEEDS, json!({}), plain::seeds())),
        (
            "manifests.json",
            file(plain::MANIFESTS, json!({}), plain::manifests()),
        ),
        ("credentials.json", credentials::file()),
        ("admissions.json", admissions::file()),
        ("receipts.json", receipts::file()),
        ("request-signatures.json", requests::file()),
        ("request-lines.json", request_line::file()),
        ("verdicts.json", verdicts::file()),
        (
            "grammars.json",
            file(calls::GRAMMARS, json!({}), calls::grammars()),
        ),
        ("calls.json", file(calls::CALLS, json!({}), calls::calls())),
    ]
}

/// A file of cases; a case's members override those in `common`.
fn file(about: &str, common: Value, cases: Vec<Value>) -> String {
    pretty(&json!({ "about": about, "common": common, "cases": cases }))
}

fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).expect("a value is plain data");
    text + "\n"
}

/// The keys that the cases use. They are public: never use them.
fn keys() -> Value {
    let key = |name: &str, byte: u8| {
        let seed: String = forge::hex(&[byte; 32]);
        let did = SigningKey::from_seed([byte; 32]).did();
        json!({ "name": name, "seed": seed, "did": did })
    };
    let keys = [
        key("gateway", honest::GATEWAY),
        key("job", honest::JOB),
        key("client", honest::CLIENT),
        key("other gateway", honest::OTHER_GATEWAY),
        key("other job", honest::OTHER_JOB),
        key("other client", honest::OTHER_CLIENT),
        key("auditor", honest::AUDITOR),
    ];
    json!({
        "about": "The Ed25519 keys of the cases, by their seeds. They are public: never use them.",
        "keys": keys,
    })
}
