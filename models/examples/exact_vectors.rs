//! Writes `tests/data/exact/vectors.json` (spec exact.md 8):
//! `cargo run --release -p models --example exact_vectors -- MODELS`, where MODELS is the folder
//! with the whitelisted models' weights. It takes minutes.
//!
//! All digests are of the scalar reference's bits. Vectors are only ever added
//! to: if one that is there would change or vanish, nothing is written.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use models::Whitelist;
use models::exact::Reference;
use protocol::Digest;
use protocol::digest::Hasher;
use serde_json::{Value, json};

/// Small models: files in `tests/data/exact`.
const SMALL: [&str; 6] = [
    "llama-blocks",
    "llama-k",
    "llama-floats",
    "llama-factors",
    "gemma3-floats",
    "gemma3-blocks",
];

fn main() -> anyhow::Result<()> {
    let models = std::env::args()
        .nth(1)
        .context("which folder has models?")?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let mut vectors = Vec::new();
    for name in SMALL {
        let tokens: Vec<u32> = (0..280).map(|i| (i * 37 + i * i * 11) % 61).collect();
        let path = folder.join(format!("exact/{name}.gguf"));
        vectors.push(vector("file", &format!("{name}.gguf"), &path, &tokens)?);
    }
    for (id, oracle, tokens) in [
        ("smollm2-135m-instruct", "greedy.json", 12),
        ("gemma-3-270m", "gemma-3-270m/greedy.json", 8),
    ] {
        let tokens = text(&folder.join("oracle").join(oracle), tokens)?;
        let manifest = Whitelist::by_id(id).context("a whitelisted model")?;
        let path = models::fetch::path(manifest, Path::new(&models));
        vectors.push(vector("id", id, &path, &tokens)?);
    }

    let path = folder.join("exact/vectors.json");
    if let Ok(old) = std::fs::read_to_string(&path) {
        let old: Value = serde_json::from_str(&old)?;
        for old in old["vectors"].as_array().context("a list of vectors")? {
            ensure!(
                vectors.contains(old),
                "a vector would change or vanish; nothing is written: {old}"
            );
        }
    }
    let lines: Vec<String> = vectors.iter().map(Value::to_string).collect();
    std::fs::write(
        path,
        format!("{{\"vectors\": [\n{}\n]}}\n", lines.join(",\n")),
    )?;
    Ok(())
}

fn vector(kind: &str, name: &str, path: &PathBuf, tokens: &[u32]) -> anyhow::Result<Value> {
    eprintln!("{name}: {} tokens", tokens.len());
    let weights = Digest::of(&std::fs::read(path)?);
    let (hidden, logits) = Reference::load(path)?.score(tokens);
    Ok(json!({
        kind: name,
        "weights_sha256": weights,
        "tokens": tokens,
        "hidden_sha256": digest(&hidden),
        "logits_sha256": digest(&logits),
    }))
}

/// Over the bits of all rows, little-endian.
fn digest(rows: &[Vec<f32>]) -> Digest {
    let mut hasher = Hasher::new();
    for x in rows.iter().flatten() {
        hasher.update(&x.to_bits().to_le_bytes());
    }
    hasher.finish()
}

/// The oracle's first prompt and answer, or the beginning of them.
fn text(path: &Path, most: usize) -> anyhow::Result<Vec<u32>> {
    let oracle: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let item = &oracle["items"][0];
    let mut tokens = Vec::new();
    for part in ["prompt_tokens", "tokens"] {
        let part: Vec<u32> = serde_json::from_value(item[part].clone())?;
        tokens.extend(part);
    }
    tokens.truncate(most);
    Ok(tokens)
}
