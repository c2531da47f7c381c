//! `countersign bench`: compares bits, and measures speed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::bench::{Subject, engine, exact};
use anyhow::Context;
use models::{Level, Whitelist};
use protocol::Digest;
use protocol::manifest::Manifest;

use crate::data_dir::DataArgs;
use crate::model;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Compare final hidden states and logits, bit by bit
    ///
    /// The same text is computed one by one, in chunks, among neighbours, on
    /// one thread and two, with every set of kernels that this CPU has, after
    /// cache hits and preemptions, and by the scalar reference. The exit
    /// status is 0 only if no bit differs.
    Exact {
        #[command(flatten)]
        subject: SubjectArgs,
        /// Compare 100,000 tokens in each row, and 2,000 with the reference: hours
        #[arg(long)]
        full: bool,
        /// Tokens that each row compares [default: 4096]
        #[arg(long, value_name = "N")]
        tokens: Option<usize>,
        /// The text to compute [default: a novel that comes with the program]
        #[arg(long, value_name = "FILE")]
        text: Option<PathBuf>,
        /// Write the table to FILE as JSON too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Measure the engine's speed, beside llama.cpp if it is there
    Engine {
        #[command(flatten)]
        subject: SubjectArgs,
        /// The folder with llama-bench, llama-batched-bench, llama-server and
        /// llama-quantize [default: only ours is measured]
        #[arg(long, value_name = "DIR")]
        llama_cpp: Option<PathBuf>,
        /// Measure through HTTP too: signed requests, receipts checked
        #[arg(long)]
        http: bool,
        /// Rounds of each measurement; medians are shown
        #[arg(long, value_name = "N", default_value_t = 5)]
        rounds: usize,
        /// Threads of every engine
        #[arg(long, value_name = "N", default_value_t = 2)]
        threads: usize,
        /// Our kernels, `avx2` or `portable` where the CPU has better ones [default: the
        /// best]; a fresh process and HTTP are measured with the best
        #[arg(long, value_name = "KERNELS", value_parser = level)]
        level: Option<Level>,
        /// Write the tables to FILE as JSON too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Load the model, draw one token, and print what that took: run by `bench engine`
    #[command(hide = true)]
    Probe {
        #[command(flatten)]
        subject: SubjectArgs,
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

/// Which model to measure.
#[derive(Debug, clap::Args)]
pub struct SubjectArgs {
    /// The model's id [default: the embedded one that `up` serves]
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// Where weights are kept [default: models in the data directory]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The weight file of a whitelisted model, wherever it lies
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "models"])]
    model_file: Option<PathBuf>,
}

/// Runs it.
pub fn run(command: BenchCommand, data: &DataArgs) -> anyhow::Result<ExitCode> {
    let good = match command {
        BenchCommand::Exact {
            subject,
            full,
            tokens,
            text,
            json,
        } => exact::run(&exact::Options {
            subject: subject.find(data)?,
            tokens,
            full,
            text,
            json,
        })?,
        BenchCommand::Engine {
            subject,
            llama_cpp,
            http,
            rounds,
            threads,
            level,
            json,
        } => {
            engine::run(&engine::Options {
                subject: subject.find(data)?,
                program: std::env::current_exe().context("finding this program")?,
                llama_cpp,
                http,
                rounds: rounds.max(1),
                threads: threads.max(1),
                level: level.unwrap_or_else(Level::detect),
                json,
            })?;
            true
        }
        BenchCommand::Probe { subject, threads } => {
            engine::probe::run(&subject.find(data)?, threads)?;
            true
        }
    };
    Ok(match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

impl SubjectArgs {
    fn find(&self, data: &DataArgs) -> anyhow::Result<Subject> {
        if let Some(file) = &self.model_file {
            return Ok(Subject {
                manifest: manifest_of(file)?,
                weights: file.clone(),
            });
        }
        let manifest = model::find(self.model.as_deref())?;
        let folder = match &self.models {
            Some(folder) => folder.clone(),
            None => data.dir()?.models(),
        };
        let weights = model::ensure(manifest, &folder)?;
        Ok(Subject { manifest, weights })
    }
}

/// Kernels that this CPU has, by name.
fn level(name: &str) -> Result<Level, String> {
    let available = Level::available();
    let names: Vec<&str> = available.iter().map(|level| level.name()).collect();
    let found = available.iter().find(|level| level.name() == name);
    found
        .copied()
        .ok_or_else(|| format!("this CPU has {}", names.join(", ")))
}

/// The whitelisted model that this file has the weights of.
fn manifest_of(file: &Path) -> anyhow::Result<&'static Manifest> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let digest = Digest::of(&bytes);
    Whitelist::embedded()
        .iter()
        .find(|manifest| manifest.identity.weights_sha256 == digest)
        .with_context(|| format!("{} isn't a whitelisted model's file", file.display()))
}
