//! `countersign chat` against a gateway that cheats: it must not exit with 0,
//! and must say by name which check failed.
//!
//! The gateway's own honest answer is accepted first, or the rest would prove nothing.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use tempfile::TempDir;
use tests::evil::{EvilGateway, MODEL, Trick};

/// Somebody with a key, and a memory for gateways.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Self {
        let user = Self {
            home: TempDir::with_prefix("countersign-").unwrap(),
        };
        let made = user.countersign(&["key", "new", &user.key()]);
        assert!(made.status.success(), "{made:?}");
        user
    }

    fn key(&self) -> String {
        self.home
            .path()
            .join("key.pem")
            .to_str()
            .unwrap()
            .to_owned()
    }

    fn countersign(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(words)
            .env("COUNTERSIGN_HOME", self.home.path())
            .output()
            .expect("the binary runs")
    }

    fn chat(&self, gateway: &EvilGateway, more: &[&str]) -> Chat {
        let url = format!("http://{}", gateway.address);
        let key = self.key();
        let words = [
            "chat",
            "--url",
            &url,
            "--key",
            &key,
            "--model",
            MODEL,
            "--max-tokens",
            "16",
        ];
        let output = self.countersign(&[&words, more, &["Why is the sky blue?"]].concat());
        Chat {
            code: output.status.code().expect("it wasn't killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

struct Chat {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Chat {
    fn is_verified(&self) {
        assert_eq!(self.code, 0, "{}", self.stderr);
        assert_eq!(self.stdout.trim_end(), "The sky is blue.");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("verified "), "{}", self.stderr);
    }

    fn fails(&self, check: &str) {
        assert_ne!(self.code, 0, "accepted: {}", self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        let named = last.starts_with(&format!("NOT VERIFIED: {check}: "));
        assert!(named, "{check} isn't named in: {}", self.stderr);
    }

    fn says(&self, word: &str) {
        assert!(self.stderr.contains(word), "{}", self.stderr);
    }
}

/// An honest answer, then the trick, then (the gateway repents) an honest one again.
fn check(trick: Trick, check: &str) -> Chat {
    let gateway = EvilGateway::start();
    let user = User::new();
    user.chat(&gateway, &[]).is_verified();
    gateway.play(trick);
    let chat = user.chat(&gateway, &[]);
    println!(
        "{trick:?}: exit {}: {}",
        chat.code,
        chat.stderr.lines().last().unwrap_or_default()
    );
    chat.fails(check);
    if !matches!(trick, Trick::NewGatewayKey | Trick::OtherModel) {
        gateway.play(Trick::None);
        user.chat(&gateway, &[]).is_verified();
    }
    chat
}

#[test]
fn one_flipped_character() {
    check(Trick::FlipCharacter, "text");
}

#[test]
fn a_piece_of_text_left_out() {
    check(Trick::DropText, "text");
}

#[test]
fn a_cut_stream_proves_what_its_checkpoint_states() {
    let chat = check(Trick::BreakStated, "truncated");
    chat.says("checkpoint 1 proves the first 7 characters (2 tokens) of choice 0");
}

#[test]
fn a_checkpoint_of_another_text() {
    check(Trick::OtherCheckpoint, "checkpoint");
}

#[test]
fn the_last_chunk_left_out() {
    check(Trick::DropLastChunk, "truncated");
}

#[test]
fn a_broken_connection() {
    check(Trick::Break, "truncated");
}

#[test]
fn an_end_without_a_receipt() {
    check(Trick::NoReceipt, "no_receipt");
}

#[test]
fn another_clients_receipt_for_the_same_body() {
    check(Trick::OthersReceipt, "subject");
}

#[test]
fn an_old_receipt_for_the_same_body() {
    check(Trick::OldReceipt, "request");
}

#[test]
fn another_gateway_key_than_last_time() {
    check(Trick::NewGatewayKey, "gateway_key");
}

#[test]
fn a_job_that_nobody_vouches_for() {
    check(Trick::UnknownJobKey, "signature");
}

#[test]
fn a_receipt_that_nobody_signed() {
    check(Trick::AlgNone, "receipt");
}

#[test]
fn a_receipt_without_a_chain() {
    check(Trick::NoChain, "no_chain");
}

#[test]
fn another_receipt_in_the_store() {
    check(Trick::OtherStored, "stored");
}

#[test]
fn a_clock_five_minutes_off() {
    for shift in [300_000, -300_000] {
        check(Trick::JobClock(shift), "clock");
        check(Trick::GatewayClock(shift), "refused").says("signature_clock");
    }
}

#[test]
fn other_weights_than_last_time() {
    check(Trick::OtherModel, "model");
}

#[test]
fn other_arithmetic_than_promised() {
    check(Trick::OtherNumerics, "numerics");
}

#[test]
fn other_sampling_than_asked_for() {
    check(Trick::OtherTemperature, "sampling");
}

#[test]
fn a_seed_that_was_shopped_for() {
    check(Trick::ChosenSeed, "sampling");
}

#[test]
fn another_finish_than_signed() {
    check(Trick::OtherFinish, "finish");
}

#[test]
fn more_tokens_than_signed() {
    check(Trick::OtherUsage, "usage");
}

#[test]
fn another_prompt_than_sent() {
    check(Trick::OtherBody, "body");
}

#[test]
fn tokens_bound_to_nothing() {
    check(Trick::NoTrace, "trace");
}

#[test]
fn text_after_the_end() {
    check(Trick::MoreText, "response");
}

#[test]
fn a_gateway_key_that_the_user_knows_better() {
    let gateway = EvilGateway::start();
    let user = User::new();
    let right = gateway.gateway().to_string();
    user.chat(&gateway, &["--trust", &right]).is_verified();
    let wrong = EvilGateway::start().gateway().to_string();
    User::new()
        .chat(&gateway, &["--trust", &wrong])
        .fails("gateway_key");
}

#[test]
fn what_is_saved_verifies_later_and_not_after_a_change() {
    let gateway = EvilGateway::start();
    let user = User::new();
    let folder = user.home.path().join("saved");
    user.chat(&gateway, &["--save", folder.to_str().unwrap()])
        .is_verified();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let trust = gateway.gateway().to_string();
    let verify = || {
        user.countersign(&[
            "receipt",
            "verify",
            &file("receipt.jws"),
            "--request",
            &file("request.json"),
            "--output",
            &file("output.txt"),
            "--chain",
            &file("chain.json"),
            "--trust",
            &trust,
        ])
    };
    let held = verify();
    assert!(held.status.success(), "{held:?}");
    let shown = user.countersign(&["receipt", "show", &file("receipt.jws")]);
    assert!(
        String::from_utf8(shown.stdout)
            .unwrap()
            .contains("countersign"),
        "it shows the claims"
    );
    for name in ["output.txt", "request.json", "receipt.jws", "chain.json"] {
        let before = std::fs::read(file(name)).unwrap();
        let mut changed = before.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(file(name), &changed).unwrap();
        let refused = verify();
        assert!(
            !refused.status.success(),
            "{name} was changed, and verifies: {refused:?}"
        );
        std::fs::write(file(name), &before).unwrap();
    }
    assert!(verify().status.success());
}
