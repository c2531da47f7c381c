//! The child's side: an engine never outlives whoever started it.

use std::io;
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// For the child, before anything else: asks the system to kill this process
/// when its parent dies, and makes sure that the parent was still there to
/// be watched.
///
/// # Errors
///
/// If the system refuses, if standard input isn't the socket that [`super::start`]
/// hands over, or if whoever made that socket is gone.
pub fn die_with_parent() -> Result<(), ParentError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| ParentError::Watch(error.into()))?;
    // A listening socket remembers the process that made it.
    let maker = socket_peercred(io::stdin().as_fd())
        .map_err(|error| ParentError::Socket(error.into()))?
        .pid;
    if getppid() == Some(maker) {
        Ok(())
    } else {
        Err(ParentError::Gone)
    }
}

/// Why a child can't be sure to end with its parent.
#[derive(Debug, thiserror::Error)]
pub enum ParentError {
    /// The parent-death signal.
    #[error("asking for a signal when the parent dies")]
    Watch(#[source] io::Error),
    /// Standard input isn't a listening Unix socket.
    #[error("standard input isn't the socket that a provider hands over")]
    Socket(#[source] io::Error),
    /// The parent died first.
    #[error("whoever started this process is gone")]
    Gone,
}
