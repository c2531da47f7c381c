//! `countersign bench engine`: our engine's speed, beside llama.cpp's.
//!
//! Both run in turn, round after round, so that a busy hour hits both; medians
//! are shown, and their ratios. What the machine could do at most is measured
//! in the same run. Start at [`run`].

mod http;
mod limits;
mod ours;
pub mod probe;
mod server;
mod statistics;
mod theirs;

use std::path::PathBuf;

use anyhow::Context;
use models::exact::{ExactModel, Level};
use serde_json::json;

use crate::machine::level_name;
use crate::report::{Report, Section};
use crate::subject::Subject;
use limits::Limits;
use statistics::{Samples, rate, ratio};
use theirs::LlamaCpp;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model.
    pub subject: Subject,
    /// This program, to be started as a server.
    pub program: PathBuf,
    /// The folder with llama.cpp's programs.
    pub llama_cpp: Option<PathBuf>,
    /// Whether to measure through HTTP too.
    pub http: bool,
    /// Rounds of each measurement.
    pub rounds: usize,
    /// Threads of every engine.
    pub threads: usize,
    /// Our kernels, where speed is measured in this process.
    pub level: Level,
    /// Where to write the tables as JSON.
    pub json: Option<PathBuf>,
}

/// Tokens of a long prompt.
const PROMPT: usize = 512;
/// Tokens that are decoded, from an empty context as llama-bench does.
const DECODED: usize = 64;
/// Sequences side by side, and each one's prompt.
const SEQUENCES: (usize, usize) = (16, 32);
/// Positions that all sequences together take, with some to spare.
const KV_TOKENS: usize = 8192;

/// Measures, and prints the tables.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new("engine");
    let llama = options
        .llama_cpp
        .as_deref()
        .map(LlamaCpp::find)
        .transpose()?;
    let level = options.level;
    report.condition(format!(
        "model {}, {} threads, {} rounds, medians; both engines in turn",
        options.subject.manifest.identity.id, options.threads, options.rounds,
    ));
    match &llama {
        Some(llama) => report.condition(format!("llama.cpp {}", llama.version()?)),
        None => report.condition("llama.cpp: not measured (no --llama-cpp)"),
    }
    eprintln!("measuring the machine");
    let limits = Limits::measure(level, options.threads);
    report.condition(limits.line(level));

    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let mut files = vec![("Q4_1", options.subject.weights.clone())];
    if let Some(llama) = &llama {
        let path = folder.path().join("q4_0.gguf");
        llama.requantise(&options.subject.weights, &path)?;
        files.push(("Q4_0", path));
    }
    let mut models = Vec::new();
    for (name, path) in &files {
        let subject = Subject {
            weights: path.clone(),
            ..options.subject.clone()
        };
        models.push((
            *name,
            path,
            subject.load(options.threads, level, KV_TOKENS)?,
        ));
    }

    let mut speed = Section::new(
        format!("Speed, tokens/s ({} kernels)", level_name(level)),
        &[
            "",
            "ours",
            "llama.cpp",
            "ratio",
            "to reach",
            "of the machine",
        ],
    );
    for (name, path, model) in &models {
        measure(
            options,
            &limits,
            llama.as_ref(),
            name,
            path,
            model,
            &mut speed,
        )?;
    }
    report.add(speed);
    report.add(own(options, &models[0].2)?);
    drop(models);
    report.add(probe::table(options)?);
    // What was measured until then is shown even if a server fails.
    let mut outcome = Ok(());
    if options.http {
        match http::table(options, llama.as_ref()) {
            Ok(table) => report.add(table),
            Err(error) => outcome = Err(error.context("measuring through HTTP")),
        }
    }
    report.publish(options.json.as_deref())?;
    outcome
}

/// Prefill and decode of one file, ours and theirs in turn.
fn measure(
    options: &Options,
    limits: &Limits,
    llama: Option<&LlamaCpp>,
    name: &str,
    path: &std::path::Path,
    model: &ExactModel,
    out: &mut Section,
) -> anyhow::Result<()> {
    let threads = options.threads;
    let original = name == "Q4_1";
    let targets = match original {
        true => [Some(3.0), Some(1.5), Some(3.0)],
        false => [Some(1.4), Some(1.2), None],
    };
    let mut all: [(Samples, Samples); 3] = Default::default();
    for round in 0..options.rounds {
        eprintln!("{name}: round {} of {}", round + 1, options.rounds);
        all[0].0.add(ours::prefill(model, PROMPT)?);
        if let Some(llama) = llama {
            all[0].1.add(llama.prefill(path, threads, PROMPT)?);
        }
        all[1].0.add(ours::decode(model, 1, 1, DECODED)?);
        if let Some(llama) = llama {
            all[1].1.add(llama.decode(path, threads, DECODED)?);
        }
        let (count, prompt) = SEQUENCES;
        all[2].0.add(ours::decode(model, count, prompt, DECODED)?);
        if let Some(llama) = llama {
            all[2]
                .1
                .add(llama.decode_many(path, threads, count, prompt, DECODED)?);
        }
    }
    let size = model.size();
    let what = [
        "prefill 512",
        "decode, one sequence",
        "decode, 16 sequences, total",
    ];
    for (index, ((ours, theirs), target)) in all.iter().zip(targets).enumerate() {
        let (share, limit) = match index {
            0 => limits.of_integers(ours.median() * 2.0 * size.layer_weights as f64),
            1 => limits.of_bandwidth(ours.median() * size.bytes as f64),
            _ => (None, String::new()),
        };
        let wanted = match (index, original) {
            (0, true) => ", ≥ 50 % of the int8 peak",
            (1, true) => ", ≥ 60 % of bandwidth",
            _ => "",
        };
        let what = format!("{}, {name}", what[index]);
        let cells = vec![
            what.clone(),
            rate(ours),
            rate(theirs),
            ratio(ours, theirs).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            target.map_or_else(|| "–".to_owned(), |target| format!("≥ {target:.1}{wanted}")),
            limit,
        ];
        let value = json!({
            "what": what, "ours": ours.json(), "llama_cpp": theirs.json(),
            "ratio": ratio(ours, theirs), "target": target, "share_of_machine": share,
        });
        out.row(cells, value);
    }
    Ok(())
}

/// What has no counterpart: our replay, and what receipts and seeds cost us.
fn own(options: &Options, model: &ExactModel) -> anyhow::Result<Section> {
    let mut table = Section::new(
        "What only ours does (Q4_1)",
        &[
            "",
            "tokens/s",
            "compared with",
            "tokens/s",
            "share",
            "to reach",
        ],
    );
    let mut all: [Samples; 5] = Default::default();
    for round in 0..options.rounds {
        eprintln!(
            "replay and receipts: round {} of {}",
            round + 1,
            options.rounds
        );
        all[0].add(ours::prefill(model, PROMPT)?);
        all[1].add(ours::score(model, PROMPT)?);
        all[2].add(ours::replay(model, PROMPT)?);
        let (count, prompt) = SEQUENCES;
        // Short ones that follow each other: both see the same hour.
        all[3].add(ours::answers(
            model,
            count,
            prompt,
            DECODED,
            ours::Style::Greedy,
        )?);
        all[4].add(ours::answers(
            model,
            count,
            prompt,
            DECODED,
            ours::Style::Receipts,
        )?);
    }
    let [prefill, score, replay, greedy, receipts] = &all;
    for (what, value, base, beside, target) in [
        (
            "replay, every position drawn again",
            replay,
            "prefill 512",
            prefill,
            "≥ 85 %",
        ),
        (
            "replay, every position drawn again",
            replay,
            "prefill 512 with all logits",
            score,
            "≥ 85 %",
        ),
        (
            "logits at every position",
            score,
            "prefill 512",
            prefill,
            "–",
        ),
        (
            "16 sequences: T = 1, trace, receipts",
            receipts,
            "16 sequences: greedy",
            greedy,
            "≥ 97 %",
        ),
    ] {
        let share = ratio(value, beside);
        let cells = vec![
            what.to_owned(),
            rate(value),
            base.to_owned(),
            rate(beside),
            share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            target.to_owned(),
        ];
        let value = json!({
            "what": what, "ours": value.json(), "beside": base, "base": beside.json(),
            "share": share, "target": target,
        });
        table.row(cells, value);
    }
    Ok(table)
}
