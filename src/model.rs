//! `countersign model`: what may be served, and getting it beforehand.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use models::{Whitelist, fetch};
use protocol::manifest::Manifest;

use crate::data_dir::DataArgs;
use crate::progress::Download;

/// What to do with models.
#[derive(Debug, clap::Subcommand)]
pub enum ModelCommand {
    /// List the models that this build may serve, and their digests
    List,
    /// Fetch a model's weights, check them, and print where they lie
    ///
    /// Weights that are there already are checked and never fetched again.
    Fetch {
        /// The model's id [default: the embedded one that `up` serves]
        id: Option<String>,
        /// Where weights are kept [default: models in the data directory]
        #[arg(long, value_name = "DIR")]
        models: Option<PathBuf>,
    },
}

/// Runs it.
pub fn run(command: &ModelCommand, data: &DataArgs) -> anyhow::Result<ExitCode> {
    match command {
        ModelCommand::List => {
            for manifest in Whitelist::embedded() {
                println!("{} {}", manifest.identity.id, manifest.digest());
            }
        }
        ModelCommand::Fetch { id, models } => {
            let folder = match models {
                Some(folder) => folder.clone(),
                None => data.dir()?.models(),
            };
            let weights = ensure(find(id.as_deref())?, &folder)?;
            println!("{}", weights.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The whitelisted model with this id; without one, the one that is served by default.
pub fn find(id: Option<&str>) -> anyhow::Result<&'static Manifest> {
    let Some(id) = id else {
        return Ok(&Whitelist::embedded()[0]);
    };
    Whitelist::by_id(id).with_context(|| {
        format!("{id:?} isn't on the whitelist: `countersign model list` shows what is")
    })
}

/// The model's checked weights, fetched if need be, with their progress on stderr.
pub fn ensure(manifest: &Manifest, folder: &Path) -> anyhow::Result<PathBuf> {
    let mut download = Download::new(&manifest.identity.id);
    fetch::ensure(manifest, folder, &mut |progress| download.show(progress))
        .with_context(|| format!("getting the weights of {}", manifest.identity.id))
}
