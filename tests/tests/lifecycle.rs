//! Starting, stopping, dying and coming back: what must survive, and what
//! must never be served.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::ask::{Asker, verified};
use tests::raw::{Open, Reply, Request};
use tests::up::{Up, Watched, signal};
use tests::workspace;
use transport::Http;

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");
const CHAT: &str = "/v1/chat/completions";

/// For tests that leave it running as it was.
fn up() -> &'static Up {
    static UP: OnceLock<Up> = OnceLock::new();
    UP.get_or_init(|| Up::start(BINARY))
}

fn started(data: &TempDir, more: &[&str]) -> Up {
    Up::with(BINARY, data.path(), more).unwrap_or_else(|ended| panic!("it ended: {ended:?}"))
}

fn data() -> TempDir {
    TempDir::with_prefix("countersign-").unwrap()
}

fn chat(up: &Up, max_tokens: u32) -> Value {
    chat_of(&Asker::signing(up, Http::H1), max_tokens)
}

fn chat_of(asker: &Asker, max_tokens: u32) -> Value {
    let listed = asker.get("/v1/models");
    json!({
        "model": listed.ok()["data"][0]["id"],
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": max_tokens,
        "ignore_eos": true,
        "stream": true,
    })
}

/// A signed request, open, with its first text read.
fn opened(up: &Up, asker: &Asker, body: &Value) -> (Open, Value) {
    let mut open = asker.raw(CHAT, &body.to_string()).open(up.http);
    assert_eq!(open.head.status, 200);
    loop {
        let event = open.event().expect("text arrives");
        let event: Value = serde_json::from_str(&event).unwrap();
        let text = event["choices"][0]["delta"]["content"].as_str();
        if text.is_some_and(|text| !text.is_empty()) {
            return (open, event);
        }
    }
}

#[test]
fn ctrl_c_lets_an_open_stream_end_with_its_receipt() {
    let data = data();
    let up = started(&data, &[]);
    let asker = Asker::signing(&up, Http::H1);
    let (mut open, first) = opened(&up, &asker, &chat(&up, 24));
    up.interrupt();
    let rest: Vec<String> = std::iter::from_fn(|| open.event()).collect();
    assert_eq!(rest.last().map(String::as_str), Some("[DONE]"));
    let finish: Value = serde_json::from_str(&rest[rest.len() - 2]).unwrap();
    let receipt = finish["receipt"]
        .as_str()
        .expect("the last chunk has the receipt");
    let gateway = up.gateway.clone();
    let ended = up.wait();
    assert!(ended.status.success(), "{ended:?}");

    let again = started(&data, &[]);
    assert_eq!(again.gateway, gateway, "the gateway's key stays");
    let path = format!("/v1/receipts/{}", first["id"].as_str().unwrap());
    let kept = asker.moved_to(&again).get(&path);
    assert_eq!(
        kept.ok()["receipt"],
        receipt,
        "the receipt survives a restart"
    );
}

#[test]
fn a_second_start_says_who_holds_the_data() {
    let data = data();
    let up = started(&data, &[]);
    let Err(second) = Up::with(BINARY, data.path(), &[]) else {
        panic!("two gateways share one data directory");
    };
    assert!(!second.status.success());
    assert!(
        second.stderr.contains(&up.pid().to_string()),
        "names the holder: {}",
        second.stderr
    );
    assert!(up.answers(), "the first one serves on");
}

#[test]
fn a_nonce_stays_used_after_a_crash() {
    let data = data();
    let up = started(&data, &[]);
    let asker = Asker::signing(&up, Http::H1);
    let captured = asker.raw(CHAT, &chat(&up, 2).to_string());
    let address = up.http;
    assert_eq!(captured.send(address).status, 200);
    assert_eq!(
        captured.send(address).json()["error"]["code"],
        "nonce_reused"
    );
    up.kill();

    // The same address, so that the captured request is for this server.
    let again = started(&data, &["--http", &address.to_string()]);
    assert_eq!(again.http, address);
    let replayed = captured.send(address);
    assert_eq!(replayed.status, 401, "{}", replayed.text());
    assert_eq!(replayed.json()["error"]["code"], "nonce_reused");
}

#[test]
fn the_engine_dies_with_its_gateway() {
    let data = data();
    let up = started(&data, &[]);
    let engine = up.engine_pid();
    let watched = Watched::process(engine);
    up.kill();
    watched.ends();
}

#[test]
fn a_dead_engine_is_replaced_by_another_job() {
    let data = data();
    let up = started(&data, &[]);
    let asker = Asker::signing(&up, Http::H1);
    let body = chat(&up, 400);
    let before = asker.post(CHAT, &chat(&up, 1)).proven(&asker);
    let (mut open, _) = opened(&up, &asker, &body);
    signal(up.engine_pid(), Signal::KILL);
    let rest: Vec<String> = std::iter::from_fn(|| open.event()).collect();
    assert_ne!(
        rest.last().map(String::as_str),
        Some("[DONE]"),
        "no end without a receipt"
    );
    let after = eventually(|| {
        let answer = asker.post(CHAT, &chat(&up, 1));
        (answer.status == 200).then(|| answer.proven(&asker))
    });
    assert_ne!(before.claims().job, after.claims().job);
    assert_ne!(before.claims().iss, after.claims().iss);
}

#[test]
fn a_cancelled_answer_has_a_receipt() {
    let up = up();
    let asker = Asker::signing(up, Http::H1);
    let (open, first) = opened(up, &asker, &chat(up, 400));
    drop(open);
    let path = format!("/v1/receipts/{}", first["id"].as_str().unwrap());
    let kept = eventually(|| Some(asker.get(&path)).filter(|kept| kept.status == 200));
    let receipt = verified(&asker, kept.body());
    let output = &receipt.claims().output[0];
    assert_eq!(output.finish.as_str(), "cancelled");
    assert!((1..400).contains(&output.tokens), "{output:?}");
}

#[test]
fn loopback_can_require_signatures_too() {
    let data = data();
    let up = started(&data, &["--require-signed"]);
    let body = chat(&up, 2);
    let refused = Asker::anonymous(&up, Http::H1).post(CHAT, &body);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.body()["error"]["code"], "signature_missing");
    // The key that `up` made for the command that it prints is the only one that may.
    let asker = Asker::with_key_file(&up, Http::H1, &data.path().join("keys/client.pem"));
    asker.post(CHAT, &body).proven(&asker);
    let stranger = Asker::signing(&up, Http::H1).post(CHAT, &body);
    assert_eq!(stranger.status, 403);
    assert_eq!(stranger.body()["error"]["code"], "did_not_allowed");
}

#[test]
fn only_the_named_may_ask() {
    let data = data();
    let friend = data.path().join("friend.pem");
    let did = key(&["new"], &friend);
    let up = started(&data, &["--require-signed", "--allow-did", &did]);
    let asker = Asker::with_key_file(&up, Http::H1, &friend);
    let body = chat_of(&asker, 2);
    let stranger = Asker::signing(&up, Http::H1).post(CHAT, &body);
    assert_eq!(stranger.status, 403, "{:?}", stranger.events);
    asker.post(CHAT, &body).proven(&asker);
}

#[test]
fn other_addresses_require_signatures() {
    let data = data();
    let up = started(&data, &["--http", "0.0.0.0:0"]);
    let refused = ask_at_localhost(&up);
    assert_eq!(refused.status, 401, "{}", refused.text());
    drop(up);
    let open = started(&data, &["--http", "0.0.0.0:0", "--allow-unsigned"]);
    assert_eq!(ask_at_localhost(&open).status, 200);
}

/// An unsigned request by the one name that every server has.
fn ask_at_localhost(up: &Up) -> Reply {
    let port = up.http.port();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let host = format!("localhost:{port}");
    let models = Request::get("/v1/models").header("host", &host).send(to);
    let body = json!({
        "model": models.json()["data"][0]["id"],
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 2,
    });
    Request::post(CHAT, body.to_string())
        .header("host", &host)
        .send(to)
}

#[test]
fn health_and_metrics_have_an_address_of_their_own() {
    let up = up();
    for path in ["/livez", "/readyz"] {
        assert_eq!(Request::get(path).send(up.admin).status, 200, "{path}");
    }
    let anyone = Asker::anonymous(up, Http::H1);
    anyone.post(CHAT, &chat(up, 2)).proven(&anyone);
    let metrics = Request::get("/metrics").send(up.admin);
    assert_eq!(metrics.status, 200);
    let text = metrics.text();
    for name in [
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_count",
        "e2e_request_latency_seconds_count",
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prompt_tokens_total",
        "generation_tokens_total",
        "request_success_total",
    ] {
        let known = text
            .lines()
            .any(|line| line.starts_with("countersign_") && line.contains(name));
        assert!(known, "{name} is missing in\n{text}");
    }
    assert!(!text.contains("did:key:"), "no metric names a client");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            Request::get(path).send(up.http).status,
            404,
            "{path} is the admin listener's"
        );
    }
}

#[test]
fn a_corrupted_model_is_never_served() {
    let data = data();
    let models = data.path().join("models");
    fs::create_dir(&models).unwrap();
    let file = model_file();
    let name = file.file_name().unwrap();
    let corrupted = models.join(name);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&corrupted, &bytes).unwrap();

    // Without any source it stops, and says why.
    let nowhere = TempDir::with_prefix("countersign-").unwrap();
    let Err(ended) = Up::run(up_with_sources(&data, &models, nowhere.path()), data.path()) else {
        panic!("a corrupted model is served");
    };
    assert!(!ended.status.success());
    assert!(
        ended
            .stdout
            .iter()
            .all(|line| !line.contains("ready http://")),
        "{ended:?}"
    );

    // With a source it fetches the right one; what an interrupted download left is no obstacle.
    fs::write(&corrupted, &bytes[..1000]).unwrap();
    let wheels = TempDir::with_prefix("countersign-").unwrap();
    let made = workspace::python("wheel.py")
        .arg(&file)
        .arg(wheels.path())
        .status()
        .unwrap();
    assert!(made.success());
    let up = Up::run(up_with_sources(&data, &models, wheels.path()), data.path())
        .unwrap_or_else(|ended| panic!("{ended:?}"));
    assert!(up.answers());
    drop(up);
    assert_eq!(fs::read(&corrupted).unwrap(), fs::read(&file).unwrap());
    // And from then on it needs none.
    let up = Up::run(up_with_sources(&data, &models, nowhere.path()), data.path())
        .unwrap_or_else(|ended| panic!("{ended:?}"));
    assert!(up.answers());
}

#[test]
fn key_files_are_private_and_never_overwritten() {
    let folder = TempDir::with_prefix("countersign-").unwrap();
    let file = folder.path().join("key.pem");
    let did = key(&["new"], &file);
    assert!(did.starts_with("did:key:z6Mk"), "{did}");
    assert_eq!(key(&["show"], &file), did);
    let again = Command::new(BINARY)
        .args(["key", "new"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(!again.status.success());
    assert_eq!(key(&["show"], &file), did, "the key is still the same");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&file, open).unwrap();
    let refused = Command::new(BINARY)
        .args(["key", "show"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        !refused.status.success(),
        "a key that others can read is refused"
    );
}

/// `countersign key ...`; what it prints.
fn key(words: &[&str], file: &Path) -> String {
    let told = Command::new(BINARY)
        .arg("key")
        .args(words)
        .arg(file)
        .output()
        .unwrap();
    assert!(
        told.status.success(),
        "{}",
        String::from_utf8_lossy(&told.stderr)
    );
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

/// `up` whose fetcher sees nothing but the wheels in that folder.
fn up_with_sources(data: &TempDir, models: &Path, wheels: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args([
            "up",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(data.path())
        .arg("--models")
        .arg(models)
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", wheels)
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    command
}

/// The embedded model's file; other models may lie beside it.
fn model_file() -> std::path::PathBuf {
    let found = fs::read_dir(workspace::models())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = found.filter(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        name.starts_with("smollm2-135m-instruct-") && name.ends_with(".gguf")
    });
    found.next().expect("the model's file")
}

/// Calls until there is something, at most for a while. Each call is a round trip, so this doesn't spin.
fn eventually<T>(mut call: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = call() {
            return found;
        }
        assert!(Instant::now() < until, "it never happened");
    }
}
