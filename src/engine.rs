//! engine
#[derive(Debug, clap::Args)]
pub struct EngineArgs {}
pub fn run(_: &EngineArgs) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("soon")
}
