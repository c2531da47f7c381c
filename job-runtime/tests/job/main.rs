//! One job over its socket, with the real model, as a gateway sees it.

// A broken expectation is a failed test, and says where.
#![allow(clippy::unwrap_used)]

mod gateway;

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::BodyExt;
use job_runtime::EngineLimits;
use protocol::Digest;
use protocol::receipt::{Finish, SignedReceipt};
use protocol::request_signature;
use protocol::sampling::SeedBy;
use serde_json::{Value, json};

use gateway::{Answer, Gateway, chat, now, with};

#[tokio::test]
async fn an_answer_and_its_receipt() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let ask = with(
        chat("What is the capital of France?"),
        json!({ "return_token_ids": true }),
    );
    let sent = now();
    let whole = gateway.complete(ask.clone()).await;
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(
        whole.texts()[0].contains("capital of France"),
        "{:?}",
        whole.texts()
    );
    let stream = with(
        ask,
        json!({ "stream": true, "stream_options": { "include_usage": true } }),
    );
    let streamed = gateway.complete(stream.clone()).await;
    assert_eq!(streamed.texts(), whole.texts());
    assert_eq!(streamed.tokens(), whole.tokens());

    let receipt = streamed.receipt(&gateway);
    let body = stream.to_string();
    assert_eq!(receipt.sub, Some(gateway.client.did()));
    assert_eq!(receipt.input.body_sha256, Digest::of(body.as_bytes()));
    let line = &receipt.input.request;
    request_signature::recheck(line, &receipt.input.body_sha256, &gateway.client.did()).unwrap();
    assert_eq!(receipt.jti.as_str(), streamed.headers["x-request-id"]);
    assert!(sent <= receipt.from_ms && receipt.from_ms <= receipt.to_ms && receipt.to_ms <= now());
    assert_eq!(receipt.output[0].finish, Finish::Stop);
    assert_eq!(
        receipt.output[0].tokens_sha256,
        Digest::of_tokens(&streamed.tokens())
    );
    let sampling = receipt.sampling.unwrap();
    assert_eq!((sampling.max_tokens, sampling.seed_by), (8, SeedBy::Nonce));
    assert_eq!(
        sampling.seed_by,
        whole.receipt(&gateway).sampling.unwrap().seed_by
    );

    // OpenAI's order: role, deltas, finish with the receipt, usage with it again, the end.
    assert_eq!(streamed.events.last().unwrap(), "[DONE]");
    let chunks = streamed.chunks();
    let [role, .., finish, usage] = chunks.as_slice() else {
        panic!("{chunks:?}")
    };
    assert_eq!(
        role["choices"][0]["delta"],
        json!({ "role": "assistant", "content": "" })
    );
    let prompt: Vec<u32> = serde_json::from_value(role["prompt_token_ids"].clone()).unwrap();
    assert_eq!(
        receipt.input.prompt_tokens_sha256,
        Digest::of_tokens(&prompt)
    );
    assert_eq!(finish["choices"][0]["finish_reason"], "stop");
    assert_eq!(finish["receipt"], usage["receipt"]);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], prompt.len());
    assert_eq!(usage["usage"]["completion_tokens"], 8);
    // The whole answer was to the same prompt.
    let cached = (prompt.len() - 1) / 32 * 32;
    assert_eq!(
        usage["usage"]["prompt_tokens_details"]["cached_tokens"],
        cached
    );
    assert!(
        chunks[..chunks.len() - 2]
            .iter()
            .all(|chunk| chunk["receipt"].is_null())
    );
}

#[tokio::test]
async fn a_cached_prefix_changes_no_bit_and_is_shared_with_nobody() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let text = "Count the words of this sentence, then say how many of them begin with a vowel.";
    let ask = with(
        chat(text),
        json!({ "temperature": 1, "seed": 3, "max_tokens": 40 }),
    );
    let body = ask.to_string().into_bytes();
    let cached = |answer: &Answer| {
        let details = answer.body["usage"]["prompt_tokens_details"].clone();
        details["cached_tokens"].as_u64().unwrap()
    };
    let cold = gateway.complete(ask.clone()).await;
    let warm = gateway.complete(ask.clone()).await;
    assert_eq!((cached(&cold), cached(&warm)), (0, 32));
    let path = "/v1/chat/completions";
    let unsigned = || gateway.deliver(gateway.admitted(path, &body, None));
    let (other, again) = (unsigned().await, unsigned().await);
    assert_eq!(
        (cached(&other), cached(&again)),
        (0, 0),
        "nobody knows whose it is"
    );
    let cold = cold.receipt(&gateway);
    assert!(cold.trace.is_some());
    for answer in [warm, other, again] {
        let receipt = answer.receipt(&gateway);
        assert_eq!(receipt.output, cold.output);
        assert_eq!(receipt.trace, cold.trace);
    }
    assert_eq!(gateway.metric("prefix_cache_hits_total").await, 32.0);
    while gateway.metric("kv_cache_usage_perc").await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_long_stream_carries_checkpoints() {
    let limits = EngineLimits {
        checkpoint_tokens: 8,
        ..EngineLimits::default()
    };
    let gateway = Gateway::start(limits).await;
    let ask = json!({ "stream": true, "n": 2, "temperature": 1, "seed": 5, "max_tokens": 30 });
    let answer = gateway.complete(with(chat("Tell me a story."), ask)).await;
    let mut texts = [String::new(), String::new()];
    let mut parts = Vec::new();
    for chunk in answer.chunks() {
        for choice in chunk["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        }
        let Some(compact) = chunk["receipt"].as_str() else {
            continue;
        };
        let receipt = SignedReceipt::parse(compact).unwrap();
        let claims = receipt.unverified();
        for (text, output) in texts.iter().zip(&claims.output) {
            assert_eq!(output.text_sha256, Digest::of(text.as_bytes()), "{parts:?}");
        }
        assert!(claims.trace.is_some());
        parts.push(claims.part);
    }
    let (last, checkpoints) = parts.split_last().unwrap();
    assert_eq!(*last, 0);
    assert!(checkpoints.len() > 1);
    assert!(
        checkpoints
            .iter()
            .zip(1..)
            .all(|(part, number)| *part == number)
    );
}

#[tokio::test]
async fn seeds_and_choices() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let ask = with(
        chat("Name a colour."),
        json!({ "temperature": 1.5, "n": 3, "seed": -7 }),
    );
    let (first, second) =
        tokio::join!(gateway.complete(ask.clone()), gateway.complete(ask.clone()));
    assert_eq!(first.texts(), second.texts(), "the same seed");
    let texts = first.texts();
    assert!(
        texts[0] != texts[1] && texts[1] != texts[2],
        "each choice has its own noise"
    );
    let receipt = first.receipt(&gateway);
    assert_eq!(receipt.output.len(), 3);
    assert_eq!(
        receipt.sampling.unwrap().seed.to_string(),
        (-7_i64).cast_unsigned().to_string()
    );
    let streamed = gateway
        .complete(with(ask.clone(), json!({ "stream": true })))
        .await;
    assert_eq!(streamed.texts(), texts);
    let finishes: Vec<_> = streamed
        .chunks()
        .into_iter()
        .filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null())
        .map(|chunk| chunk["receipt"].is_string())
        .collect();
    assert_eq!(
        finishes,
        [false, false, true],
        "the last to finish carries it"
    );
    let unseeded = with(
        chat("Name a colour."),
        json!({ "temperature": 1.5, "max_tokens": 12 }),
    );
    let (one, other) = tokio::join!(
        gateway.complete(unseeded.clone()),
        gateway.complete(unseeded)
    );
    assert_ne!(one.texts(), other.texts(), "another nonce is another seed");
}

#[tokio::test]
async fn stop_strings_and_log_probabilities() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let ask = with(
        chat("Say: one two three four five"),
        json!({ "max_tokens": 16 }),
    );
    let free = gateway.complete(ask.clone()).await.texts().remove(0);
    let stop: String = free.chars().skip(4).take(5).collect();
    let before = free.split_once(&stop).unwrap().0.to_owned();
    let logprobs = json!({ "stop": [stop], "logprobs": true, "top_logprobs": 2 });
    for stream in [false, true] {
        let answer = with(
            with(ask.clone(), logprobs.clone()),
            json!({ "stream": stream }),
        );
        let answer = gateway.complete(answer).await;
        assert_eq!(answer.texts()[0], before);
        assert_eq!(answer.receipt(&gateway).output[0].finish, Finish::Stop);
        let bodies = [answer.chunks(), vec![answer.body.clone()]].concat();
        let choices = bodies
            .iter()
            .filter_map(|body| body["choices"].as_array())
            .flatten();
        let named = choices.filter_map(|choice| choice["logprobs"]["content"].as_array());
        let tokens: Vec<&Value> = named.flatten().collect();
        let said: String = tokens
            .iter()
            .map(|token| token["token"].as_str().unwrap())
            .collect();
        assert!(
            said.starts_with(&before) && !said.contains(&stop),
            "{said:?}"
        );
        for token in tokens {
            assert_eq!(
                token["logprob"], token["top_logprobs"][0]["logprob"],
                "greedy"
            );
            assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
        }
    }
    let text = json!({
        "model": "smollm2-135m-instruct", "prompt": "one two three", "max_tokens": 4,
        "temperature": 0, "logprobs": 3,
    });
    let text = with(text, json!({ "return_token_ids": true, "n": 2 }));
    let answer = gateway
        .send("/v1/completions", text.to_string().as_bytes())
        .await;
    answer.receipt(&gateway);
    let streamed = with(text, json!({ "stream": true })).to_string();
    let streamed = gateway.send("/v1/completions", streamed.as_bytes()).await;
    assert_eq!(streamed.texts(), answer.texts());
    let ids = |chunk: &Value| chunk["choices"][0]["prompt_token_ids"].clone();
    let shown: Vec<Value> = streamed.chunks().iter().map(ids).collect();
    let prompt = &answer.body["choices"][1]["prompt_token_ids"];
    assert_eq!(shown.iter().filter(|shown| *shown == prompt).count(), 2);
    let logprobs = &answer.body["choices"][0]["logprobs"];
    let tokens: Vec<&str> = logprobs["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t.as_str().unwrap())
        .collect();
    assert_eq!(tokens.concat(), answer.texts()[0]);
    let mut offset = 0;
    for (at, token) in tokens.iter().enumerate() {
        assert_eq!(logprobs["text_offset"][at], offset);
        offset += token.chars().count();
        let best = &logprobs["top_logprobs"][at][token];
        assert_eq!(best, &logprobs["token_logprobs"][at]);
    }
}

#[tokio::test]
async fn many_at_once_and_the_chain_of_their_receipts() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let alone = gateway.complete(chat("Count to three.")).await;
    let refused = with(chat("x"), json!({ "best_guess": true }));
    let asks = (0..12).map(|number| match number % 3 {
        0 => gateway.complete(chat("Count to three.")),
        1 => gateway.complete(with(chat(&"long ".repeat(100)), json!({ "max_tokens": 2 }))),
        _ => gateway.complete(refused.clone()),
    });
    let answers: Vec<Answer> = join_all(asks).await;
    let mut signed = vec![alone.signed_receipt()];
    for (number, answer) in answers.iter().enumerate() {
        signed.push(answer.signed_receipt());
        let finish = answer.receipt(&gateway).output[0].finish;
        match number % 3 {
            0 => assert_eq!(answer.texts(), alone.texts(), "neighbours change nothing"),
            1 => assert_eq!(finish, Finish::Length),
            _ => {
                assert_eq!((answer.status.as_u16(), finish), (400, Finish::Refused));
                assert_eq!(answer.body["error"]["param"], "best_guess");
            }
        }
    }
    signed.sort_by_key(|receipt| receipt.unverified().seq);
    let mut prev = None;
    for (seq, receipt) in signed.iter().enumerate() {
        assert_eq!(receipt.unverified().seq, seq as u64);
        assert_eq!(receipt.unverified().prev, prev);
        prev = Some(receipt.digest());
    }
    assert_eq!(gateway.finished("refused").await, 4.0);
    assert_eq!(gateway.metric("num_requests_running").await, 0.0);
    let drawn = 5 * alone.receipt(&gateway).output[0].tokens + 4 * 2;
    assert_eq!(
        gateway.metric("generation_tokens_total").await,
        f64::from(drawn)
    );
}

#[tokio::test]
async fn a_cancelled_stream_ends_with_its_receipt() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let long = json!({ "stream": true, "max_tokens": 4000, "ignore_eos": true });
    let response = gateway
        .open(with(chat("Tell me a very long story."), long.clone()))
        .await;
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(r#""content":" "#) {
        read.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    let cancel = format!("/job/requests/{id}/cancel");
    assert_eq!(gateway.control("POST", &cancel, "").await.status, 204);
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    let answer = Answer::of(http::Response::from_parts(head, read.into())).await;
    assert_eq!(answer.receipt(&gateway).output[0].finish, Finish::Cancelled);
    assert_ne!(answer.events.last().unwrap(), "[DONE]");
    assert_eq!(
        answer.chunks().last().unwrap()["error"]["code"],
        "cancelled"
    );
    assert_eq!(
        gateway.control("POST", &cancel, "").await.status,
        404,
        "it has ended"
    );

    // Who leaves while waiting for a whole answer cancels too.
    let whole = json!({ "max_tokens": 4000, "ignore_eos": true });
    let running = async {
        while gateway.metric("num_requests_running").await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = gateway.open(with(chat("A third."), whole)) => panic!("it can't be done"),
        () = running => {}
    }

    // Who leaves in the middle of a stream as well: its place in the chain is taken, and nothing runs on.
    let mut left = gateway.open(with(chat("Another one."), long)).await;
    left.body_mut().frame().await.unwrap().unwrap();
    drop(left);
    let next = gateway.complete(chat("hi")).await.receipt(&gateway);
    let cut = answer.signed_receipt().unverified().seq;
    assert!(next.seq > cut);
    while gateway.finished("cancelled").await < 3.0 {
        tokio::task::yield_now().await;
    }
    while gateway.metric("kv_cache_usage_perc").await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_finishes_what_it_can_and_signs_the_rest() {
    let limits = EngineLimits {
        cut_margin_ms: 9_900,
        ..EngineLimits::default()
    };
    let gateway = Gateway::start(limits).await;
    let long = json!({ "stream": true, "max_tokens": 4000, "ignore_eos": true });
    let response = gateway
        .open(with(chat("Tell me a very long story."), long))
        .await;
    gateway.drain.begin(Duration::from_secs(10));
    // Its own socket still answers, but takes nothing new.
    let refused = gateway.complete(chat("hi")).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, "draining"));
    let answer = Answer::of(response).await;
    assert_eq!(answer.receipt(&gateway).output[0].finish, Finish::Deadline);
    assert_eq!(answer.chunks().last().unwrap()["error"]["code"], "draining");
    gateway.ended().await.unwrap();
}

#[tokio::test]
async fn a_full_job_says_when_to_come_back() {
    let one = NonZeroU32::new(1).unwrap();
    let limits = EngineLimits {
        sequences_max: one,
        waiting_max: 1,
        n_max: std::num::NonZeroU8::new(1).unwrap(),
        ..EngineLimits::default()
    };
    let gateway = Gateway::start(limits).await;
    let long = with(
        chat("Go on."),
        json!({ "stream": true, "max_tokens": 4000, "ignore_eos": true }),
    );
    let running = [gateway.open(long.clone()).await, gateway.open(long).await];
    let answer = gateway.complete(chat("hi")).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, "queue_full"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(answer.receipt(&gateway).output[0].finish, Finish::Refused);
    drop(running);
}

#[tokio::test]
async fn who_may_ask() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let path = "/v1/chat/completions";
    let body = chat("hi").to_string().into_bytes();
    let me = Some(gateway.client.did());

    let unsigned = gateway.deliver(gateway.admitted(path, &body, None)).await;
    assert_eq!(unsigned.receipt(&gateway).sub, None);
    let seed_by = unsigned.receipt(&gateway).sampling.unwrap().seed_by;
    assert_eq!(seed_by, SeedBy::Server);

    // The gateway says that I asked, and I didn't.
    let forged = gateway.deliver(gateway.admitted(path, &body, me)).await;
    assert_eq!(
        (forged.status.as_u16(), forged.code()),
        (401, "admission_subject")
    );
    // I asked, and the gateway keeps it quiet.
    let mut quiet = gateway.admitted(path, &body, None);
    for name in ["content-digest", "signature", "signature-input"] {
        let value = gateway.signed(path, &body).headers()[name].clone();
        quiet.headers_mut().insert(name, value);
    }
    let quiet = gateway.deliver(quiet).await;
    assert_eq!(quiet.status, 401);

    let nonce = [9; 16];
    let first = gateway
        .deliver(gateway.signed_with(path, &body, nonce))
        .await;
    assert_eq!(first.status, 200);
    let again = gateway
        .deliver(gateway.signed_with(path, &body, nonce))
        .await;
    assert_eq!((again.status.as_u16(), again.code()), (401, "nonce_reused"));
    assert!(
        again.body["receipt"].is_null(),
        "none for what wasn't accepted"
    );

    let request = gateway.admitted(path, &body, None);
    let admission = request.headers()["countersign-admission"].clone();
    assert_eq!(gateway.deliver(request).await.status, 200);
    let mut replayed = gateway.admitted(path, &body, None);
    replayed
        .headers_mut()
        .insert("countersign-admission", admission.clone());
    let replayed = gateway.deliver(replayed).await;
    assert_eq!(
        (replayed.status.as_u16(), replayed.code()),
        (401, "admission_reused")
    );
    let mut other = gateway.admitted(path, &chat("another body").to_string().into_bytes(), None);
    other
        .headers_mut()
        .insert("countersign-admission", admission);
    assert_eq!(gateway.deliver(other).await.code(), "admission_body");
    let mut bare = gateway.admitted(path, &body, None);
    bare.headers_mut().remove("countersign-admission");
    assert_eq!(gateway.deliver(bare).await.code(), "admission_missing");
}

#[tokio::test]
async fn bad_input_is_refused_and_receipted() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let completion = |more: Value| {
        let body = json!({ "model": "smollm2-135m-instruct", "prompt": "x", "max_tokens": 4 });
        with(body, more).to_string()
    };
    let cases: Vec<(String, u16, &str)> = vec![
        (String::new(), 400, "none"),
        (r#"{"model": "#.to_owned(), 400, "none"),
        (
            completion(json!({ "model": "gpt-5" })),
            404,
            "model_not_found",
        ),
        (
            completion(json!({ "max_tokens": 8192 })),
            400,
            "context_length_exceeded",
        ),
        (
            completion(json!({ "prompt": "word ".repeat(9000) })),
            400,
            "context_length_exceeded",
        ),
        (
            completion(json!({ "prompt": "語".repeat(200_000) })),
            400,
            "context_length_exceeded",
        ),
        (
            completion(json!({ "prompt": "x".repeat(3_000_000) })),
            400,
            "context_length_exceeded",
        ),
        (
            completion(json!({ "prompt": [1, 49152] })),
            400,
            "invalid_value",
        ),
        (
            completion(json!({ "stop_token_ids": [49152] })),
            400,
            "invalid_value",
        ),
        (
            completion(json!({ "logit_bias": { "49152": 1 } })),
            400,
            "invalid_value",
        ),
        (completion(json!({ "n": 9 })), 400, "none"),
    ];
    for (body, status, code) in cases {
        let answer = gateway.send("/v1/completions", body.as_bytes()).await;
        let shown: String = body.chars().take(90).collect();
        assert_eq!(answer.status, status, "{shown}: {}", answer.body);
        assert!(
            code == "none" || code == answer.code(),
            "{shown}: {}",
            answer.body
        );
        assert_eq!(answer.receipt(&gateway).output[0].finish, Finish::Refused);
    }
    let large = vec![b' '; 9 << 20];
    assert_eq!(gateway.send("/v1/completions", &large).await.status, 413);
    assert_eq!(
        gateway.control("GET", "/v1/completions", "").await.status,
        405
    );
    assert_eq!(gateway.control("GET", "/v2", "").await.code(), "not_found");
}

#[tokio::test]
async fn text_to_tokens_and_back() {
    let gateway = Gateway::start(EngineLimits::default()).await;
    let text = "Déjà vu 😀 <|im_end|>";
    let ask = json!({ "model": "smollm2-135m-instruct", "prompt": text }).to_string();
    let tokens = gateway.send("/tokenize", ask.as_bytes()).await.body;
    assert_eq!(tokens["max_model_len"], 8192);
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
    assert!(
        tokens["tokens"].as_array().unwrap().contains(&json!(2)),
        "special tokens are parsed"
    );
    let ask = json!({ "tokens": tokens["tokens"] }).to_string();
    let back = gateway.send("/detokenize", ask.as_bytes()).await.body;
    assert_eq!(back, json!({ "prompt": text }));
}
