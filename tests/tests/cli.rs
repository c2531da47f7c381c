//! The command line where no model is needed: what is refused before anything
//! happens, what is told, and what is left on disk.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tests::evil::{EvilGateway, MODEL, Trick};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");
const ANSWER: &str = "The sky is blue.";

/// A home with a key in it, where `chat` finds it unasked.
struct Home(TempDir);

struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        let home = Self(TempDir::with_prefix("countersign-").unwrap());
        fs::create_dir(home.path().join("keys")).unwrap();
        home.run(&["key", "new", &home.file("keys/client.pem")])
            .succeeds();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    fn known(&self) -> PathBuf {
        self.path().join("known-gateways.toml")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(words)
            .env("COUNTERSIGN_HOME", self.path())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().expect("the binary runs"))
    }

    fn chat(&self, gateway: &EvilGateway, more: &[&str]) -> Ran {
        let url = format!("http://{}", gateway.address);
        self.run(&[&["chat", "--url", &url], more, &["Why is the sky blue?"]].concat())
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().expect("it wasn't killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn succeeds(&self) -> &Self {
        assert_eq!(self.status, 0, "{}", self.stderr);
        self
    }

    #[track_caller]
    fn fails_with(&self, words: &[&str]) -> &Self {
        assert_ne!(self.status, 0, "{}", self.stdout);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word} isn't in {}",
                self.stderr
            );
        }
        self
    }
}

#[test]
fn bad_settings_are_told_together_and_nothing_is_touched() {
    let home = TempDir::with_prefix("countersign-").unwrap();
    let data = home.path().join("data");
    let told = Command::new(BINARY)
        .args([
            "up", "--http", "here", "--admin", "there", "--model", "gpt-5",
        ])
        .args([
            "--allow-did",
            "did:key:me",
            "--require-signed",
            "--allow-unsigned",
        ])
        .arg("--data")
        .arg(&data)
        .output()
        .unwrap();
    Ran::of(told).fails_with(&["--http", "--admin", "--model", "--allow-did", "contradict"]);
    assert!(!data.exists(), "no folder, no lock, no key");
}

#[test]
fn every_command_explains_itself() {
    for words in [
        &[][..],
        &["up"],
        &["chat"],
        &["key"],
        &["key", "new"],
        &["key", "show"],
        &["receipt"],
        &["receipt", "show"],
        &["receipt", "verify"],
        &["model"],
        &["model", "list"],
        &["model", "fetch"],
    ] {
        let told = Command::new(BINARY).args(words).arg("--help").output();
        let told = Ran::of(told.unwrap());
        assert!(
            told.succeeds().stdout.contains("Usage: countersign"),
            "{words:?}"
        );
    }
}

#[test]
fn a_first_use_is_told_once_and_kept() {
    let gateway = EvilGateway::start();
    let home = Home::new();
    let did = gateway.gateway().to_string();
    let first = home.chat(&gateway, &[]);
    let told = &first.succeeds().stderr;
    assert!(told.contains("first use") && told.contains(&did), "{told}");
    let kept = fs::read_to_string(home.known()).unwrap();
    assert!(kept.contains(&did) && kept.contains(MODEL), "{kept}");

    let second = home.chat(&gateway, &[]);
    assert_eq!(
        second.succeeds().stderr.lines().count(),
        1,
        "{}",
        second.stderr
    );
    assert_eq!(fs::read_to_string(home.known()).unwrap(), kept);
}

#[test]
fn nothing_is_kept_of_a_gateway_whose_first_answer_fails() {
    let gateway = EvilGateway::start();
    gateway.play(Trick::FlipCharacter);
    let home = Home::new();
    home.chat(&gateway, &[])
        .fails_with(&["NOT VERIFIED: text: "]);
    assert!(!home.known().exists());
}

#[test]
fn a_given_key_needs_no_memory_and_leaves_none() {
    let gateway = EvilGateway::start();
    let home = Home::new();
    let trust = gateway.gateway().to_string();
    let said = home.chat(&gateway, &["--trust", &trust]);
    assert!(
        !said.succeeds().stderr.contains("the gateway at"),
        "{}",
        said.stderr
    );
    let kept = fs::read_to_string(home.known()).unwrap();
    assert!(!kept.contains(&gateway.address.to_string()), "{kept}");
}

#[test]
fn a_pipe_gets_the_answer_and_nothing_else() {
    let gateway = EvilGateway::start();
    let home = Home::new();
    let said = home.chat(&gateway, &["--model", MODEL]);
    assert_eq!(said.succeeds().stdout, ANSWER);
}

#[test]
fn the_prompt_may_come_from_stdin() {
    let gateway = EvilGateway::start();
    let home = Home::new();
    let url = format!("http://{}", gateway.address);
    let saved = home.file("saved");
    let mut child = home
        .command(&["chat", "--url", &url, "--save", &saved])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all("Grüße\n".as_bytes()).unwrap();
    drop(stdin);
    Ran::of(child.wait_with_output().unwrap()).succeeds();
    let request = fs::read_to_string(home.path().join("saved/request.json")).unwrap();
    assert!(request.contains(r#""content":"Grüße\n""#), "{request}");

    home.run(&["chat", "--url", &url])
        .fails_with(&["the prompt is empty"]);
}

#[test]
fn an_answer_that_fails_is_saved_as_evidence() {
    let gateway = EvilGateway::start();
    gateway.play(Trick::FlipCharacter);
    let home = Home::new();
    let folder = home.file("evidence");
    home.chat(&gateway, &["--save", &folder])
        .fails_with(&["text"]);
    let about = fs::read_to_string(home.path().join("evidence/answer.json")).unwrap();
    assert!(about.contains(r#""failed_check": "text""#), "{about}");
    let mode = fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "prompts are nobody else's");

    // A folder with something in it is refused before anything is asked.
    let answer = fs::read(home.path().join("evidence/output.txt")).unwrap();
    let again = home.chat(&gateway, &["--save", &folder]);
    assert!(again.fails_with(&["exists already"]).stdout.is_empty());
    assert_eq!(
        fs::read(home.path().join("evidence/output.txt")).unwrap(),
        answer
    );
}

#[test]
fn what_cannot_be_asked_says_why() {
    let home = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    home.run(&["chat", "--url", &nobody, "hi"])
        .fails_with(&[&nobody, "refused"]);
    home.run(&["chat", "--url", "https://example.org", "hi"])
        .fails_with(&["http://"]);
    home.run(&[
        "chat",
        "--url",
        &nobody,
        "--key",
        &home.file("none.pem"),
        "hi",
    ])
    .fails_with(&["none.pem"]);
    Home(TempDir::with_prefix("countersign-").unwrap())
        .run(&["chat", "--url", &nobody, "hi"])
        .fails_with(&["key new"]);
    let gateway = EvilGateway::start();
    home.chat(&gateway, &["--temperature", "9"])
        .fails_with(&["temperature"]);

    let key = home.file("keys/client.pem");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    home.chat(&gateway, &[])
        .fails_with(&["client.pem", "0640", "chmod 600"]);
}

#[test]
fn receipts_are_read_and_checked_offline() {
    let gateway = EvilGateway::start();
    let home = Home::new();
    home.chat(&gateway, &["--save", &home.file("saved")])
        .succeeds();
    let receipt = home.file("saved/receipt.jws");
    let verify = |home: &Home, receipt: &str, more: &[&str]| {
        let files = [
            "--request",
            &home.file("saved/request.json"),
            "--output",
            &home.file("saved/output.txt"),
            "--chain",
            &home.file("saved/chain.json"),
        ];
        home.run(&[&["receipt", "verify", receipt], &files[..], more].concat())
    };
    // The gateway is known from the chat.
    assert!(
        verify(&home, &receipt, &[])
            .succeeds()
            .stdout
            .starts_with("verified ")
    );
    let stranger = EvilGateway::start().gateway().to_string();
    verify(&home, &receipt, &["--trust", &stranger]).fails_with(&["NOT VERIFIED: gateway_key: "]);
    fs::remove_file(home.known()).unwrap();
    verify(&home, &receipt, &[]).fails_with(&["--trust"]);

    let shown = home.run(&["receipt", "show", &receipt]);
    let claims: serde_json::Value = serde_json::from_str(&shown.succeeds().stdout).unwrap();
    assert_eq!(claims["model"]["id"], MODEL);
    assert!(shown.stderr.contains("not checked"), "{}", shown.stderr);

    let garbage = home.file("garbage");
    fs::write(&garbage, "a.b.c").unwrap();
    home.run(&["receipt", "show", &garbage])
        .fails_with(&["garbage isn't a receipt"]);
    verify(&home, &garbage, &["--trust", &stranger]).fails_with(&["NOT VERIFIED: receipt: "]);
    verify(&home, &home.file("absent"), &[]).fails_with(&["absent"]);
}
