//! Whatever a client sends, it gets an answer that says what is wrong, and the
//! engine goes on as it was.
//!
//! Each test prints how long its answers took; how long they may take is a
//! bench's to judge.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use serde_json::{Value, json};
use tests::ask::{Asker, verified};
use tests::raw::{Open, Reply, Request};
use tests::up::Up;
use transport::Http;

fn up() -> &'static Up {
    static UP: OnceLock<Up> = OnceLock::new();
    UP.get_or_init(|| Up::start(env!("CARGO_BIN_EXE_countersign")))
}

fn model() -> String {
    let listed = Asker::anonymous(up(), Http::H1).get("/v1/models");
    listed.ok()["data"][0]["id"].as_str().unwrap().to_owned()
}

const CHAT: &str = "/v1/chat/completions";

/// Sends it, and checks that the refusal has the API's shape and that the engine is the same as before.
fn refused(what: &str, request: Request, status: u16, param: Option<&str>) -> Reply {
    let engine = up().engine_pid();
    let reply = request.send(up().http);
    println!(
        "{:8.1} ms  {} {what}",
        reply.took.as_secs_f64() * 1e3,
        reply.status
    );
    let text = reply.text();
    assert_eq!(reply.status, status, "{what}: {text}");
    let error = &reply.json()["error"];
    assert!(
        !error["message"].as_str().unwrap().is_empty(),
        "{what}: {text}"
    );
    assert!(
        error["type"].is_string() && error["code"].is_string(),
        "{what}: {text}"
    );
    if let Some(param) = param {
        // The parameter, or the place inside of it.
        let named = error["param"].as_str().unwrap_or_default();
        let at = named
            .strip_prefix(param)
            .unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(
            at.is_empty() || at.starts_with(['.', '[']),
            "{what}: {text}"
        );
    }
    assert!(reply.header("x-request-id").is_some(), "{what}");
    assert_eq!(up().engine_pid(), engine, "{what}: the engine is unchanged");
    reply
}

/// A proper request with some members replaced.
fn chat(more: Value) -> Value {
    let mut body =
        json!({"model": model(), "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn bodies_that_are_not_strict_json() {
    let proper = chat(json!({})).to_string();
    let inside = |text: &str| proper.replace("\"max_tokens\":2", text);
    for (what, body) in [
        ("empty body", Vec::new()),
        (
            "truncated JSON",
            proper.as_bytes()[..proper.len() - 5].to_vec(),
        ),
        ("trailing bytes", format!("{proper}{proper}").into_bytes()),
        (
            "duplicate keys",
            inside("\"max_tokens\":2,\"max_tokens\":3").into_bytes(),
        ),
        (
            "duplicate key, escaped",
            inside("\"max_tokens\":2,\"m\\u0061x_tokens\":3").into_bytes(),
        ),
        ("NaN", inside("\"temperature\":NaN").into_bytes()),
        ("1e400", inside("\"temperature\":1e400").into_bytes()),
        (
            "invalid UTF-8",
            [b"{\"model\":\"".as_slice(), b"\xff\xfe", b"\"}"].concat(),
        ),
        (
            "a lone surrogate",
            proper.replace("\"hi\"", "\"\\ud800\"").into_bytes(),
        ),
        (
            "surrogates in the wrong order",
            proper.replace("\"hi\"", "\"\\udc00\\ud800\"").into_bytes(),
        ),
        ("not an object", b"[]".to_vec()),
        ("ten thousand brackets", vec![b'['; 10_000]),
        (
            "a byte order mark",
            [b"\xef\xbb\xbf", proper.as_bytes()].concat(),
        ),
    ] {
        // An empty body has no Content-Length otherwise.
        let length = body.len().to_string();
        refused(
            what,
            Request::post(CHAT, body).header("content-length", &length),
            400,
            None,
        );
    }
}

#[test]
fn parameters_that_no_answer_could_honour() {
    let cases = [
        ("n", json!(1_000_000_000)),
        ("n", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("2")),
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("top_p", json!(0)),
        ("top_k", json!(-2)),
        ("min_p", json!(1.1)),
        ("seed", json!(1e30)),
        ("stop", json!(vec!["x"; 17])),
        ("stop", json!([""])),
        ("stream", json!("yes")),
        ("logprobs", json!(3)),
        ("messages", json!("hi")),
        ("messages", json!([])),
        ("logit_bias", json!({"12": 101})),
        ("presence_penalty", json!(3)),
        ("chat_template", json!("{{ messages }}")),
        ("frobnicate", json!(true)),
        ("best_of", json!(2)),
    ];
    for (param, value) in cases {
        let what = format!("{param} = {}", shortened(&value.to_string()));
        let body = chat(json!({ param: value })).to_string();
        refused(&what, Request::post(CHAT, body), 400, Some(param));
    }
    let role = chat(json!({"messages": [{"role": "wizard", "content": "hi"}]})).to_string();
    refused(
        "an unknown role",
        Request::post(CHAT, role),
        400,
        Some("messages[0].role"),
    );
    let image = json!([{"type": "image_url", "image_url": {"url": "x"}}]);
    let image = chat(json!({"messages": [{"role": "user", "content": image}]})).to_string();
    refused(
        "an image",
        Request::post(CHAT, image),
        400,
        Some("messages[0].content[0].type"),
    );
}

#[test]
fn more_than_fits() {
    let message = json!({"role": "user", "content": "a"});
    let messages = chat(json!({"messages": vec![message; 100_000]})).to_string();
    let reply = refused_as("100k messages", Request::post(CHAT, messages), &[400, 413]);
    println!("{}", reply.json()["error"]["message"]);
    let long =
        chat(json!({"messages": [{"role": "user", "content": "sea ".repeat(20_000)}]})).to_string();
    let reply = refused(
        "longer than the context",
        Request::post(CHAT, long),
        400,
        None,
    );
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    let body = vec![b' '; 10_000_000];
    refused("10 MB body", Request::post(CHAT, body.clone()), 413, None);
    // As curl does it: the server can say no before anything is sent.
    let head = Request::post(CHAT, Vec::new())
        .header("content-length", "10000000")
        .header("expect", "100-continue");
    refused("10 MB announced", head, 413, None);
    let chunked = [
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: ".as_slice(),
        up().http.to_string().as_bytes(),
        b"\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n989680\r\n",
        &body,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let reply = Open::send(up().http, &chunked).finish();
    assert_eq!(
        reply.status, 413,
        "a length that wasn't announced counts too"
    );
    let header = Request::get("/v1/models").header("x-long", &"a".repeat(1 << 20));
    let reply = header.send(up().http);
    assert_eq!(reply.status, 431, "a header of a megabyte");
}

#[test]
fn places_that_are_not_there() {
    let unknown = chat(json!({"model": "no-such-model"})).to_string();
    refused(
        "unknown model",
        Request::post(CHAT, unknown),
        404,
        Some("model"),
    );
    refused("unknown path", Request::get("/v1/nothing"), 404, None);
    refused(
        "unknown receipt",
        Request::get("/v1/receipts/chatcmpl-00000000000000000000000000000000"),
        404,
        None,
    );
    refused(
        "not a receipt id",
        Request::get("/v1/receipts/..%2f..%2fkeys"),
        404,
        None,
    );
    refused("wrong method", Request::get(CHAT), 405, None);
    let proper = || Request::post(CHAT, chat(json!({})).to_string());
    refused(
        "another authority",
        proper().header("host", "example.org"),
        421,
        None,
    );
    refused(
        "another port",
        proper().header("host", "127.0.0.1:1"),
        421,
        None,
    );
}

#[test]
fn requests_that_are_not_http() {
    for (what, bytes) in [
        ("garbage", "GARBAGE\r\n\r\n"),
        ("no host", "GET /v1/models HTTP/1.1\r\n\r\n"),
        (
            "two hosts",
            "GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /v1/models HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        ),
        (
            "a length that is none",
            "POST /v1/models HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        ),
        (
            "a chunk that is none",
            "POST /tokenize HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ),
    ] {
        let engine = up().engine_pid();
        let reply = Open::send(up().http, bytes.as_bytes()).finish();
        assert!(
            (400..500).contains(&reply.status),
            "{what}: {}",
            reply.status
        );
        assert_eq!(up().engine_pid(), engine, "{what}");
    }
}

#[test]
fn signatures_that_do_not_hold() {
    let asker = Asker::signing(up(), Http::H1);
    let body = chat(json!({})).to_string();
    let fields = asker.fields("POST", CHAT, body.as_bytes());
    // The same signed request with one field changed, or left out.
    let with = |changed: &str, change: fn(&str) -> Option<String>| {
        let mut request = Request::post(CHAT, body.clone());
        for (name, value) in fields.iter().filter(|(name, _)| name != "content-type") {
            let value = if name == changed {
                change(value)
            } else {
                Some(value.clone())
            };
            if let Some(value) = value {
                request = request.header(name, &value);
            }
        }
        request
    };
    for (code, field, change) in [
        (
            "signature_field_missing",
            "content-digest",
            (|_| None) as fn(&str) -> Option<String>,
        ),
        ("signature_form", "signature", |_| None),
        ("signature_input_form", "signature-input", |_| {
            Some("(((".to_owned())
        }),
        ("signature_invalid", "signature-input", |input| {
            Some(expires_later(input))
        }),
        ("signature_uncovered", "signature-input", |input| {
            Some(input.replace(" \"@path\"", ""))
        }),
        ("signature_parameter_missing", "signature-input", |input| {
            Some(without_nonce(input))
        }),
    ] {
        let reply = refused(code, with(field, change), 401, None);
        assert_eq!(reply.json()["error"]["code"], code, "{}", reply.text());
    }
    // As it was, it is accepted; and once only.
    let proper = with("", |_| None);
    assert_eq!(proper.send(up().http).status, 200);
    let again = refused("a nonce again", proper, 401, None);
    assert_eq!(again.json()["error"]["code"], "nonce_reused");
}

#[test]
fn a_refusal_after_the_signature_has_a_receipt() {
    let asker = Asker::signing(up(), Http::H1);
    let refused = asker.post(CHAT, &chat(json!({"frobnicate": 1})));
    assert_eq!(refused.status, 400);
    assert_eq!(refused.body()["error"]["param"], "frobnicate");
    let id = refused.request_id.as_deref().unwrap();
    let kept = asker.get(&format!("/v1/receipts/{id}"));
    assert_eq!(kept.ok()["receipt"], refused.body()["receipt"]);
    let receipt = verified(&asker, kept.body());
    assert_eq!(receipt.claims().sub, asker.did());
    assert_eq!(receipt.claims().output[0].finish.as_str(), "refused");
}

#[test]
fn the_engine_still_answers() {
    for http in Http::ALL {
        let asker = Asker::anonymous(up(), http);
        assert_eq!(asker.post(CHAT, &chat(json!({"n": 99}))).status, 400);
        asker.post(CHAT, &chat(json!({}))).proven(&asker);
    }
}

fn refused_as(what: &str, request: Request, statuses: &[u16]) -> Reply {
    let engine = up().engine_pid();
    let reply = request.send(up().http);
    println!(
        "{:8.1} ms  {} {what}",
        reply.took.as_secs_f64() * 1e3,
        reply.status
    );
    assert!(statuses.contains(&reply.status), "{what}: {}", reply.text());
    assert_eq!(up().engine_pid(), engine, "{what}: the engine is unchanged");
    reply
}

/// Signature-Input with an expiry one second later than signed.
fn expires_later(input: &str) -> String {
    let at = input.find("expires=").unwrap() + "expires=".len();
    let end = input[at..].find(';').map_or(input.len(), |end| at + end);
    let expires: u64 = input[at..end].parse().unwrap();
    format!("{}{}{}", &input[..at], expires + 1, &input[end..])
}

fn without_nonce(input: &str) -> String {
    let at = input.find(";nonce=").unwrap();
    let end = input[at + 1..]
        .find(';')
        .map_or(input.len(), |end| at + 1 + end);
    format!("{}{}", &input[..at], &input[end..])
}

fn shortened(text: &str) -> &str {
    &text[..text.len().min(40)]
}
