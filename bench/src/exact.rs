//! `countersign bench exact`: are final hidden states and logits the same bits
//! however they are computed?
//!
//! What must come out is computed once, window by window, each alone and in
//! one chunk; then every `Way` computes the same positions, and every number
//! is compared. Start at [`run`].

mod compare;
mod neighbours;
mod ways;

use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use anyhow::Context;
use models::exact::{ExactModel, Level, POSITIONS, Reference};
use serde_json::json;

use crate::machine::level_name;
use crate::report::{Report, Section};
use crate::subject::Subject;
use crate::text::{self, BOOK, BOOK_NAME};
use compare::{Comparison, Expected};
use ways::Way;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// The model.
    pub subject: Subject,
    /// Tokens that each row compares at least; none: as many as take minutes.
    pub tokens: Option<usize>,
    /// As many tokens as are promised: 100,000, and 2,000 for the reference.
    pub full: bool,
    /// A text of the caller's.
    pub text: Option<PathBuf>,
    /// Where to write the table as JSON.
    pub json: Option<PathBuf>,
}

/// Tokens that a row compares.
struct Budget {
    kernels: usize,
    /// Portable kernels are for CPUs without AVX2, and slow.
    portable: usize,
    /// The reference is written to be read.
    reference: usize,
}

/// Sequences side by side at most.
const NEIGHBOURS: [usize; 6] = [2, 3, 4, 8, 16, 32];
/// Chunks of a prompt.
const CHUNKS: [usize; 5] = [1, 7, 32, 128, 512];
/// Positions of a window that the reference computes, whose time grows with them.
const REFERENCE_WINDOW: usize = 125;

/// Compares, prints the table, and says whether every bit was the same.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let budget = budget(options);
    let (text, name) = match &options.text {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            (text, path.display().to_string())
        }
        None => (BOOK.to_owned(), BOOK_NAME.to_owned()),
    };
    let tokens = options.subject.tokens(&text)?;
    anyhow::ensure!(!tokens.is_empty(), "the text is empty");
    let windows = text::windows(&tokens, budget.kernels);
    let mut report = Report::new("exact");
    report.condition(format!(
        "model {}, text: {name}, {} of its {} tokens, in windows of 31 to 1,024",
        options.subject.manifest.identity.id,
        windows.iter().map(Vec::len).sum::<usize>(),
        tokens.len(),
    ));
    report.condition(
        "expected: each window alone, in one chunk, on 2 threads with this CPU's best kernels; \
         compared: every bit of final hidden states and logits",
    );

    let best = Level::detect();
    let mut bench = Bench {
        options,
        section: Section::new(
            "Exactness",
            &["condition", "tokens", "differing values", "seconds"],
        ),
        differing: 0,
    };
    // Many sequences are many windows: short ones, where minutes count.
    let longest = |count: usize| match options.full {
        true => usize::MAX,
        false => usize::max(64, budget.kernels / count),
    };
    let two = bench.load(2, best)?;
    eprintln!("computing what is expected");
    let start = Instant::now();
    let expected = Expected::compute(&two, windows)?;
    bench.done(
        "expected: alone, one chunk, 2 threads",
        expected.tokens(),
        None,
        start,
    );

    for chunk in CHUNKS {
        let what = match chunk {
            1 => "one by one (decode)".to_owned(),
            _ => format!("prefill in chunks of {chunk}"),
        };
        bench.compare(&what, &two, &two, &expected, &Way::Chunks(chunk))?;
    }
    for count in NEIGHBOURS {
        let what = format!("among {count} sequences, any slot, prefill and decode mixed");
        bench.compare(
            &what,
            &two,
            &two,
            &expected,
            &Way::Among(count, longest(count)),
        )?;
    }
    bench.compare(
        "after a prefix-cache hit",
        &two,
        &two,
        &expected,
        &Way::Prefix,
    )?;
    bench.compare(
        "after neighbours were cancelled",
        &two,
        &two,
        &expected,
        &Way::Cancelled,
    )?;
    bench.compare(
        "preempted and recomputed, and beside such",
        &two,
        &two,
        &expected,
        &Way::Preempted,
    )?;

    let one = bench.load(1, best)?;
    bench.compare(
        "1 thread, chunks of 128",
        &one,
        &two,
        &expected,
        &Way::Chunks(128),
    )?;
    bench.compare(
        "1 thread, one by one",
        &one,
        &two,
        &expected,
        &Way::Chunks(1),
    )?;
    bench.compare(
        "1 thread, among 8",
        &one,
        &two,
        &expected,
        &Way::Among(8, longest(8)),
    )?;
    drop(one);

    for level in [Level::Avx512, Level::Avx2, Level::Portable] {
        let name = level_name(level);
        if !Level::available().contains(&level) {
            bench.not_run(&format!("{name} kernels"), "this CPU doesn't have them");
            continue;
        }
        if level == best {
            continue;
        }
        let model = bench.load(2, level)?;
        let ways = [
            ("chunks of 128", Way::Chunks(128)),
            ("one by one", Way::Chunks(1)),
            ("among 8", Way::Among(8, longest(8))),
        ];
        let expected = match level {
            Level::Portable => &expected.first(budget.portable),
            _ => &expected,
        };
        let ways = match level {
            Level::Portable => &ways[..1],
            _ => &ways[..],
        };
        for (what, way) in ways {
            let what = format!("{name} kernels, {what}");
            bench.compare(&what, &model, &two, expected, way)?;
        }
    }
    bench.reference(&two, &expected, budget.reference)?;

    let same = bench.differing == 0;
    report.condition(format!("best kernels here: {}", level_name(best)));
    report.add(bench.section);
    report.publish(options.json.as_deref())?;
    match same {
        true => println!("\nno bit differs"),
        false => println!("\nBITS DIFFER"),
    }
    Ok(same)
}

fn budget(options: &Options) -> Budget {
    let kernels = match (options.tokens, options.full) {
        (Some(tokens), _) => tokens.max(1),
        (None, true) => 100_000,
        (None, false) => 4_096,
    };
    match options.full {
        true => Budget {
            kernels,
            portable: kernels,
            reference: usize::min(kernels, 2_000),
        },
        false => Budget {
            kernels,
            portable: kernels.div_ceil(8),
            reference: usize::min(kernels, 125),
        },
    }
}

struct Bench<'a> {
    options: &'a Options,
    section: Section,
    differing: u64,
}

impl Bench<'_> {
    fn load(&self, threads: usize, level: Level) -> anyhow::Result<ExactModel> {
        // Room for 32 sequences of the longest window, and a block each to spare.
        let most = NEIGHBOURS[NEIGHBOURS.len() - 1] + 1;
        self.options
            .subject
            .load(threads, level, most * (1024 + POSITIONS))
    }

    /// One row: `model` computes the windows that `way`.
    fn compare(
        &mut self,
        what: &str,
        model: &ExactModel,
        witness: &ExactModel,
        expected: &Expected,
        way: &Way,
    ) -> anyhow::Result<()> {
        eprintln!("{what}");
        let start = Instant::now();
        let mut comparison = Comparison::with(expected);
        way.run(model, expected.windows(), &mut comparison)?;
        let tokens = comparison.tokens();
        let differing = comparison.differing_values(witness)?;
        self.done(what, tokens, Some(differing), start);
        Ok(())
    }

    /// The scalar reference, windows on two threads.
    fn reference(
        &mut self,
        witness: &ExactModel,
        expected: &Expected,
        tokens: usize,
    ) -> anyhow::Result<()> {
        let what = "scalar reference";
        eprintln!("{what}");
        let start = Instant::now();
        let reference =
            Reference::load(&self.options.subject.weights).context("loading the reference")?;
        let mut left = tokens;
        let parts: Vec<(usize, &[u32])> = (expected.windows().iter().enumerate())
            .map(|(window, tokens)| {
                let count = usize::min(left, tokens.len().min(REFERENCE_WINDOW));
                left -= count;
                (window, &tokens[..count])
            })
            .filter(|(_, tokens)| !tokens.is_empty())
            .collect();
        let halves: [Vec<_>; 2] = [0, 1].map(|half| parts.iter().skip(half).step_by(2).collect());
        let scored: Vec<_> = thread::scope(|scope| {
            let workers = halves.map(|parts| {
                scope.spawn(|| {
                    let score =
                        |(window, tokens): &(usize, &[u32])| (*window, reference.score(tokens));
                    parts.into_iter().map(score).collect::<Vec<_>>()
                })
            });
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("the reference doesn't panic"))
                .collect()
        });
        let mut comparison = Comparison::with(expected);
        for (window, (hidden, logits)) in &scored {
            for (position, (hidden, logits)) in hidden.iter().zip(logits).enumerate() {
                comparison.see(*window, position, hidden, logits);
            }
        }
        let tokens = comparison.tokens();
        let differing = comparison.differing_values(witness)?;
        self.done(what, tokens, Some(differing), start);
        Ok(())
    }

    fn done(&mut self, what: &str, tokens: usize, differing: Option<u64>, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        self.differing += differing.unwrap_or(0);
        let cells = vec![
            what.to_owned(),
            tokens.to_string(),
            differing.map_or_else(|| "–".to_owned(), |n| n.to_string()),
            format!("{seconds:.1}"),
        ];
        let value = json!({
            "condition": what, "tokens": tokens, "differing_values": differing, "seconds": seconds,
        });
        self.section.row(cells, value);
    }

    fn not_run(&mut self, what: &str, why: &str) {
        let cells = vec![
            format!("{what}: not run, {why}"),
            "0".into(),
            "–".into(),
            "–".into(),
        ];
        self.section
            .row(cells, json!({ "condition": what, "not_run": why }));
    }
}
