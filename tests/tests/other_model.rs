//! A model of another architecture than the default one, served by its id:
//! Gemma 3, whose vocabulary, template and layers are of other kinds.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use protocol::Digest;
use protocol::digest::Hasher;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::ask::Asker;
use tests::up::Up;
use transport::Http;

const MODEL: &str = "gemma-3-270m";

fn gemma() -> Up {
    let data = TempDir::with_prefix("countersign-").unwrap().keep();
    Up::with(
        env!("CARGO_BIN_EXE_countersign"),
        &data,
        &["--model", MODEL],
    )
    .unwrap_or_else(|ended| panic!("{ended:?}"))
}

#[test]
fn gemma_answers_with_receipts_of_its_own() {
    let up = gemma();
    let asker = Asker::signing(&up, Http::H1);
    let listed = asker.get("/v1/models");
    let ids: Vec<&Value> = listed.ok()["data"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(ids[0]["id"], MODEL);

    let chat = json!({
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": 6,
        "seed": 5,
        "stream": true,
        "return_token_ids": true,
    });
    let answer = asker.post("/v1/chat/completions", &chat);
    let receipt = answer.proven(&asker);
    let claims = receipt.claims();
    let model = &claims.model;
    assert_eq!(model.id, MODEL);
    assert!(
        up.banner
            .iter()
            .any(|line| line.contains(&model.digest.to_string()))
    );
    assert_eq!(claims.numerics.profile, "exact/1");
    assert_eq!(claims.output[0].tokens_sha256, digest(&answer.token_ids(0)));

    // The system's words go in front of the user's, in turns that are special tokens.
    let prompt = "<bos><start_of_turn>user\nAnswer in one word.\n\nWhat is the capital of France?<end_of_turn>\n<start_of_turn>model\n";
    let asked = asker.post(
        "/tokenize",
        &json!({"model": MODEL, "prompt": prompt, "add_special_tokens": false}),
    );
    let tokens: Vec<u32> = serde_json::from_value(asked.ok()["tokens"].clone()).unwrap();
    assert_eq!(tokens[..4], [2, 105, 2364, 107]);
    assert_eq!(tokens[tokens.len() - 4..], [107, 105, 4368, 107]);
    assert_eq!(claims.input.prompt_tokens_sha256, digest(&tokens));
}

#[test]
fn gemma_completes_text_as_it_should() {
    let up = gemma();
    let asker = Asker::signing(&up, Http::H2);
    let ask = |more: Value| {
        let mut body = json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0});
        let members = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(members);
        let answer = asker.post("/v1/completions", &body);
        answer.proven(&asker);
        answer.text(0)
    };
    let expected = ", there was a little girl named Mary";
    assert_eq!(ask(json!({})), expected);
    // With a neighbour in the same step, the same bits.
    assert_eq!(ask(json!({"n": 2})), expected);
    assert_eq!(ask(json!({"stop": [" girl"]})), ", there was a little");
}

fn digest(ids: &[u32]) -> Digest {
    let mut hasher = Hasher::new();
    ids.iter().for_each(|id| hasher.update(&id.to_le_bytes()));
    hasher.finish()
}
