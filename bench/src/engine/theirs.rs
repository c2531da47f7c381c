//! llama.cpp's own benchmarks, run as they are.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;

/// A folder with its programs.
#[derive(Debug)]
pub struct LlamaCpp(PathBuf);

impl LlamaCpp {
    /// The folder itself, or its `bin` or `build/bin`.
    pub fn find(folder: &Path) -> anyhow::Result<Self> {
        let places = ["", "bin", "build/bin"].map(|place| folder.join(place));
        places
            .into_iter()
            .find(|place| place.join("llama-bench").exists())
            .map(Self)
            .with_context(|| format!("there is no llama-bench in {}", folder.display()))
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.0.join(name));
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Which version it is, and which instructions it was built for.
    pub fn version(&self) -> anyhow::Result<String> {
        let output = Command::new(self.0.join("llama-server"))
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .context("starting llama-server")?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("version") || line.starts_with("built"));
        Ok(lines.collect::<Vec<_>>().join(", "))
    }

    /// Writes the same weights as Q4_0 to `to`.
    pub fn requantise(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let mut command = self.program("llama-quantize");
        command
            .arg("--allow-requantize")
            .arg(from)
            .arg(to)
            .arg("Q4_0");
        let status = command.stdout(Stdio::null()).status();
        let status = status.context("starting llama-quantize")?;
        anyhow::ensure!(status.success(), "llama-quantize failed: {status}");
        Ok(())
    }

    /// Tokens a second of a prompt.
    pub fn prefill(&self, file: &Path, threads: usize, count: usize) -> anyhow::Result<f64> {
        self.bench(file, threads, count, 0)
    }

    /// Tokens a second of one sequence.
    pub fn decode(&self, file: &Path, threads: usize, count: usize) -> anyhow::Result<f64> {
        self.bench(file, threads, 0, count)
    }

    fn bench(
        &self,
        file: &Path,
        threads: usize,
        prompt: usize,
        decode: usize,
    ) -> anyhow::Result<f64> {
        let mut command = self.program("llama-bench");
        command.arg("-m").arg(file);
        for (name, value) in [("-t", threads), ("-p", prompt), ("-n", decode), ("-r", 3)] {
            command.arg(name).arg(value.to_string());
        }
        let output = command.args(["-o", "json"]).output();
        let output = output.context("starting llama-bench")?;
        let value: Value = serde_json::from_slice(&output.stdout).context("reading llama-bench")?;
        let samples = value[0]["samples_ts"].as_array().into_iter().flatten();
        let mut rates: Vec<f64> = samples.filter_map(Value::as_f64).collect();
        rates.sort_by(f64::total_cmp);
        let middle = rates.get(rates.len() / 2);
        middle.copied().context("llama-bench printed no samples")
    }

    /// Tokens a second of `count` sequences together.
    pub fn decode_many(
        &self,
        file: &Path,
        threads: usize,
        count: usize,
        prompt: usize,
        decode: usize,
    ) -> anyhow::Result<f64> {
        let mut command = self.program("llama-batched-bench");
        command.arg("-m").arg(file);
        let context = (count * (prompt + decode)).next_multiple_of(1024);
        for (name, value) in [
            ("-t", threads),
            ("-c", context),
            ("-npp", prompt),
            ("-ntg", decode),
            ("-npl", count),
        ] {
            command.arg(name).arg(value.to_string());
        }
        let output = command.args(["--output-format", "jsonl"]).output();
        let output = output.context("starting llama-batched-bench")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = text.lines().rev().find_map(|line| {
            let value: Value = serde_json::from_str(line.trim()).ok()?;
            value["speed_tg"].as_f64()
        });
        rate.context("llama-batched-bench printed no speed")
    }
}
