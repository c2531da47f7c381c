//! How far a download has come: a bar for a person, plain lines for a log.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::fetch::Progress;

/// Shows one download on stderr. Nothing is shown before it begins.
pub struct Download {
    name: String,
    /// Where the bytes come from at the moment.
    source: String,
    /// On a terminal only.
    bar: Option<ProgressBar>,
    /// What the last plain line said.
    tenths: u64,
}

impl Download {
    /// A download that hasn't begun.
    pub fn new(name: &str) -> Self {
        Download {
            name: name.to_owned(),
            source: String::new(),
            bar: std::io::stderr().is_terminal().then(bar),
            tenths: 0,
        }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: Progress<'_>) {
        if self.source != progress.source {
            self.begin(progress);
        }
        match &self.bar {
            Some(bar) => bar.set_position(progress.bytes),
            None => self.line(progress),
        }
    }

    /// Says where the bytes come from, also when one source after another is tried.
    fn begin(&mut self, progress: Progress<'_>) {
        progress.source.clone_into(&mut self.source);
        self.tenths = 0;
        let line = format!("fetching {} from {}", self.name, self.source);
        match &self.bar {
            Some(bar) => {
                bar.set_length(progress.total);
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.println(line);
            }
            None => eprintln!("{line}"),
        }
    }

    fn line(&mut self, progress: Progress<'_>) {
        let tenths = (progress.bytes * 10)
            .checked_div(progress.total)
            .unwrap_or(0);
        if tenths > self.tenths {
            self.tenths = tenths;
            eprintln!("fetching {}: {} %", self.name, tenths * 10);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{wide_bar} {binary_bytes} of {binary_total_bytes}, {eta}")
            .expect("a constant template is well-formed");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style)
}
