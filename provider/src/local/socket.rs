//! The Unix socket of an engine: where it lies, and that it goes.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use protocol::JobId;

/// A socket file, removed when this is dropped, together with its folder if
/// that was made for it.
#[derive(Debug)]
pub(super) struct SocketPlace {
    path: PathBuf,
    own_dir: Option<PathBuf>,
}

/// Why an engine's socket couldn't be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The folder.
    #[error("creating the folder {}", .path.display())]
    Dir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket.
    #[error("listening on {}", .path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SocketPlace {
    /// Listens on a new socket, mode 0600, in `run_dir` (made with mode 0700);
    /// in a new private folder below the system's temporary one if the path
    /// would be longer than a socket address holds.
    pub(super) fn bind(run_dir: &Path, job: &JobId) -> Result<(Self, UnixListener), SocketError> {
        let name = format!("{job}.sock");
        let wanted = run_dir.join(&name);
        let place = if wanted.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
            make_dir(run_dir)?;
            SocketPlace {
                path: wanted,
                own_dir: None,
            }
        } else {
            // The job's id is 128 random bits: nobody can have made this folder before.
            let dir = std::env::temp_dir().join(job.to_string());
            make_dir(&dir)?;
            SocketPlace {
                path: dir.join("engine.sock"),
                own_dir: Some(dir),
            }
        };
        let fault = |source| SocketError::Bind {
            path: place.path.clone(),
            source,
        };
        let listener = UnixListener::bind(&place.path).map_err(fault)?;
        std::fs::set_permissions(&place.path, PermissionsExt::from_mode(0o600)).map_err(fault)?;
        Ok((place, listener))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the name is never used again.
        let _ = std::fs::remove_file(&self.path);
        if let Some(dir) = &self.own_dir {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Longest path of a Unix socket on Linux, in bytes, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn make_dir(path: &Path) -> Result<(), SocketError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| SocketError::Dir {
            path: path.to_owned(),
            source,
        })
}
