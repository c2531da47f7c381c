//! Key files: one Ed25519 key as PKCS#8 PEM, readable by its owner alone.
//!
//! A file that others may read is refused rather than used, and nothing is
//! ever overwritten: a lost key can't be made again. Start at [`create`] and
//! [`load`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use protocol::SigningKey;
use zeroize::{Zeroize, Zeroizing};

/// A PKCS#8 Ed25519 key has about 120 bytes; room for comments around it.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why a key file can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Something already lies at this path.
    #[error("{} exists already, and a key is never overwritten: choose another name", path.display())]
    Exists {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// Someone beside the owner may read or write the file.
    #[error(
        "{} may be read by others (mode {mode:04o}): run `chmod 600 {}`, and make a new key if others had access",
        path.display(), path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The path names a folder, a device or something far larger than a key.
    #[error("{} isn't a key file", path.display())]
    NotAKeyFile {
        /// The path.
        path: PathBuf,
    },
    /// The file isn't the PKCS#8 PEM of an Ed25519 key.
    #[error("{} holds no Ed25519 key in PKCS#8 PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: protocol::key::KeyError,
    },
    /// The system's random numbers failed.
    #[error("the system gave no random numbers for a new key: {0}")]
    Random(getrandom::Error),
    /// The file system said no.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Makes a new key and writes it to `path` with mode 0600. Fails if anything
/// lies there already.
pub fn create(path: &Path) -> Result<SigningKey, KeyFileError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(KeyFileError::Random)?;
    let key = SigningKey::from_seed(seed);
    seed.zeroize();

    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists { path: path.into() },
            _ => io_error("creating", path, source),
        })?;
    file.write_all(key.to_pkcs8_pem().as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path))
        .map_err(|source| {
            // Half a key helps nobody, and would block the next try.
            let _ = std::fs::remove_file(path);
            io_error("writing", path, source)
        })?;
    Ok(key)
}

/// Reads the key in `path`, if nobody but its owner may read the file.
pub fn load(path: &Path) -> Result<SigningKey, KeyFileError> {
    let file = File::open(path).map_err(|source| io_error("opening", path, source))?;
    let about = file
        .metadata()
        .map_err(|source| io_error("looking at", path, source))?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return Err(KeyFileError::NotAKeyFile { path: path.into() });
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    let mut pem = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut pem)
        .map_err(|source| io_error("reading", path, source))?;
    SigningKey::from_pkcs8_pem(&pem).map_err(|source| KeyFileError::Malformed {
        path: path.into(),
        source,
    })
}

/// Makes the name durable too, not only the bytes.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        doing,
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_new_key_is_the_owners_alone_and_reads_back() {
        let folder = folder();
        let path = folder.path().join("client.pem");
        let made = create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("-----BEGIN PRIVATE KEY-----")
        );
        assert_eq!(load(&path).unwrap().did(), made.did());
    }

    #[test]
    fn two_keys_are_two_keys() {
        let folder = folder();
        let one = create(&folder.path().join("1")).unwrap();
        let two = create(&folder.path().join("2")).unwrap();
        assert_ne!(one.did(), two.did());
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = folder();
        let path = folder.path().join("client.pem");
        let first = create(&path).unwrap();
        assert!(matches!(create(&path), Err(KeyFileError::Exists { .. })));
        assert_eq!(load(&path).unwrap().did(), first.did());
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = folder();
        let path = folder.path().join("client.pem");
        create(&path).unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = load(&path).unwrap_err();
            assert!(matches!(refused, KeyFileError::Exposed { mode: found, .. } if found == mode));
            assert!(refused.to_string().contains("chmod 600"), "{refused}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        load(&path).unwrap();
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = folder();
        let path = folder.path().join("notes");
        fs::write(&path, "not a key").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(load(&path), Err(KeyFileError::Malformed { .. })));
        assert!(matches!(
            load(folder.path()),
            Err(KeyFileError::NotAKeyFile { .. })
        ));
        assert!(matches!(
            load(&folder.path().join("absent")),
            Err(KeyFileError::Io { .. })
        ));
    }
}
