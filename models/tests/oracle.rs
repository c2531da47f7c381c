//! The embedded model's tokenizer and template against llama.cpp's
//! (`tests/data/oracle`). Its distributions are compared in `exact`.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::LazyLock;

use models::{Level, Model, Options, Special, Whitelist};
use protocol::api::{Message, Role};
use serde_json::{Map, Value};

#[path = "oracle/gemma.rs"]
mod gemma;

static MODEL: LazyLock<Model> = LazyLock::new(|| load("smollm2-135m-instruct"));

fn load(id: &str) -> Model {
    let manifest = Whitelist::by_id(id).unwrap();
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::var_os("COUNTERSIGN_TEST_MODELS")
        .map_or_else(|| workspace.join("target/models"), PathBuf::from);
    let path = models::fetch::path(manifest, &dir);
    assert!(
        path.exists(),
        "{} is missing: run tests/run, which fetches it",
        path.display()
    );
    let options = Options {
        threads: NonZeroUsize::MIN,
        level: Level::detect(),
        kv_tokens: 512,
    };
    Model::load(&path, manifest, &options).unwrap()
}

fn oracle(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/oracle")
        .join(name);
    let mut data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    match data["items"].take() {
        Value::Array(items) if !items.is_empty() => items,
        _ => panic!("{name} has no items"),
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

#[test]
fn tokens_are_the_oracles() {
    let tokenizer = MODEL.tokenizer();
    for item in oracle("tokenize.json") {
        let text = item["text"].as_str().unwrap();
        let plain = ids(&item["ids_plain"]);
        assert_eq!(
            tokenizer.encode(text, Special::AsText),
            plain,
            "{text:?} as text"
        );
        assert_eq!(
            tokenizer.encode(text, Special::Parse),
            ids(&item["ids_special"]),
            "{text:?} parsed"
        );
        assert_eq!(
            tokenizer.decode(&plain),
            text.as_bytes(),
            "{text:?} and back"
        );
    }
}

#[test]
fn prompts_are_the_oracles() {
    for item in oracle("greedy.json") {
        let messages: Vec<Message> = item["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect();
        let prompt = MODEL
            .template()
            .render(&messages, &Map::new(), None)
            .unwrap();
        assert_eq!(prompt, item["prompt"].as_str().unwrap());
        let tokens = MODEL.tokenizer().encode(&prompt, Special::Parse);
        assert_eq!(tokens, ids(&item["prompt_tokens"]));
    }
}

fn message(value: &Value) -> Message {
    let role = match value["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => panic!("the oracle has the role {other}"),
    };
    Message::new(role, value["content"].as_str().unwrap())
}

#[test]
fn the_model_says_what_it_is() {
    let config = MODEL.config();
    assert_eq!(
        (config.vocab, config.context_tokens, config.eos.as_slice()),
        (49152, 8192, [0, 2].as_slice())
    );
    assert_eq!(config.bos, None);
    let (tokenizer, numerics) = (MODEL.tokenizer(), MODEL.numerics());
    assert_eq!(
        (numerics.profile.as_str(), numerics.device.as_str()),
        ("exact/1", "cpu")
    );
    assert_eq!(tokenizer.vocab_size(), config.vocab);
    assert!(config.eos.iter().all(|&id| tokenizer.is_special(id)));
    assert_eq!(tokenizer.piece(2), Some(b"<|im_end|>".as_slice()));
    assert_eq!(
        (tokenizer.piece(49152), tokenizer.is_special(49152)),
        (None, false)
    );
}
