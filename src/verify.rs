//! `countersign verify`: computes saved answers again, and says which are true.

use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use client::keyfile;
use client::known::KnownGateways;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::Whitelist;
use protocol::verdict::{Finding, Word};
use protocol::{Did, SigningKey, UnixMs};
use verifier::{Auditor, Entry, Progress, Report, Settings};

use crate::data_dir::{DataArgs, DataDir};
use crate::terminal::harmless;

/// What to judge.
#[derive(Debug, clap::Subcommand)]
pub enum VerifyCommand {
    /// Check and replay the answers that `chat --save` kept
    ///
    /// Every receipt is checked, its answer computed again to the bit, and a
    /// verdict signed. The exit status is 0 if all match, 3 if one is false or
    /// malformed, 4 if nothing is false but not all could be judged, and 1 if
    /// the audit itself couldn't run.
    Run(RunArgs),
}

/// What to judge, and by what.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// A saved answer, or a folder that holds any number of them
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Write every verdict with its evidence to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the report as JSON instead of a summary
    #[arg(long)]
    json: bool,
    /// The key that signs verdicts
    /// [default: keys/auditor.pem in the data directory, made if it isn't there]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The gateway's key [default: the one that `chat` has kept for the receipt's authority]
    #[arg(long, value_name = "DID")]
    trust: Option<Did>,
    /// Where weights are kept [default: models in the data directory]
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// KV cache, in tokens [default: 16384, or what one context needs]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    kv_tokens: usize,
}

/// Runs it.
pub fn run(command: VerifyCommand, data: &DataArgs) -> anyhow::Result<ExitCode> {
    match command {
        VerifyCommand::Run(args) => audit(args, &data.dir()?),
    }
}

fn audit(args: RunArgs, data: &DataDir) -> anyhow::Result<ExitCode> {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let settings = Settings {
        gateway: args.trust,
        known: KnownGateways::load(&data.known_gateways())?,
        whitelist: Whitelist::embedded().to_vec(),
        models: args.models.unwrap_or_else(|| data.models()),
        threads: args.threads.unwrap_or_else(cores),
        kv_tokens: args.kv_tokens,
    };
    let key = auditor_key(args.key.as_deref(), data)?;
    // Before the work, so that a path which can't be written costs none of it.
    let file = args.report.as_deref().map(open).transpose()?;
    let bar = bar();
    let show = &mut |progress: Progress| {
        bar.set_length(progress.all as u64);
        bar.set_position(progress.done as u64);
    };
    let report = Auditor::new(settings, key).run(&args.dir, &now, show);
    bar.finish_and_clear();
    let report = report?;
    if let (Some(path), Some(file)) = (&args.report, file) {
        write(&report, file).with_context(|| format!("writing {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", json(&report)?),
        false => write!(out, "{}", summary(&report, &args.dir)),
    }
    .context("writing to stdout")?;
    Ok(status(&report))
}

/// The exit status that scripts go by.
fn status(report: &Report) -> ExitCode {
    let counts = &report.counts;
    if counts.mismatch + counts.malformed > 0 {
        return ExitCode::from(3);
    }
    match counts.matching + counts.tolerated == counts.all() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(4),
    }
}

fn auditor_key(named: Option<&Path>, data: &DataDir) -> anyhow::Result<SigningKey> {
    if let Some(file) = named {
        return Ok(keyfile::load(file)?);
    }
    let file = data.auditor_key();
    if file.exists() {
        return Ok(keyfile::load(&file)?);
    }
    data.make_keys_folder()?;
    let key = keyfile::create(&file)?;
    eprintln!(
        "made a key for verdicts, {}, in {}",
        key.did(),
        file.display()
    );
    Ok(key)
}

/// The owner's alone, if it is new; what is in it stays until there is a report.
fn open(path: &Path) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    (options.open(path)).with_context(|| format!("writing {}", path.display()))
}

fn write(report: &Report, mut file: File) -> anyhow::Result<()> {
    let text = json(report)? + "\n";
    // A device or a pipe has no length.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(file.write_all(text.as_bytes())?)
}

fn json(report: &Report) -> anyhow::Result<String> {
    serde_json::to_string_pretty(report).context("making JSON of the report")
}

/// For a person: what isn't a match with its evidence, then the counts.
fn summary(report: &Report, dir: &Path) -> String {
    let mut text = String::new();
    let few = report.answers.len() <= FEW;
    for entry in &report.answers {
        if few || entry.word() != Some(Word::Match) {
            text += &entry_lines(entry, dir);
        }
    }
    let counts = &report.counts;
    let words = [
        (counts.matching, "match"),
        (counts.tolerated, "tolerated"),
        (counts.mismatch, "mismatch"),
        (counts.unverifiable, "unverifiable"),
        (counts.malformed, "malformed"),
        (counts.unreadable, "no saved answer"),
    ];
    let words: Vec<String> = (words.iter())
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let rate = report.tokens as f64 / report.seconds.max(1e-9);
    if report.skipped > 0 {
        text += &format!("{} unfinished folders were skipped\n", report.skipped);
    }
    text + &format!(
        "{} answers: {}; {} tokens judged in {:.1} s ({rate:.0} tokens/s); signed by {}\n",
        counts.all(),
        words.join(", "),
        report.tokens,
        report.seconds,
        report.auditor,
    )
}

fn entry_lines(entry: &Entry, dir: &Path) -> String {
    let folder = entry.folder.strip_prefix(dir).unwrap_or(&entry.folder);
    let folder = match folder.as_os_str().is_empty() {
        true => dir,
        false => folder,
    };
    let word = entry.word().map_or("no saved answer", Word::as_str);
    let fault = entry.verdict.as_ref().and_then(|verdict| verdict.fault);
    let fault = fault.map_or(String::new(), |fault| format!(" (fault: {fault})"));
    let request = entry.request.as_deref().unwrap_or("");
    let folder = one_line(&folder.display().to_string());
    let mut text = format!("{word:<12}  {folder}  {}{fault}\n", one_line(request));
    if let Some(why) = &entry.unreadable {
        text += &format!("    {}\n", one_line(why));
    }
    for finding in entry.verdict.iter().flat_map(|verdict| &verdict.findings) {
        text += &format!("    {}\n", one_line(&finding_line(finding, entry)));
    }
    text
}

fn finding_line(finding: &Finding, entry: &Entry) -> String {
    let mut line = format!("{}: ", finding.check);
    if let Some(choice) = finding.choice {
        line += &format!("choice {choice}, ");
    }
    if let Some(position) = finding.position {
        line += &format!("position {position}, ");
    }
    line += &finding.says;
    let shown = |value: &String| {
        let quote = entry
            .quotes
            .iter()
            .find(|quote| finding.check == "token" && quote.token.to_string() == *value);
        quote.map_or(value.clone(), |quote| format!("{value} {:?}", quote.text))
    };
    if let Some(claimed) = &finding.claimed {
        line += &format!("; claimed {}", shown(claimed));
    }
    if let Some(expected) = &finding.expected {
        line += &format!("; expected {}", shown(expected));
    }
    if let Some(margin) = finding.margin {
        line += &format!("; the claimed one lost by {margin:.3}");
    }
    if let Some(rule) = &finding.excluded {
        line += &format!("; {rule} leaves the claimed one out");
    }
    line
}

/// Words from elsewhere never make a second line.
fn one_line(text: &str) -> String {
    harmless(&text.replace(['\n', '\t'], " "))
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    UnixMs(u64::try_from(ms).unwrap_or(u64::MAX))
}

/// For a person; a log needs none.
fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} answers, {eta}")
        .expect("a constant template is well-formed");
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

/// So many answers are all listed, the true ones too.
const FEW: usize = 20;
