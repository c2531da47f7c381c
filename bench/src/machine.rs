//! Where a benchmark ran: what every table begins with.

use std::fs;

use models::exact::Level;
use serde_json::{Value, json};

/// A machine, as far as figures depend on it.
pub struct Machine {
    cpu: String,
    cores: usize,
    level: Level,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            level: Level::detect(),
        }
    }

    /// One line, with the load of the last minute: figures of a busy machine
    /// mean little.
    pub fn line(&self) -> String {
        let load = load().unwrap_or_else(|| "unknown".to_owned());
        format!(
            "{}, {} cores, {} kernels, load {load} before the run; countersign {}",
            self.cpu,
            self.cores,
            level_name(self.level),
            env!("CARGO_PKG_VERSION"),
        )
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cores": self.cores,
            "level": level_name(self.level),
            "load": load(),
            "countersign": env!("CARGO_PKG_VERSION"),
        })
    }
}

/// A level's name in tables.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Portable => "portable",
        Level::Avx2 => "AVX2",
        Level::Avx512 => "AVX-512",
    }
}

/// Model name, family, model and stepping: names alone say little in a cloud.
fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info
            .lines()
            .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name")?;
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => Some(format!("{name} (family {family}, model {model})")),
        _ => Some(name),
    }
}

fn load() -> Option<String> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    Some(load.split(' ').next()?.to_owned())
}
