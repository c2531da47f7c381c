//! The Unix socket of an engine: where it lies, and that it goes.
//!
//! Only its owner may connect: the file is 0600 in a folder that is 0700.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use protocol::JobId;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

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
        make_dir(run_dir)?;
        sweep(run_dir);
        let place = Self::choose(run_dir, job)?;
        let fault = |source| SocketError::Bind {
            path: place.path.clone(),
            source,
        };
        let listener = UnixListener::bind(&place.path).map_err(fault)?;
        std::fs::set_permissions(&place.path, PermissionsExt::from_mode(0o600)).map_err(fault)?;
        Ok((place, listener))
    }

    fn choose(run_dir: &Path, job: &JobId) -> Result<Self, SocketError> {
        let fits = |path: &Path| path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX;
        let path = run_dir.join(format!("{job}.{SOCKET}"));
        if fits(&path) {
            return Ok(Self {
                path,
                own_dir: None,
            });
        }
        let socket_in = |temporary: PathBuf| temporary.join(job.to_string()).join(SOCKET);
        let path = Some(socket_in(std::env::temp_dir()))
            .filter(|path| fits(path))
            .unwrap_or_else(|| socket_in(PathBuf::from("/tmp")));
        let dir = path.parent().expect("it was joined to a folder").to_owned();
        // Not recursive: a folder that somebody else made first is an error.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|source| SocketError::Dir {
                path: dir.clone(),
                source,
            })?;
        Ok(Self {
            path,
            own_dir: Some(dir),
        })
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

/// What a socket file's name ends in.
const SOCKET: &str = "sock";

/// A folder that was there before is closed to others too.
fn make_dir(path: &Path) -> Result<(), SocketError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)))
        .map_err(|source| SocketError::Dir {
            path: path.to_owned(),
            source,
        })
}

/// Removes the sockets of jobs whose owner was killed: nobody listens there.
fn sweep(run_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(run_dir) else {
        return; // binding will say what is wrong
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_socket = path.extension().is_some_and(|ending| ending == SOCKET);
        if is_socket && nobody_listens(&path) {
            // Another start may have removed it first.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// Asks without waiting: a listener that is busy is one that listens.
fn nobody_listens(path: &Path) -> bool {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let asked = SocketAddrUnix::new(path).and_then(|address| {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)
    });
    asked == Err(Errno::CONNREFUSED)
}
