//! `countersign key`: makes key files and shows the name that goes with one.

use std::path::PathBuf;
use std::process::ExitCode;

use client::keyfile;

/// What to do with a key file.
#[derive(Debug, clap::Subcommand)]
pub enum Key {
    /// Make a new Ed25519 key in FILE (PKCS#8 PEM, mode 0600) and print its DID
    ///
    /// An existing file is never overwritten. There is no copy of the key
    /// anywhere else: keep the file.
    New {
        /// Where to write the key
        file: PathBuf,
    },
    /// Print the DID (the public name) of the key in FILE
    ///
    /// A key file that others may read is refused.
    Show {
        /// The key file
        file: PathBuf,
    },
}

/// Runs it.
pub fn run(key: &Key) -> anyhow::Result<ExitCode> {
    let key = match key {
        Key::New { file } => keyfile::create(file)?,
        Key::Show { file } => keyfile::load(file)?,
    };
    println!("{}", key.did());
    Ok(ExitCode::SUCCESS)
}
