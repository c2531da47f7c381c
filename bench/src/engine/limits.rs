//! The machine's limits, measured in the same run.

use models::exact::Level;
use models::exact::peak;

/// What could be reached at most.
pub struct Limits {
    /// Bytes a second, from memory.
    memory: f64,
    /// Bytes a second, from a buffer as large as a small model: part of it may
    /// stay in a large last-level cache.
    model_sized: f64,
    integers: Option<f64>,
}

impl Limits {
    /// Takes a few seconds.
    pub fn measure(level: Level, threads: usize) -> Self {
        let best = |measure: &dyn Fn() -> f64| (0..3).map(|_| measure()).fold(0.0, f64::max);
        Self {
            memory: best(&|| peak::read_bandwidth(level, threads, 1 << 30, 2)),
            model_sized: best(&|| peak::read_bandwidth(level, threads, 96 << 20, 20)),
            integers: peak::integer_peak(level, threads).map(|first| {
                f64::max(
                    first,
                    best(&|| peak::integer_peak(level, threads).unwrap_or(0.0)),
                )
            }),
        }
    }

    /// What was measured, for the table's head.
    pub fn line(&self, level: Level) -> String {
        let integers = match self.integers {
            Some(rate) => format!(
                "{:.0} Gop/s ({})",
                rate / 1e9,
                peak::integer_instructions(level)
            ),
            None => "not measured for portable kernels".to_owned(),
        };
        format!(
            "the machine: {:.1} GB/s read from 1 GiB, {:.1} GB/s from 96 MiB; int8 peak {integers}",
            self.memory / 1e9,
            self.model_sized / 1e9,
        )
    }

    /// A share of the integer peak, and how tables say it.
    pub fn of_integers(&self, operations: f64) -> (Option<f64>, String) {
        match self.integers {
            None => (None, String::new()),
            Some(peak) => {
                let share = operations / peak;
                (
                    Some(share),
                    format!("{:.0} % of the int8 peak", 100.0 * share),
                )
            }
        }
    }

    /// A share of the bandwidth of a buffer as large as the model.
    pub fn of_bandwidth(&self, bytes: f64) -> (Option<f64>, String) {
        let (memory, model) = (bytes / self.memory, bytes / self.model_sized);
        let text = format!(
            "{:.0} % of bandwidth ({:.0} % of the 96 MiB buffer's)",
            100.0 * memory,
            100.0 * model
        );
        (Some(memory), text)
    }
}
