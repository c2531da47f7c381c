//! The data directory: held by one process at a time.
//!
//! Owns the lock that says who holds it and the names of what lies in it for
//! the gateway. What the files contain belongs to `gateway_key` and `store`.
//! Start at [`DataDir::hold`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// A data directory that this process alone holds, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // The kernel frees the lock when the last descriptor closes, so a killed
    // process never leaves a directory locked.
    _lock: File,
}

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process serves from it.
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    Held {
        /// The directory.
        path: PathBuf,
        /// The holder, if it has written its process id yet.
        pid: Option<u32>,
    },
    /// It couldn't be made.
    #[error("making the data directory {}", path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its lock file couldn't be opened, locked or written.
    #[error("locking {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if need be and takes its lock, without waiting.
    pub fn hold(path: &Path) -> Result<Self, DataDirError> {
        make_private_dir(path).map_err(|source| DataDirError::Make {
            path: path.to_owned(),
            source,
        })?;
        let lock_path = path.join("lock");
        let failed = |source| DataDirError::Lock {
            path: lock_path.clone(),
            source,
        };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(DataDirError::Held {
                    path: path.to_owned(),
                    pid: read_pid(&mut lock),
                });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database of nonces, receipts and credentials.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("gateway.sqlite")
    }

    /// The folder of the keys, made if need be, its owner's alone.
    pub(crate) fn keys(&self) -> io::Result<PathBuf> {
        let keys = self.path.join("keys");
        make_private_dir(&keys)?;
        Ok(keys)
    }
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_holder_learns_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::hold(dir.path()).unwrap();
        // flock is per open file, so the same process stands in for another.
        let refused = DataDir::hold(dir.path()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "{} is in use by process {}",
                dir.path().display(),
                std::process::id()
            )
        );
        drop(first);
        DataDir::hold(dir.path()).unwrap();
    }

    #[test]
    fn stale_longer_pid_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "4294967295\n").unwrap();
        let _held = DataDir::hold(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_file_in_its_place_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        std::fs::write(&path, "").unwrap();
        let text = DataDir::hold(&path).unwrap_err().to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}
