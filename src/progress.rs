//! How far a download has come: a bar for a person, plain lines for a log.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::fetch::Progress;

/// Shows one download on stderr.
pub struct Download {
    name: String,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { source: String, tenths: u64 },
}

impl Download {
    /// Nothing is shown before the first byte is on its way.
    pub fn new(name: &str) -> Self {
        let shown = match std::io::stderr().is_terminal() {
            true => Shown::Bar(bar()),
            false => Shown::Lines {
                source: String::new(),
                tenths: 0,
            },
        };
        Download {
            name: name.to_owned(),
            shown,
        }
    }

    /// Shows how far it is.
    pub fn show(&mut self, progress: Progress<'_>) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.set_length(progress.total);
                bar.set_prefix(self.name.clone());
                bar.set_message(format!("from {}", progress.source));
                bar.set_position(progress.bytes);
            }
            Shown::Lines { source, tenths } => {
                if *source != progress.source {
                    progress.source.clone_into(source);
                    *tenths = 0;
                    eprintln!("fetching {} from {source}", self.name);
                }
                let now = (progress.bytes * 10)
                    .checked_div(progress.total)
                    .unwrap_or(0);
                if now > *tenths {
                    *tenths = now;
                    eprintln!("fetching {}: {} %", self.name, now * 10);
                }
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left {msg}",
    )
    .expect("the template is tested by every download");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style)
}
