//! Programs that aren't ours against the gateway: the OpenAI SDKs as they
//! are, ordinary JOSE libraries over the receipts, RFC 9421 signers.
//!
//! The scripts are in `tests/python` and `tests/node`; they print what they
//! have checked, and end with 0 only if all of it held.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

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

/// Takes signed requests only.
fn strict() -> &'static Up {
    static UP: OnceLock<(Up, TempDir)> = OnceLock::new();
    let (up, _) = UP.get_or_init(|| {
        let data = TempDir::with_prefix("countersign-").unwrap();
        let up = Up::with(BINARY, data.path(), &["--require-signed"])
            .unwrap_or_else(|ended| panic!("{ended:?}"));
        (up, data)
    });
    up
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

#[test]
fn openai_for_python() {
    against(python("openai_sdk.py"), open());
}

#[test]
fn openai_for_node() {
    against(node("openai_sdk.mjs"), open());
}

#[test]
fn http_message_signatures_for_python() {
    against(python("foreign_signer.py"), strict());
}

#[test]
fn http_message_signatures_for_node() {
    against(node("foreign_signer.mjs"), strict());
}

#[test]
fn vectors_for_python() {
    passes(python("vectors.py"));
}

#[test]
fn vectors_for_node() {
    passes(node("vectors.mjs"));
}
