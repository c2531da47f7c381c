//! Helpers: the embedded model under profile `exact/1`, for tests.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::LazyLock;

use models::Whitelist;
use models::exact::Level;
use models::exact::{Chunk, ExactModel, Options, Output, Want};
use serde_json::Value;

pub static MODEL: LazyLock<ExactModel> = LazyLock::new(|| load(2, Level::detect()));

/// The embedded model's file.
pub fn path() -> PathBuf {
    let manifest = &Whitelist::embedded()[0];
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::var_os("COUNTERSIGN_TEST_MODELS")
        .map_or_else(|| workspace.join("target/models"), PathBuf::from);
    let path = models::fetch::path(manifest, &dir);
    assert!(
        path.exists(),
        "{} is missing: run tests/run, which fetches it",
        path.display()
    );
    path
}

pub fn load(threads: usize, level: Level) -> ExactModel {
    let options = Options {
        threads: NonZeroUsize::new(threads).unwrap(),
        level,
        kv_tokens: 8192,
    };
    ExactModel::load(&path(), &options).unwrap()
}

pub fn oracle(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/oracle")
        .join(name);
    let mut data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    match data["items"].take() {
        Value::Array(items) if !items.is_empty() => items,
        _ => panic!("{name} has no items"),
    }
}

pub fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Every row of `tokens`, alone and in one chunk.
pub fn score(model: &ExactModel, tokens: &[u32]) -> Output {
    let mut cache = model.new_cache();
    let mut work = [Chunk {
        cache: &mut cache,
        tokens,
        logits: Want::All,
    }];
    model.forward(&mut work).unwrap().remove(0)
}
