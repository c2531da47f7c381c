//! The gateway's own key, made at first start.
//!
//! A PKCS#8 PEM file, mode 0600, in the data directory's `keys` folder. A file
//! that others can read is refused: whoever read it can sign credentials.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::SigningKey;
use zeroize::Zeroizing;

use crate::data_dir::DataDir;

/// Why there is no usable gateway key.
#[derive(Debug, thiserror::Error)]
pub enum GatewayKeyError {
    /// The file, or its folder, couldn't be read or written.
    #[error("using the gateway key {}", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else than its owner can read or write it.
    #[error(
        "the gateway key {} is open to others (mode {mode:o}): run chmod 600 on it, or delete it if others may have read it", path.display()
    )]
    OpenToOthers {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It isn't an Ed25519 key.
    #[error("reading the gateway key {}", path.display())]
    Content {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: protocol::key::KeyError,
    },
    /// The system gave no random bytes.
    #[error("drawing a gateway key")]
    Random(#[source] getrandom::Error),
}

/// Reads the gateway's key, or makes it if there is none yet.
pub(crate) fn load_or_make(data: &DataDir) -> Result<SigningKey, GatewayKeyError> {
    let path = data.path().join("keys").join("gateway.pem");
    let failed = |source| GatewayKeyError::File {
        path: path.clone(),
        source,
    };
    let keys = data.keys().map_err(failed)?;
    let pem = match fs::metadata(&path) {
        Ok(found) => {
            let mode = found.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(GatewayKeyError::OpenToOthers { path, mode });
            }
            Zeroizing::new(fs::read_to_string(&path).map_err(failed)?)
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut()).map_err(GatewayKeyError::Random)?;
            let pem = SigningKey::from_seed(*seed).to_pkcs8_pem();
            write_durably(&keys, &path, pem.as_bytes()).map_err(failed)?;
            pem
        }
        Err(source) => return Err(failed(source)),
    };
    SigningKey::from_pkcs8_pem(&pem).map_err(|source| GatewayKeyError::Content {
        path: path.clone(),
        source,
    })
}

/// Whole or not at all: a start that was cut off leaves no half key behind.
fn write_durably(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("pem.partial");
    let _ = fs::remove_file(&partial);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_kept_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::hold(dir.path()).unwrap();
        let made = load_or_make(&data).unwrap().did();
        let path = dir.path().join("keys/gateway.pem");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert_eq!(load_or_make(&data).unwrap().did(), made);
    }

    #[test]
    fn readable_by_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::hold(dir.path()).unwrap();
        load_or_make(&data).unwrap();
        let path = dir.path().join("keys/gateway.pem");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = load_or_make(&data).unwrap_err().to_string();
        assert!(text.contains("mode 640"), "{text}");
    }

    #[test]
    fn garbage_is_an_error_and_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::hold(dir.path()).unwrap();
        let path = data.keys().unwrap().join("gateway.pem");
        write_durably(path.parent().unwrap(), &path, b"not a key").unwrap();
        load_or_make(&data).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"not a key");
    }
}
