//! `countersign engine`: one job, as `up` starts it. Hidden, because nobody
//! else has a socket to hand it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use job_runtime::EngineConfig;
use tokio::signal::unix::{SignalKind, signal};
use transport::Drain;

use crate::log;

/// How one engine is started.
#[derive(Debug, clap::Args)]
pub struct EngineArgs {
    /// The engine's configuration, as JSON; there are no secrets in it
    json: String,
}

/// How long open answers may go on after SIGTERM. Whoever sends it has closed
/// the front door before, and kills what takes longer.
const GRACE: Duration = Duration::from_secs(10);

/// Runs it, on the listening socket that is its standard input.
pub fn run(args: &EngineArgs) -> anyhow::Result<ExitCode> {
    provider::local::die_with_parent().context("tying the engine's life to its gateway's")?;
    log::start(log::DEFAULT)?;
    let config: EngineConfig =
        serde_json::from_str(&args.json).context("reading the engine's configuration")?;
    let socket = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("taking the socket from stdin")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting")?;
    runtime.block_on(serve(config, UnixListener::from(socket)))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: EngineConfig, socket: UnixListener) -> anyhow::Result<()> {
    // Ctrl-C reaches every process of a terminal; when this one ends is its parent's to say.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let drain = Drain::new();
    let serving = job_runtime::serve(config, socket, drain.signal());
    let mut serving = std::pin::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(anyhow::Error::from),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => drain.begin(GRACE),
        }
    }
}
