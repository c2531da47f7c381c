//! Where things are kept: `--data DIR`, else `COUNTERSIGN_HOME`, else the XDG
//! data directory. Names every path under it that more than one subcommand uses.

#[cfg(feature = "runtime")]
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context;

/// The option that every subcommand with files of its own has.
#[derive(Debug, Clone, clap::Args)]
pub struct DataArgs {
    /// Where keys, receipts, models and known gateways are kept
    /// [default: $XDG_DATA_HOME/countersign, else ~/.local/share/countersign]
    #[arg(
        long,
        value_name = "DIR",
        env = "COUNTERSIGN_HOME",
        global = true,
        hide_env_values = true
    )]
    data: Option<PathBuf>,
}

/// The data directory.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataArgs {
    /// The directory that was named, or the one that the system has for such things.
    pub fn dir(&self) -> anyhow::Result<DataDir> {
        if let Some(named) = self
            .data
            .as_deref()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            return Ok(DataDir(
                std::path::absolute(named).context("finding the data directory")?,
            ));
        }
        let absolute = |variable| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|dir| dir.is_absolute())
        };
        absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .map(|dir| DataDir(dir.join("countersign")))
            .context("there is no data directory: give one with --data, or set HOME")
    }
}

impl DataDir {
    /// The directory itself.
    #[cfg(feature = "runtime")]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Fetched weights.
    #[cfg(feature = "runtime")]
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The key that `up` makes for the commands that it prints.
    pub fn client_key(&self) -> PathBuf {
        self.0.join("keys/client.pem")
    }

    /// The key that `verify run` makes to sign verdicts.
    #[cfg(feature = "runtime")]
    pub fn auditor_key(&self) -> PathBuf {
        self.0.join("keys/auditor.pem")
    }

    /// Sockets of running engines.
    #[cfg(feature = "runtime")]
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Makes the folder of the keys, its owner's alone.
    #[cfg(feature = "runtime")]
    pub fn make_keys_folder(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = self.0.join("keys");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making {}", folder.display()))
    }

    /// Gateway keys that were used before.
    pub fn known_gateways(&self) -> PathBuf {
        self.0.join("known-gateways.toml")
    }
}
