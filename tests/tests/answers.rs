//! Answers as a client gets them: streamed or not, over HTTP/1.1 and HTTP/2,
//! from the real engine with the real model, each held against its receipt.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::OnceLock;
use std::thread;

use protocol::Digest;
use protocol::request_signature::recheck;
use protocol::sampling::SeedBy;
use serde_json::{Value, json};
use tests::ask::{Answer, Asker};
use tests::raw;
use tests::up::Up;
use tests::workspace::root;
use transport::Http;

fn up() -> &'static Up {
    static UP: OnceLock<Up> = OnceLock::new();
    UP.get_or_init(|| Up::start(env!("CARGO_BIN_EXE_countersign")))
}

fn anyone() -> Asker {
    Asker::anonymous(up(), Http::H1)
}

fn model() -> String {
    let listed = anyone().get("/v1/models");
    listed.ok()["data"][0]["id"].as_str().unwrap().to_owned()
}

/// A short conversation, with `more` beside it.
fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": model(),
        "messages": [{"role": "user", "content": "Write a short sentence about the sea."}],
        "max_tokens": 12,
        "seed": 11,
    });
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

fn completion(more: Value) -> Value {
    let mut body = json!({"model": model(), "prompt": "The three primary colours are", "max_tokens": 8, "seed": 11});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body
}

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

#[test]
fn a_receipt_covers_what_the_client_read() {
    for http in Http::ALL {
        let asker = Asker::anonymous(up(), http);
        for stream in [true, false] {
            let stream = json!({ "stream": stream });
            for answer in [
                asker.post(CHAT, &chat(stream.clone())),
                asker.post(COMPLETIONS, &completion(stream.clone())),
            ] {
                let receipt = answer.proven(&asker);
                assert!(!answer.text(0).is_empty());
                assert!(receipt.claims().sub.is_none());
                assert!(receipt.claims().output[0].tokens > 0);
            }
        }
    }
}

#[test]
fn a_signed_request_is_bound_into_its_receipt() {
    for http in Http::ALL {
        let asker = Asker::signing(up(), http);
        let mut body = chat(json!({"stream": true, "max_tokens": 4}));
        body.as_object_mut().unwrap().remove("seed");
        let receipt = asker.post(CHAT, &body).proven(&asker);
        let claims = receipt.claims();
        let input = &claims.input;
        assert_eq!(input.body_sha256, Digest::of(body.to_string().as_bytes()));
        let again = recheck(&input.request, &input.body_sha256, &asker.did().unwrap());
        again.expect("anyone can check the client's signature again");
        assert_eq!(claims.sampling.as_ref().unwrap().seed_by, SeedBy::Nonce);
    }
}

#[test]
fn a_receipt_is_for_its_owner() {
    let owner = Asker::signing(up(), Http::H1);
    let answer = owner.post(CHAT, &chat(json!({"max_tokens": 2})));
    answer.proven(&owner);
    let path = format!("/v1/receipts/{}", answer.id());
    for other in [Asker::signing(up(), Http::H1), anyone()] {
        assert_eq!(other.get(&path).status, 404, "to others it doesn't exist");
    }
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let asker = anyone();
    let ask = |more: Value| {
        let answer = asker.post(CHAT, &chat(more));
        let text = answer.text(0);
        assert_eq!(answer.status, 200, "{text}");
        text
    };
    let first = ask(json!({}));
    assert_eq!(ask(json!({"stream": true})), first);
    assert_eq!(
        Asker::anonymous(up(), Http::H2)
            .post(CHAT, &chat(json!({})))
            .text(0),
        first
    );
    let others: HashSet<String> = (0..3).map(|seed| ask(json!({ "seed": seed }))).collect();
    assert!(others.len() > 1, "seeds matter: {others:?}");
    let greedy = ask(json!({"temperature": 0, "seed": 1}));
    assert_eq!(
        ask(json!({"temperature": 0, "seed": 2})),
        greedy,
        "greedy needs no seed"
    );
}

#[test]
fn a_short_request_does_not_wait_for_a_long_one() {
    let body = chat(json!({"stream": true, "max_tokens": 64, "ignore_eos": true}));
    let mut long = raw::Request::post(CHAT, body.to_string()).open(up().http);
    assert!(long.event().is_some(), "the long one has begun");
    let short = anyone().post(CHAT, &chat(json!({"max_tokens": 2})));
    let short = short.proven(&anyone());
    let last = std::iter::from_fn(|| long.event())
        .filter(|event| event.contains("receipt"))
        .last();
    let last: Value = serde_json::from_str(&last.expect("a receipt")).unwrap();
    let receipt =
        protocol::receipt::SignedReceipt::parse(last["receipt"].as_str().unwrap()).unwrap();
    let long = receipt.unverified();
    assert_eq!(long.output[0].tokens, 64);
    assert!(
        short.claims().to_ms < long.to_ms,
        "the short one ended first"
    );
}

#[test]
fn many_at_once_get_each_its_own_answer() {
    let body = |number: u64| chat(json!({"seed": number, "max_tokens": 6, "stream": number < 3}));
    let answers: Vec<Answer> = thread::scope(|scope| {
        let asked: Vec<_> = (0..6u64)
            .map(|number| {
                scope.spawn(move || {
                    let asker = Asker::anonymous(up(), Http::ALL[usize::from(number % 3 == 0)]);
                    asker.post(CHAT, &body(number))
                })
            })
            .collect();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    let mut places = HashSet::new();
    for (number, answer) in (0..).zip(&answers) {
        let receipt = answer.proven(&anyone());
        let claims = receipt.claims();
        assert_eq!(claims.sampling.as_ref().unwrap().seed.0, number);
        assert_eq!(
            claims.input.body_sha256,
            Digest::of(body(number).to_string().as_bytes())
        );
        assert!(
            places.insert(claims.seq),
            "each has its own place in the job's chain"
        );
    }
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_in_it() {
    let asker = anyone();
    let greedy = json!({"temperature": 0, "max_tokens": 16});
    let whole = asker.post(CHAT, &chat(greedy.clone())).text(0);
    // Cut in the middle of words, so that the stop text begins and ends inside of tokens.
    let from = whole.char_indices().nth(9).unwrap().0;
    let until = whole.char_indices().nth(14).unwrap().0;
    let stop = &whole[from..until];
    let before = &whole[..whole.find(stop).unwrap()];
    for stream in [true, false] {
        let mut more = greedy.clone();
        more["stop"] = json!(["never said", stop]);
        more["stream"] = stream.into();
        let answer = asker.post(CHAT, &chat(more));
        answer.proven(&asker);
        assert_eq!(answer.text(0), before);
        assert_eq!(answer.finish(0), "stop");
    }
}

#[test]
fn every_choice_is_in_the_receipt() {
    for stream in [true, false] {
        let asker = anyone();
        let answer = asker.post(
            CHAT,
            &chat(json!({"n": 3, "max_tokens": 8, "stream": stream})),
        );
        answer.proven(&asker);
        assert_eq!(answer.choices(), 3);
        let texts: HashSet<String> = (0..3).map(|choice| answer.text(choice)).collect();
        assert!(texts.len() > 1, "choices differ: {texts:?}");
    }
}

#[test]
fn code_points_are_never_cut() {
    let asker = anyone();
    // Hot enough that tokens with parts of code points are drawn.
    let wild =
        json!({"temperature": 2, "max_tokens": 24, "return_token_ids": true, "ignore_eos": true});
    let mut streamed = wild.clone();
    streamed["stream"] = true.into();
    let whole = asker.post(CHAT, &chat(wild));
    let pieces = asker.post(CHAT, &chat(streamed));
    pieces.proven(&asker);
    assert_eq!(pieces.text(0), whole.text(0));
    let ids = pieces.token_ids(0);
    assert_eq!(ids, whole.token_ids(0));
    let back = asker.post("/detokenize", &json!({"model": model(), "tokens": ids}));
    assert_eq!(back.ok()["prompt"], whole.text(0));

    // A crab is four bytes in several tokens. With only the first of them allowed, nothing whole can come.
    let crab = asker.post(
        "/tokenize",
        &json!({"model": model(), "prompt": "🦀", "add_special_tokens": false}),
    );
    let crab: Vec<u64> = serde_json::from_value(crab.ok()["tokens"].clone()).unwrap();
    assert!(crab.len() > 1, "the crab is one token: {crab:?}");
    for stream in [true, false] {
        let ask = chat(json!({
            "logit_bias": {crab[0].to_string(): 100}, "max_tokens": 3, "stream": stream, "temperature": 0
        }));
        let answer = asker.post(CHAT, &ask);
        answer.proven(&asker);
        assert_eq!(
            answer.text(0).trim_matches('\u{fffd}'),
            "",
            "{:?}",
            answer.text(0)
        );
    }
}

#[test]
fn token_ids_are_those_of_the_receipt() {
    for stream in [true, false] {
        let asker = anyone();
        let answer = asker.post(
            CHAT,
            &chat(json!({"return_token_ids": true, "stream": stream, "temperature": 0})),
        );
        let receipt = answer.proven(&asker);
        let claims = receipt.claims();
        let ids = answer.token_ids(0);
        assert_eq!(claims.output[0].tokens_sha256, Digest::of_tokens(&ids));
        assert_eq!(claims.output[0].tokens as usize, ids.len());
        let prompt = answer
            .events
            .iter()
            .find_map(|event| event.get("prompt_token_ids")?.as_array());
        let prompt: Vec<u32> = serde_json::from_value(prompt.unwrap().clone().into()).unwrap();
        assert_eq!(
            claims.input.prompt_tokens_sha256,
            Digest::of_tokens(&prompt)
        );
        assert_eq!(claims.input.prompt_tokens as usize, prompt.len());
    }
}

#[test]
fn a_prompt_of_token_ids_is_the_prompt_of_their_text() {
    let asker = anyone();
    let text = completion(json!({"temperature": 0}));
    let ids = asker.post(
        "/tokenize",
        &json!({"model": model(), "prompt": text["prompt"]}),
    );
    let by_text = asker.post(COMPLETIONS, &text);
    let by_ids = asker.post(
        COMPLETIONS,
        &completion(json!({"temperature": 0, "prompt": ids.ok()["tokens"]})),
    );
    assert_eq!(by_ids.text(0), by_text.text(0));
    assert_eq!(
        by_ids.proven(&asker).claims().input.prompt_tokens_sha256,
        by_text.proven(&asker).claims().input.prompt_tokens_sha256
    );
}

#[test]
fn logprobs_describe_the_tokens_that_came() {
    let asker = anyone();
    let answer = asker.post(
        CHAT,
        &chat(json!({"temperature": 0, "logprobs": true, "top_logprobs": 2, "ignore_eos": true})),
    );
    let shown = answer.ok()["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(shown.len(), 12);
    let mut bytes = Vec::new();
    for entry in &shown {
        let logprob = entry["logprob"].as_f64().unwrap();
        let top = entry["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 2);
        assert_eq!(
            top[0]["token"], entry["token"],
            "greedy takes the likeliest"
        );
        assert_eq!(top[0]["logprob"].as_f64(), Some(logprob));
        assert!(logprob <= 0.0 && top[1]["logprob"].as_f64().unwrap() <= logprob);
        bytes.extend(
            entry["bytes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|byte| byte.as_u64().unwrap() as u8),
        );
    }
    assert_eq!(String::from_utf8_lossy(&bytes), answer.text(0));
}

#[test]
fn models_say_what_their_name_stands_for() {
    let asker = anyone();
    let listed = asker.get("/v1/models");
    assert_eq!(listed.ok()["object"], "list");
    let model = &listed.body()["data"][0];
    let one = asker.get(&format!("/v1/models/{}", model["id"].as_str().unwrap()));
    assert_eq!(one.ok(), model);
    let claims = asker
        .post(CHAT, &chat(json!({"max_tokens": 1})))
        .proven(&asker);
    assert_eq!(model["digest"], claims.claims().model.digest.to_string());
    let unknown = asker.get("/v1/models/no-such-model");
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.body()["error"]["code"], "model_not_found");
}

#[test]
fn tokens_are_the_oracles() {
    let asker = anyone();
    let oracle = std::fs::read(root().join("tests/data/oracle/tokenize.json")).unwrap();
    let oracle: Value = serde_json::from_slice(&oracle).unwrap();
    let items = oracle["items"].as_array().unwrap();
    assert_eq!(items.len(), 110);
    for item in items {
        let told = asker.post(
            "/tokenize",
            &json!({"model": model(), "prompt": item["text"]}),
        );
        assert_eq!(told.ok()["tokens"], item["ids_special"], "{}", item["text"]);
        assert_eq!(
            told.body()["count"],
            item["ids_special"].as_array().unwrap().len()
        );
    }
}

#[test]
fn usage_comes_last_and_only_if_asked() {
    let asker = anyone();
    let without = asker.post(CHAT, &chat(json!({"stream": true, "max_tokens": 4})));
    assert!(without.events.iter().all(|event| event["usage"].is_null()));
    let asked = json!({"stream": true, "max_tokens": 4, "stream_options": {"include_usage": true}});
    let with = asker.post(CHAT, &chat(asked));
    let claims = with.proven(&asker);
    let last = with.events.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"]["prompt_tokens"],
        claims.claims().input.prompt_tokens
    );
    assert_eq!(
        last["usage"]["completion_tokens"],
        claims.claims().output[0].tokens
    );
}
