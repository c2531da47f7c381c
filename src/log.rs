//! Logs: to stderr, one line each, filtered once at the start.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// What is logged unless another filter is given.
pub const DEFAULT: &str = "info";

/// Starts logging what `filter` lets through, such as `info` or `gateway=debug,warn`.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = parse(filter)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Reads a filter.
pub fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("{filter:?} isn't a log filter, such as info or gateway=debug"))
}
