//! A fresh process that loads the model and draws one token: how long that
//! takes, and what stays in memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context;
use models::exact::POSITIONS;
use models::{Chunk, Want};
use serde_json::{Value, json};

use super::statistics::Samples;
use super::{KV_TOKENS, Options};
use crate::report::Section;
use crate::subject::Subject;

/// What the process does; one line of JSON on stdout.
pub fn run(subject: &Subject, threads: usize) -> anyhow::Result<()> {
    let model = subject.load_whole(threads, KV_TOKENS)?;
    let tokens = model
        .tokenizer()
        .encode("The sea is", models::Special::AsText);
    let mut cache = model.new_cache();
    let mut work = [Chunk {
        cache: &mut cache,
        tokens: &tokens,
        logits: Want::Last,
    }];
    let output = model.forward(&mut work)?;
    std::hint::black_box(&output);
    let shape = model.pool().shape();
    let line = json!({
        "rss": memory("VmRSS")?,
        "peak": memory("VmHWM")?,
        "file": std::fs::metadata(&subject.weights).context("reading the weight file")?.len(),
        "kv": KV_TOKENS / POSITIONS * shape.block_bytes(),
        "kv_touched": tokens.len().div_ceil(POSITIONS) * shape.block_bytes(),
    });
    println!("{line}");
    Ok(())
}

/// A line of /proc/self/status, in bytes.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| {
        rest.trim_matches([':', ' ', '\t'])
            .split(' ')
            .next()?
            .parse()
            .ok()
    });
    let kib: u64 = kib.with_context(|| format!("/proc has no {name}"))?;
    Ok(kib * 1024)
}

/// Starts such processes, and tells what they said.
pub fn table(options: &Options) -> anyhow::Result<Section> {
    let mut seconds = Samples::default();
    let mut extra = Samples::default();
    let mut peak = Samples::default();
    for round in 0..options.rounds {
        eprintln!("load: round {} of {}", round + 1, options.rounds);
        let start = Instant::now();
        let output = Command::new(&options.program)
            .args(["bench", "probe", "--model-file"])
            .arg(&options.subject.weights)
            .args(["--threads", &options.threads.to_string()])
            .stderr(Stdio::null())
            .output()
            .context("starting this program")?;
        seconds.add(start.elapsed().as_secs_f64());
        let value: Value = serde_json::from_slice(&output.stdout).context("reading a probe")?;
        let field = |name: &str| value[name].as_f64().with_context(|| format!("no {name}"));
        let weights = field("file")? + field("kv_touched")?;
        extra.add((field("rss")? - weights) / 1e6);
        peak.add(field("peak")? / 1e6);
    }
    let mut table = Section::new(
        "A fresh process: model, tokenizer, template, first token",
        &["", "median", "to reach"],
    );
    let rows = [
        (
            "start of the process to first token, file in page cache",
            &seconds,
            "s",
            "≤ 1.5 s",
        ),
        (
            "resident memory beyond the file's bytes and the keys written",
            &extra,
            "MB",
            "≤ 100 MB",
        ),
        ("most resident memory on the way", &peak, "MB", "–"),
    ];
    for (what, samples, unit, target) in rows {
        let cells = vec![
            what.to_owned(),
            format!("{:.2} {unit}", samples.median()),
            target.to_owned(),
        ];
        table.row(
            cells,
            json!({ "what": what, "unit": unit, "samples": samples.json(), "target": target }),
        );
    }
    Ok(table)
}
