//! Every vector in `protocol/vectors/` gives what it says, and all of them are
//! those that the generator makes.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use protocol::admission::SignedAdmission;
use protocol::api::{self, Limits};
use protocol::calls::{self, CallText};
use protocol::credential::Chain;
use protocol::manifest::Manifest;
use protocol::receipt::{RequestLine, SignedReceipt, VerifiedReceipt};
use protocol::request_signature::{Policy, RequestHead, recheck, verify};
use protocol::verdict::SignedVerdict;
use protocol::{Did, Digest, JobId, RequestId, SigningKey, UnixMs, json, sampling};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[path = "../examples/vectors/generate.rs"]
mod generate;

/// What a reader makes of a case: nothing to object to, or a code.
type Outcome = Result<(), &'static str>;

type Reader = fn(&Case) -> Outcome;

/// Which reader reads which file's cases.
const READERS: [(&str, Reader); 12] = [
    ("json.json", read_json),
    ("dids.json", read_did),
    ("seeds.json", read_seed),
    ("manifests.json", read_manifest),
    ("credentials.json", read_chain),
    ("admissions.json", read_admission),
    ("receipts.json", read_receipt),
    ("request-signatures.json", read_request),
    ("request-lines.json", read_request_line),
    ("verdicts.json", read_verdict),
    ("grammars.json", read_grammar),
    ("calls.json", read_calls),
];

/// A case with what all of its file have in common.
struct Case(Map<String, Value>);

impl Case {
    fn get<T: DeserializeOwned>(&self, name: &str) -> T {
        let value = self.0.get(name).cloned().unwrap_or_default();
        serde_json::from_value(value).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn text(&self, name: &str) -> String {
        self.get(name)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[test]
fn every_vector_gives_what_it_says() {
    let mut wrong = Vec::new();
    for (file, read) in READERS {
        for case in cases(file) {
            let expected: Option<String> = case.get("error");
            let actual = read(&case).err();
            if actual != expected.as_deref() {
                let name = case.text("name");
                wrong.push(format!("{file}: {name}: {actual:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_is_read() {
    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known = READERS.iter().map(|(file, _)| (*file).to_owned());
    let known: BTreeSet<String> = known
        .chain(["keys.json".to_owned(), "README.md".to_owned()])
        .collect();
    assert_eq!(there, known);
}

#[test]
fn the_generator_makes_these_bytes() {
    for (name, text) in generate::files() {
        assert!(
            fs::read_to_string(folder().join(name)).unwrap() == text,
            "{name} isn't what `cargo run -p protocol --example vectors` writes"
        );
    }
}

#[test]
fn names_are_used_once_and_invalid_ones_abound() {
    let mut invalid = BTreeMap::new();
    for (file, _) in READERS {
        let mut names = BTreeSet::new();
        for case in cases(file) {
            let name = case.text("name");
            assert!(names.insert(name.clone()), "{file}: {name} twice");
            *invalid.entry(file).or_insert(0) += usize::from(!case.0["error"].is_null());
        }
    }
    assert!(invalid["receipts.json"] > 100, "{invalid:?}");
    assert!(invalid["request-signatures.json"] > 80, "{invalid:?}");
}

#[test]
fn the_keys_are_those_of_their_seeds() {
    for key in file("keys.json")["keys"].as_array().unwrap() {
        let seed = bytes(key["seed"].as_str().unwrap());
        let did = SigningKey::from_seed(seed.try_into().unwrap()).did();
        assert_eq!(key["did"], did.to_string());
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn file(name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder().join(name)).unwrap()).unwrap()
}

fn cases(name: &str) -> Vec<Case> {
    let file = file(name);
    let common = file["common"].as_object().unwrap();
    let case = |case: &Value| {
        let mut members = common.clone();
        members.extend(case.as_object().unwrap().clone());
        Case(members)
    };
    file["cases"].as_array().unwrap().iter().map(case).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn read_json(case: &Case) -> Outcome {
    json::parse(&bytes(&case.text("hex")))
        .map(|_| ())
        .map_err(|error| error.code())
}

fn read_did(case: &Case) -> Outcome {
    let did: Did = case
        .text("did")
        .parse()
        .map_err(|error: protocol::did::DidError| error.code())?;
    assert_eq!(did.as_bytes()[..], bytes(&case.text("key")));
    Ok(())
}

fn read_seed(case: &Case) -> Outcome {
    let body = Digest::of(case.text("body").as_bytes());
    let seed = sampling::seed_from_nonce(case.text("nonce").as_bytes(), &body);
    assert_eq!(seed.to_string(), case.text("seed"));
    Ok(())
}

fn read_manifest(case: &Case) -> Outcome {
    let manifest = Manifest::parse(&case.text("toml")).map_err(|error| error.code())?;
    assert_eq!(manifest.digest(), case.get("digest"));
    Ok(())
}

fn read_chain(case: &Case) -> Outcome {
    let chain: Chain = case.get("chain");
    let gateway: Did = case.get("gateway");
    chain
        .verify(&gateway)
        .map(|_| ())
        .map_err(|error| error.code())
}

fn read_admission(case: &Case) -> Outcome {
    let query: Option<String> = case.get("query");
    let head = RequestHead {
        method: &case.text("method"),
        authority: &case.text("authority"),
        path: &case.text("path"),
        query: query.as_deref(),
        headers: &[],
    };
    let job: JobId = case.get("job");
    let body = Digest::of(case.text("body").as_bytes());
    SignedAdmission::parse(&case.text("admission"))
        .and_then(|admission| admission.verify(&case.get("gateway")))
        .and_then(|admission| admission.admits(&job, &head, &body))
        .map_err(|error| error.code())
}

fn read_receipt(case: &Case) -> Outcome {
    let chain: Chain = case.get("chain");
    let credential = chain
        .verify(&case.get("gateway"))
        .map_err(|error| error.code())?;
    let receipt = SignedReceipt::parse(&case.text("receipt"))
        .and_then(|receipt| receipt.verify(&credential))
        .map_err(|error| error.code())?;
    if let Some(request) = case.get::<Option<RequestLine>>("request") {
        let client: Option<Did> = case.get("client");
        let body = Digest::of(case.text("body").as_bytes());
        receipt
            .is_for(client.as_ref(), &request, &body)
            .map_err(|error| error.code())?;
    }
    let claims = receipt.claims();
    if let Some(client) = &claims.sub {
        recheck(&claims.input.request, &claims.input.body_sha256, client)
            .map_err(|error| error.code())?;
    }
    if case.has("output") {
        check_hashes(case, &receipt);
    }
    Ok(())
}

/// What the hashes of a valid receipt are over.
fn check_hashes(case: &Case, receipt: &VerifiedReceipt) {
    let claims = receipt.claims();
    let prompt: Vec<u32> = case.get("prompt_tokens");
    assert_eq!(
        claims.input.prompt_tokens_sha256,
        Digest::of_tokens(&prompt)
    );
    assert_eq!(claims.input.prompt_tokens as usize, prompt.len());
    let outputs: Vec<Value> = case.get("output");
    assert_eq!(claims.output.len(), outputs.len());
    for (claim, output) in claims.output.iter().zip(&outputs) {
        let tokens: Vec<u32> = serde_json::from_value(output["tokens"].clone()).unwrap();
        let text = output["text"].as_str().unwrap();
        assert_eq!(claim.text_sha256, Digest::of(text.as_bytes()));
        assert_eq!(claim.tokens_sha256, Digest::of_tokens(&tokens));
        assert_eq!(claim.tokens as usize, tokens.len());
    }
}

fn read_request(case: &Case) -> Outcome {
    let headers: Vec<(String, String)> = case.get("headers");
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    let query: Option<String> = case.get("query");
    let head = RequestHead {
        method: &case.text("method"),
        authority: &case.text("authority"),
        path: &case.text("path"),
        query: query.as_deref(),
        headers: &headers,
    };
    let authorities: Vec<String> = case.get("authorities");
    let policy = Policy {
        authorities: &authorities,
    };
    let body = case.text("body");
    let now: UnixMs = case.get("now_ms");
    let signature = verify(&head, body.as_bytes(), now, &policy).map_err(|error| error.code())?;
    assert_eq!(signature.is_some(), case.get::<bool>("signed"));
    let Some(signature) = signature else {
        return Ok(());
    };
    assert_eq!(signature.did, case.get("did"));
    let kept = recheck(&signature.line, &signature.body_sha256, &signature.did);
    assert_eq!(kept.as_ref(), Ok(&signature));
    if case.has("base") {
        assert_eq!(signature.line, case.get("request"));
        let bytes = signature_of(&signature.line);
        assert!(signature.did.verify(case.text("base").as_bytes(), &bytes));
    }
    Ok(())
}

fn signature_of(line: &RequestLine) -> [u8; 64] {
    use base64::Engine as _;
    let text = line.signature.as_deref().unwrap();
    let encoded = text.split(':').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
    bytes.unwrap().try_into().unwrap()
}

fn read_request_line(case: &Case) -> Outcome {
    recheck(
        &case.get("request"),
        &case.get("body_sha256"),
        &case.get("client"),
    )
    .map(|_| ())
    .map_err(|error| error.code())
}

fn read_verdict(case: &Case) -> Outcome {
    SignedVerdict::parse(&case.text("compact"))
        .and_then(|verdict| verdict.verify(&case.get("auditor")))
        .map(|_| ())
        .map_err(|error| error.code())
}

fn read_grammar(case: &Case) -> Outcome {
    let body = case.text("body");
    let ask = api::parse_chat(body.as_bytes(), &Limits::default()).map_err(|error| error.code())?;
    assert_eq!(ask.grammar(), case.get("grammar"));
    assert_eq!(ask.grammar_sha256(), case.get("grammar_sha256"));
    Ok(())
}

fn read_calls(case: &Case) -> Outcome {
    let (request, choice): (RequestId, u8) = (case.get("jti"), case.get("choice"));
    let found: Vec<Map<String, Value>> = case.get("calls");
    let member = |call: &'_ Map<String, Value>, name: &str| call[name].as_str().unwrap().to_owned();
    for (index, call) in (0u8..).zip(&found) {
        assert_eq!(calls::id(&request, choice, index), member(call, "id"));
    }
    let pairs: Vec<(String, String)> = found
        .iter()
        .map(|call| (member(call, "name"), member(call, "arguments")))
        .collect();
    let pairs = pairs
        .iter()
        .map(|(name, arguments)| (name.as_str(), arguments.as_str()));
    // A client makes the text of what it got, a job of what the model said.
    let text = case.text("text");
    assert_eq!(CallText::of(&case.text("content"), pairs), text);
    let mut said = CallText::default();
    assert_eq!(said.push(&case.text("said")) + &said.end(), text);
    assert_eq!(Digest::of(text.as_bytes()), case.get("text_sha256"));
    Ok(())
}
