//! Bound listeners: a port or a socket path that is already ours.
//!
//! Binding is apart from serving so that addresses are known, and faults
//! told, before anything runs. Both kinds also come from a listener that
//! somebody else bound.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// A TCP port that is ours.
#[derive(Debug)]
pub struct TcpBound {
    pub(crate) listener: TcpListener,
    address: SocketAddr,
}

impl TcpBound {
    /// Binds `address`; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let fault = |source| BindError::Tcp { address, source };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Self { listener, address })
    }

    /// The address that was bound, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listening Unix socket that is ours.
#[derive(Debug)]
pub struct UnixBound {
    pub(crate) listener: UnixListener,
    path: Option<SocketFile>,
}

impl UnixBound {
    /// Makes the socket file `path` (mode 0600) and listens there. The file
    /// is removed with the listener. It must not exist yet.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let fault = |source| BindError::Unix {
            path: path.to_owned(),
            source,
        };
        let listener = UnixListener::bind(path).map_err(fault)?;
        let file = SocketFile(path.to_owned());
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(fault)?;
        Ok(Self {
            listener,
            path: Some(file),
        })
    }

    /// Takes over a listener that was bound elsewhere, say, inherited from
    /// the parent process. Its socket file is not ours to remove.
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> Result<Self, BindError> {
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(BindError::Inherited)?;
        Ok(Self {
            listener,
            path: None,
        })
    }

    /// The socket file, where we made it.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref().map(|file| file.0.as_path())
    }
}

/// Removes the socket file when dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody is left to react to a file that is already gone.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why we can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken, or not ours to take.
    #[error("listening on {address}")]
    Tcp {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket file can't be made.
    #[error("listening on socket {}", path.display())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The inherited descriptor is no listening socket that we can use.
    #[error("taking over a listening socket")]
    Inherited(#[source] io::Error),
}
