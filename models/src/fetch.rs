//! Gets a model's weight file into the data directory, once, and proves on
//! every start that it is the right one.
//!
//! Start at [`ensure`].

use std::path::{Path, PathBuf};

use protocol::manifest::Manifest;

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes in all, as the manifest says.
    pub total: u64,
    /// Where they come from, in words.
    pub source: &'a str,
}

/// Why there is no weight file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The folder or a file in it can't be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}

/// Where a model's weight file lies, or would lie, under `dir`.
pub fn path(manifest: &Manifest, dir: &Path) -> PathBuf {
    let identity = &manifest.identity;
    let digest = identity.weights_sha256.to_string();
    dir.join(format!("{}-{}.gguf", identity.id, &digest[..12]))
}

/// The model's verified weight file under `dir`, fetched if it isn't there.
///
/// Blocks; `progress` is called several times a second while a download runs. Whatever a
/// source delivers is served only if its SHA-256 is the manifest's.
pub fn ensure(
    manifest: &Manifest,
    dir: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, FetchError> {
    let _ = (manifest, dir, progress);
    todo!()
}
