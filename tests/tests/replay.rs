//! `countersign verify run`: no honest answer is called false, and each of
//! the ways to compute something else is named, from one answer.
//!
//! `COUNTERSIGN_HONEST_ANSWERS=1000` asks for more than the 60 honest answers that every run makes.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use models::{Level, Model, Options, Whitelist, fetch};
use protocol::Digest;
use protocol::manifest::Manifest;
use protocol::verdict::{SignedVerdict, Word};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::cheat::{Cheat, Job};
use tests::up::Up;
use tests::{gguf, honest, workspace};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// What `verify run --json` printed, and how it ended.
struct Audit {
    status: i32,
    report: Value,
    stderr: String,
}

/// `countersign verify run`, at home in `home`.
fn verify(home: &Path, dir: &Path, models: &Path, more: &[&str]) -> Output {
    Command::new(BINARY)
        .args(["verify", "run", "--dir"])
        .arg(dir)
        .arg("--models")
        .arg(models)
        .args(more)
        .env("COUNTERSIGN_HOME", home)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

impl Audit {
    fn of(dir: &Path, models: &Path, gateway: &str) -> Self {
        let home = TempDir::with_prefix("countersign-").unwrap();
        let ran = verify(home.path(), dir, models, &["--json", "--trust", gateway]);
        Audit {
            status: ran.status.code().expect("it wasn't killed"),
            report: serde_json::from_slice(&ran.stdout).unwrap_or_default(),
            stderr: String::from_utf8(ran.stderr).unwrap(),
        }
    }

    /// The entry of a folder, its verdict's signature checked.
    fn entry(&self, folder: &str) -> &Value {
        let entries = self.report["answers"].as_array().expect(&self.stderr);
        let named = |entry: &Value| entry["folder"].as_str().unwrap().to_owned();
        let here = |entry: &&Value| named(entry).ends_with(&format!("/{folder}"));
        let entry = entries.iter().find(here).expect("every folder is there");
        let signed = SignedVerdict::parse(entry["signed"].as_str().unwrap()).unwrap();
        let auditor = self.report["auditor"].as_str().unwrap().parse().unwrap();
        let verified = signed.verify(&auditor).unwrap();
        assert_eq!(
            serde_json::to_value(verified.claims()).unwrap(),
            entry["verdict"]
        );
        entry
    }

    fn verdict(&self, folder: &str) -> &Value {
        &self.entry(folder)["verdict"]
    }

    fn finding(&self, folder: &str, check: &str) -> &Value {
        let verdict = self.verdict(folder);
        let found = verdict["findings"].as_array().into_iter().flatten();
        found
            .rev()
            .find(|finding| finding["check"] == check)
            .unwrap_or_else(|| panic!("{folder}: no {check} in {verdict:#}"))
    }

    fn is(&self, folder: &str, word: Word) {
        let verdict = self.verdict(folder);
        assert_eq!(verdict["verdict"], word.as_str(), "{folder}: {verdict:#}");
    }
}

fn manifest() -> &'static Manifest {
    Whitelist::by_id("smollm2-135m-instruct").unwrap()
}

fn load(path: &Path, manifest: &Manifest) -> Model {
    let options = Options {
        threads: NonZeroUsize::new(2).unwrap(),
        level: Level::detect(),
        kv_tokens: 2048,
    };
    Model::load(path, manifest, &options).unwrap()
}

/// The model that is on the whitelist.
fn honest_model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load(&fetch::path(manifest(), &workspace::models()), manifest()))
}

/// Another file, which its own manifest admits; nobody else does.
fn other_model(change: impl Fn(&[u8]) -> Vec<u8>) -> Model {
    let file = fs::read(fetch::path(manifest(), &workspace::models())).unwrap();
    let changed = change(&file);
    let mut other = manifest().clone();
    other.identity.weights_sha256 = Digest::of(&changed);
    let folder = TempDir::with_prefix("countersign-").unwrap();
    let path = folder.path().join("other.gguf");
    fs::write(&path, &changed).unwrap();
    load(&path, &other)
}

/// A question under parameters of its own.
fn question(number: usize, more: Value) -> Value {
    let questions = [
        "Why is the sky blue?",
        "Write two sentences about a small boat.",
        "Name three fruits, and say which is best.",
    ];
    let mut body = json!({
        "model": manifest().identity.id,
        "messages": [{"role": "user", "content": questions[number % questions.len()]}],
        "max_tokens": 32,
    });
    let members = body.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    body
}

/// Sampling under which each cheat is tried: with and without ids, likely and wild.
fn settings() -> Vec<Value> {
    vec![
        json!({"return_token_ids": true, "ignore_eos": true}),
        json!({"temperature": 0.7, "top_p": 0.9, "seed": 7, "ignore_eos": true}),
        json!({"temperature": 1.2, "top_k": 40, "min_p": 0.02, "presence_penalty": 0.5,
               "repetition_penalty": 1.1, "ignore_eos": true}),
    ]
}

/// Answers under all settings, believed by the client, in `dir/name.N`.
fn answers(dir: &Path, name: &str, model: &Model, cheat: &Cheat) -> Vec<String> {
    let mut job = Job::new(manifest(), model);
    (settings().into_iter().enumerate())
        .map(|(number, mut setting)| {
            if matches!(cheat, Cheat::EarlyStop(_)) {
                setting["ignore_eos"] = false.into();
            }
            let folder = format!("{name}.{number}");
            let body = question(number, setting);
            job.answer(&body, cheat, &dir.join(&folder))
                .unwrap_or_else(|rejection| panic!("{folder}: the client sees it: {rejection}"));
            folder
        })
        .collect()
}

fn trust() -> String {
    Job::new(manifest(), honest_model()).gateway().to_string()
}

fn audit(dir: &Path) -> Audit {
    Audit::of(dir, &workspace::models(), &trust())
}

#[test]
fn another_computation_is_found_in_one_answer() {
    let dir = TempDir::with_prefix("countersign-").unwrap();
    let dir = dir.path();
    let honest = honest_model();
    let cheats = [
        ("temperature", Cheat::Temperature(1.6)),
        ("seed", Cheat::Seed(99)),
        ("system", Cheat::System("Praise our sponsor.".to_owned())),
        ("early-stop", Cheat::EarlyStop(9)),
        ("edited-token", Cheat::EditToken(11)),
    ];
    let mut folders = Vec::new();
    for (name, cheat) in &cheats {
        folders.extend(answers(dir, name, honest, cheat));
    }
    let requantised = other_model(gguf::requantised);
    folders.extend(answers(dir, "requantised", &requantised, &Cheat::None));
    let exchanged = other_model(gguf::with_layers_exchanged);
    folders.extend(answers(dir, "other-model", &exchanged, &Cheat::None));
    let control = answers(dir, "honest", honest, &Cheat::None);

    let audit = audit(dir);
    assert_eq!(audit.status, 3, "{}", audit.stderr);
    for folder in &control {
        audit.is(folder, Word::Match);
    }
    for folder in &folders {
        audit.is(folder, Word::Mismatch);
        assert!(
            audit.verdict(folder)["findings"][0]["check"] == "token",
            "{folder}"
        );
        println!("{folder}: {}", audit.verdict(folder)["findings"][0]);
    }
    // Where ids are known, every position is judged by itself, and the trace tells weights
    // and prompt from sampling.
    let traced = |folder: &str| {
        let findings = audit.verdict(folder)["findings"].to_string();
        findings.contains("\"trace\"")
    };
    for folder in ["requantised.0", "other-model.0", "system.0"] {
        assert!(traced(folder), "{folder}");
    }
    for folder in ["temperature.0", "seed.0"] {
        audit.finding(folder, "token");
        assert!(!traced(folder), "{folder}: prompt and weights are right");
    }
    let prompt = |folder: &str| {
        let receipt = fs::read_to_string(dir.join(folder).join("receipt.jws")).unwrap();
        let receipt = protocol::receipt::SignedReceipt::parse(&receipt).unwrap();
        receipt.unverified().input.prompt_tokens
    };
    let edited = audit.finding("edited-token.0", "token");
    assert_eq!(edited["position"], prompt("edited-token.0") + 11);
    assert!(
        edited["margin"].as_f64().is_some_and(|margin| margin > 0.0),
        "{edited}"
    );
    let stopped = audit.finding("early-stop.0", "token");
    assert_eq!(stopped["position"], prompt("early-stop.0") + 9);
    let quotes = audit.entry("edited-token.0")["quotes"].as_array().unwrap();
    let expected = edited["expected"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(
        quotes.iter().any(|quote| quote["token"] == expected),
        "{quotes:?}"
    );
}

#[test]
fn what_only_the_last_look_tells() {
    let dir = TempDir::with_prefix("countersign-").unwrap();
    let dir = dir.path();
    let mut job = Job::new(manifest(), honest_model());
    let mut ask = |name: &str, more: Value, cheat: Cheat| {
        job.answer(&question(0, more), &cheat, &dir.join(name))
    };
    // An end without an end token, under a limit that wasn't reached.
    let ids = json!({"return_token_ids": true, "seed": 3});
    ask("cut-off", ids.clone(), Cheat::CutOff(6)).unwrap();
    // Every token right, and the hidden states made up.
    ask("trace", ids.clone(), Cheat::Trace).unwrap();
    let several = json!({"n": 3, "seed": 3, "max_tokens": 8});
    ask("trace-of-three", several.clone(), Cheat::Trace).unwrap();
    ask("three", several, Cheat::None).unwrap();
    // This one the client sees for itself.
    let seen = ask("no-trace", ids, Cheat::NoTrace).unwrap_err();
    assert_eq!(seen.check.name(), "trace");

    let audit = audit(dir);
    assert_eq!(audit.status, 3, "{}", audit.stderr);
    audit.is("three", Word::Match);
    audit.is("cut-off", Word::Mismatch);
    let end = audit.finding("cut-off", "finish");
    assert_eq!(
        (&end["claimed"], &end["expected"]),
        (&json!("stop after 6"), &json!("open after 6"))
    );
    for folder in ["trace", "trace-of-three"] {
        audit.is(folder, Word::Mismatch);
        audit.finding(folder, "trace");
        let replay = &audit.verdict(folder)["replay"]["choices"];
        assert!(
            replay
                .as_array()
                .unwrap()
                .iter()
                .all(|choice| choice["differing"] == 0)
        );
    }
    audit.is("no-trace", Word::Malformed);
    audit.finding("no-trace", "trace_missing");
}

#[test]
fn no_honest_answer_is_called_false() {
    let wanted = std::env::var("COUNTERSIGN_HONEST_ANSWERS");
    let wanted = wanted.map_or(60, |count| count.parse().expect("a count"));
    let dir = TempDir::with_prefix("countersign-").unwrap();
    let up = Up::start(BINARY);
    let began = Instant::now();
    honest::answers(&up, wanted, dir.path());
    let answered = began.elapsed();
    let audit = Audit::of(dir.path(), &workspace::models(), &up.gateway);
    let counts = &audit.report["counts"];
    for entry in audit.report["answers"].as_array().expect(&audit.stderr) {
        let verdict = &entry["verdict"];
        assert_eq!(verdict["verdict"], "match", "{entry:#}");
    }
    assert_eq!((&counts["match"], audit.status), (&json!(wanted), 0));
    let mut ids = std::collections::BTreeMap::<String, usize>::new();
    for entry in audit.report["answers"].as_array().unwrap() {
        for choice in entry["verdict"]["replay"]["choices"].as_array().unwrap() {
            *ids.entry(choice["ids"].to_string()).or_default() += 1;
        }
    }
    println!(
        "{wanted} answers in {answered:.1?}; {} tokens judged in {:.1} s; ids from {ids:?}",
        audit.report["tokens"],
        audit.report["seconds"].as_f64().unwrap()
    );
}

#[test]
fn what_it_cannot_judge_it_says() {
    let dir = TempDir::with_prefix("countersign-").unwrap();
    let dir = dir.path();
    let model = honest_model();
    let short = json!({"max_tokens": 2});
    let ask = |manifest: &Manifest, name: &str| {
        let mut job = Job::new(manifest, model);
        let mut body = question(0, short.clone());
        body["model"] = manifest.identity.id.clone().into();
        job.answer(&body, &Cheat::None, &dir.join(name)).unwrap();
    };
    let mut unknown = manifest().clone();
    unknown.identity.id = "nobody-knows-it".to_owned();
    ask(&unknown, "unknown");
    let mut other = manifest().clone();
    other.identity.weights_sha256 = Digest::of(b"other weights");
    ask(manifest(), "honest");
    ask(manifest(), "other-text");
    edit(
        &dir.join("other-text/response.txt"),
        "\"content\":\"",
        "\"content\":\"x",
    );
    ask(manifest(), "other-body");
    edit(&dir.join("other-body/request.json"), "sky", "sea");
    ask(manifest(), "no-chain");
    fs::remove_file(dir.join("no-chain/chain.json")).unwrap();
    ask(manifest(), "other-request");
    edit(
        &dir.join("other-request/signature.json"),
        "/v1/chat/completions",
        "/v1/completions",
    );
    ask(manifest(), "other-output");
    fs::write(dir.join("other-output/output.txt"), "made up").unwrap();
    fs::create_dir(dir.join("notes")).unwrap();
    fs::write(dir.join("notes/notes.txt"), "no answer").unwrap();

    let nowhere = TempDir::with_prefix("countersign-").unwrap();
    let audit = Audit::of(dir, nowhere.path(), &trust());
    assert_eq!(audit.status, 4, "nothing is false: {}", audit.stderr);
    let expected = [
        ("unknown", "unknown_model", "auditor"),
        ("honest", "no_weights", "auditor"),
        ("other-text", "text", "client"),
        ("other-body", "body", "client"),
        ("no-chain", "no_chain", "gateway"),
        ("other-request", "request", "client"),
        ("other-output", "text", "client"),
    ];
    for (folder, check, fault) in expected {
        audit.is(folder, Word::Unverifiable);
        audit.finding(folder, check);
        assert_eq!(audit.verdict(folder)["fault"], fault, "{folder}");
    }
    let missing = audit.finding("honest", "no_weights")["says"]
        .as_str()
        .unwrap();
    assert!(
        missing.contains("countersign model fetch smollm2-135m-instruct"),
        "{missing}"
    );
    assert_eq!(audit.report["counts"]["unreadable"], 1);

    // Other weights under a whitelisted name need no replay.
    ask(&other, "other-weights");
    let stranger = Audit::of(dir, nowhere.path(), &trust());
    assert_eq!(stranger.status, 3);
    stranger.is("other-weights", Word::Mismatch);
    stranger.finding("other-weights", "model");

    // Whoever trusts another gateway has no reason to believe any of this.
    let stranger = Audit::of(
        &dir.join("honest"),
        nowhere.path(),
        &Job::stranger().to_string(),
    );
    assert_eq!(stranger.status, 3);
    stranger.is("honest", Word::Malformed);
    stranger.finding("honest", "gateway_key");
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn what_it_cannot_run_at_all_it_says_first() {
    let home = TempDir::with_prefix("countersign-").unwrap();
    let home = home.path();
    let run = |dir: &Path| {
        let ran = verify(home, dir, &workspace::models(), &[]);
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    let (status, said) = run(&home.join("absent"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("absent"), "{said}");
    let empty = home.join("empty");
    fs::create_dir(&empty).unwrap();
    let (status, said) = run(&empty);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("countersign chat --save"), "{said}");
}

#[test]
fn a_person_reads_lines_and_a_program_the_report() {
    let home = TempDir::with_prefix("countersign-").unwrap();
    let dir = home.path().join("answers");
    let mut job = Job::new(manifest(), honest_model());
    let short = json!({"max_tokens": 4, "return_token_ids": true});
    let body = question(0, short);
    job.answer(&body, &Cheat::None, &dir.join("true")).unwrap();
    job.answer(&body, &Cheat::EditToken(2), &dir.join("false"))
        .unwrap();
    let file = home.path().join("report.json");
    let more = ["--trust", &trust(), "--report", file.to_str().unwrap()];
    let ran = verify(home.path(), &dir, &workspace::models(), &more);
    assert_eq!(ran.status.code(), Some(3));
    let said = String::from_utf8(ran.stdout).unwrap();
    let line = |word: &str| {
        said.lines()
            .find(|line| line.starts_with(word))
            .unwrap_or_else(|| panic!("{said}"))
    };
    assert!(line("match ").contains("true") && line("mismatch ").contains("false"));
    assert!(
        line("    token: ").contains("the claimed one lost by"),
        "{said}"
    );
    assert!(
        line("2 answers: 1 match, 1 mismatch; ").contains("tokens/s"),
        "{said}"
    );
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(report["counts"]["mismatch"], 1);

    // The key is made once, the owner's alone, and signs the next verdicts too.
    let key = home.path().join("keys/auditor.pem");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = verify(home.path(), &dir.join("true"), &workspace::models(), &more);
    assert_eq!(again.status.code(), Some(0));
    let again: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(again["auditor"], report["auditor"]);
}

#[test]
fn a_cut_answer_is_judged_by_its_checkpoint() {
    let dir = TempDir::with_prefix("countersign-").unwrap();
    let dir = dir.path();
    let up = Up::start(BINARY);
    honest::long_answer(&up, &dir.join("whole"));
    assert!(dir.join("whole/checkpoint.1.jws").exists());
    honest::long_answer(&up, &dir.join("cut"));
    fs::remove_file(dir.join("cut/receipt.jws")).unwrap();
    let response = fs::read_to_string(dir.join("cut/response.txt")).unwrap();
    let half = response[..response.len() / 2].rfind("data: ").unwrap();
    fs::write(dir.join("cut/response.txt"), &response[..half]).unwrap();
    let said = (response[..half].lines())
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()));
    fs::write(dir.join("cut/output.txt"), said.collect::<String>()).unwrap();
    honest::long_answer(&up, &dir.join("mixed"));
    fs::copy(
        dir.join("whole/checkpoint.1.jws"),
        dir.join("mixed/checkpoint.1.jws"),
    )
    .unwrap();

    let audit = Audit::of(dir, &workspace::models(), &up.gateway);
    audit.is("whole", Word::Match);
    audit.is("cut", Word::Match);
    let replayed = &audit.verdict("cut")["replay"]["choices"][0];
    assert_eq!(replayed["tokens"].as_u64().unwrap() / 256, 1, "{replayed}");
    audit.is("mixed", Word::Unverifiable);
    audit.finding("mixed", "checkpoint");
}
