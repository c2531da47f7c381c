//! Writes `protocol/vectors/`: `cargo run --release -p protocol --example vectors`.
//!
//! Vectors are only ever added to: if a case that is there would change or
//! vanish, nothing is written. What the cases are is in `generate`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

#[path = "generate.rs"]
mod generate;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let files = generate::files();
    for (name, text) in &files {
        let Ok(old) = fs::read_to_string(folder.join(name)) else {
            continue;
        };
        if let Some(lost) = first_lost(&old, text) {
            eprintln!("{name}: the case {lost:?} would change or vanish; nothing is written");
            return ExitCode::FAILURE;
        }
    }
    for (name, text) in &files {
        if let Err(error) = fs::write(folder.join(name), text) {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The name of a case of `old` that isn't in `new` as it was.
fn first_lost(old: &str, new: &str) -> Option<String> {
    let (old, new) = (cases(old), cases(new));
    old.into_iter()
        .find(|case| !new.contains(case))
        .map(|case| case["name"].to_string())
}

/// Each case as a reader sees it: with what all of its file have in common.
fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap_or_default();
    let common = file["common"].as_object().cloned().unwrap_or_default();
    let merge = |case: &Value| {
        let mut merged = common.clone();
        merged.extend(case.as_object().cloned().unwrap_or_default());
        Value::Object(merged)
    };
    file["cases"]
        .as_array()
        .map(|cases| cases.iter().map(merge).collect())
        .unwrap_or_default()
}
