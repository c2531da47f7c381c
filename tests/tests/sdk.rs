//! Programs that aren't ours against the gateway: the OpenAI SDKs as they
//! are, ordinary JOSE libraries over the receipts, RFC 9421 signers.
//!
//! The scripts are in `tests/python` and `tests/node`; they print what they
//! have checked, and end with 0 only if all of it held.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;
use tests::up::Up;
use tests::workspace::{node, python};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// Takes unsigned requests, as SDKs send them.
fn open() -> &'static Up {
    static UP: OnceLock<Up> = OnceLock::new();
    UP.get_or_init(|| Up::start(BINARY))
}

/// Signs checkpoints all the time.
fn stating() -> &'static Up {
    static UP: OnceLock<Up> = OnceLock::new();
    UP.get_or_init(|| {
        let data = TempDir::with_prefix("countersign-").unwrap().keep();
        let often = ["--checkpoint-tokens", "2"];
        Up::with(BINARY, &data, &often).unwrap_or_else(|ended| panic!("{ended:?}"))
    })
}

/// Takes requests signed by one key only, which `countersign key` made.
struct Strict {
    up: Up,
    key: PathBuf,
    _data: TempDir,
}

fn strict() -> &'static Strict {
    static STRICT: OnceLock<Strict> = OnceLock::new();
    STRICT.get_or_init(|| {
        let data = TempDir::with_prefix("countersign-").unwrap();
        let key = data.path().join("key.pem");
        let made = Command::new(BINARY)
            .args(["key", "new"])
            .arg(&key)
            .output()
            .unwrap();
        let did = String::from_utf8(made.stdout).unwrap();
        let more = ["--require-signed", "--allow-did", did.trim()];
        let up = Up::with(BINARY, data.path(), &more).unwrap_or_else(|ended| panic!("{ended:?}"));
        Strict {
            up,
            key,
            _data: data,
        }
    })
}

fn passes(mut script: Command) {
    let told = script.output().expect("the script runs");
    let stdout = String::from_utf8_lossy(&told.stdout);
    println!("{stdout}");
    assert!(
        told.status.success(),
        "{stdout}\n{}",
        String::from_utf8_lossy(&told.stderr)
    );
    assert!(
        stdout.lines().any(|line| line.starts_with("ok ")),
        "it checked something"
    );
}

fn against(mut script: Command, up: &Up) {
    script.arg(up.base()).arg(&up.gateway);
    passes(script);
}

fn signed_against(mut script: Command, strict: &Strict) {
    script
        .arg(strict.up.base())
        .arg(&strict.up.gateway)
        .arg(&strict.key);
    passes(script);
}

#[test]
fn openai_for_python() {
    against(python("openai_sdk.py"), open());
}

#[test]
fn openai_for_node() {
    against(node("openai_sdk.mjs"), open());
}

#[test]
fn openai_for_python_with_checkpoints() {
    against(python("openai_sdk.py"), stating());
}

#[test]
fn openai_for_node_with_checkpoints() {
    against(node("openai_sdk.mjs"), stating());
}

#[test]
fn http_message_signatures_for_python() {
    signed_against(python("foreign_signer.py"), strict());
}

#[test]
fn http_message_signatures_for_node() {
    signed_against(node("foreign_signer.mjs"), strict());
}

#[test]
fn vectors_for_python() {
    passes(python("vectors.py"));
}

#[test]
fn vectors_for_node() {
    passes(node("vectors.mjs"));
}
