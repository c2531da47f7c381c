//! up
#[derive(Debug, clap::Args)]
pub struct UpArgs {}
pub fn run(_: UpArgs, _: &crate::data_dir::DataDir) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("soon")
}
