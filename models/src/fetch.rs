//! Gets a model's weight file into the models folder, once, and proves on
//! every start that it is the right one.
//!
//! Sources are tried in the manifest's order, each through its ordinary
//! client; what one delivers is used only if its SHA-256 is the manifest's.
//! Everything unfinished lies in a work folder of its own, which the next
//! start removes. Start at [`ensure`].

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::Digest;
use protocol::digest::Hasher;
use protocol::manifest::{Identity, Manifest, Source, WheelFile};

mod error;
#[cfg(feature = "hub")]
mod hub;
mod pypi;
mod watch;

pub use error::{FetchError, SourceError};

use error::io_error;

/// How far a download has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes in all, as the manifest says. Packed files are smaller, so a download may end early.
    pub total: u64,
    /// Where they come from, in words.
    pub source: &'a str,
}

/// Called several times a second while something is fetched.
pub type OnProgress<'a> = dyn FnMut(Progress<'_>) + 'a;

/// The model's verified weight file under `dir`, fetched if it isn't there. Blocks.
pub fn ensure(
    manifest: &Manifest,
    dir: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<PathBuf, FetchError> {
    Fetcher::default().ensure(manifest, dir, progress)
}

/// Where a model's weight file lies, or would lie, under `dir`.
pub fn path(manifest: &Manifest, dir: &Path) -> PathBuf {
    let identity = &manifest.identity;
    let name = identity.id.replace('/', "-");
    let digest = identity.weights_sha256.to_string();
    dir.join(format!("{name}-{}.gguf", &digest[..12]))
}

/// Fetches with these clients.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// The Python whose `pip` serves the sources of kind `pypi`.
    pub python: OsString,
}

impl Default for Fetcher {
    fn default() -> Fetcher {
        Fetcher {
            python: "python3".into(),
        }
    }
}

/// How often a download, or another process's lock, is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the models folder has under a weight file's name.
#[derive(Debug, PartialEq, Eq)]
enum Present {
    Right,
    Wrong,
    Nothing,
}

impl Fetcher {
    /// See [`ensure`].
    pub fn ensure(
        &self,
        manifest: &Manifest,
        dir: &Path,
        progress: &mut OnProgress<'_>,
    ) -> Result<PathBuf, FetchError> {
        let path = path(manifest, dir);
        fs::create_dir_all(dir).map_err(io_error("creating", dir))?;
        if present(&path, &manifest.identity)? == Present::Right {
            return Ok(path);
        }
        let _lock = lock(dir, manifest, progress)?;
        // Another process may have fetched it while this one waited.
        match present(&path, &manifest.identity)? {
            Present::Right => return Ok(path),
            Present::Wrong => set_aside(&path)?,
            Present::Nothing => {}
        }
        self.fetch(manifest, &path, dir, progress)?;
        Ok(path)
    }

    fn fetch(
        &self,
        manifest: &Manifest,
        path: &Path,
        dir: &Path,
        progress: &mut OnProgress<'_>,
    ) -> Result<(), FetchError> {
        let mut tried = Vec::new();
        for source in &manifest.sources {
            let name = describe(source);
            let work = WorkFolder::new(dir)?;
            let total = manifest.identity.weights_bytes;
            let mut progress = |bytes: u64| {
                progress(Progress {
                    bytes: bytes.min(total),
                    total,
                    source: &name,
                });
            };
            let mut from_pypi =
                |parts| pypi::fetch(&self.python, parts, total, &work.0, &mut progress);
            let delivered = match source {
                Source::Pypi(file) => from_pypi(std::slice::from_ref(file)),
                Source::PypiParts { parts } => from_pypi(parts),
                #[cfg(feature = "hub")]
                Source::Hub {
                    repo,
                    revision,
                    file,
                } => hub::fetch(repo, revision, file, &work.0, &mut progress),
                #[cfg(not(feature = "hub"))]
                Source::Hub { .. } => Err(SourceError::NotBuilt),
            };
            match delivered.and_then(|file| checked(file, &manifest.identity)) {
                Ok(file) => return install(&file, path, dir),
                Err(error) => {
                    tracing::warn!(source = name, %error, "the source didn't deliver");
                    tried.push((name, error));
                }
            }
        }
        Err(FetchError::Unavailable {
            id: manifest.identity.id.clone(),
            tried,
            path: path.to_owned(),
            sha256: manifest.identity.weights_sha256,
        })
    }
}

fn describe(source: &Source) -> String {
    match source {
        Source::Pypi(WheelFile {
            package, version, ..
        }) => format!("PyPI ({package} {version})"),
        Source::PypiParts { parts } => {
            let first = &parts[0];
            let (package, version, more) = (&first.package, &first.version, parts.len() - 1);
            format!("PyPI ({package} {version} and {more} more)")
        }
        Source::Hub { repo, .. } => format!("the Hugging Face hub ({repo})"),
    }
}

/// One process at a time fetches into a folder; the others wait here.
fn lock(
    dir: &Path,
    manifest: &Manifest,
    progress: &mut OnProgress<'_>,
) -> Result<File, FetchError> {
    let path = dir.join(".lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(io_error("opening", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                let total = manifest.identity.weights_bytes;
                progress(Progress {
                    bytes: 0,
                    total,
                    source: "another process, which fetches it",
                });
                std::thread::sleep(LOOK_EVERY);
            }
            Err(TryLockError::Error(error)) => return Err(io_error("locking", &path)(error)),
        }
    }
}

/// Reads the whole file: its name and length prove nothing.
fn present(path: &Path, identity: &Identity) -> Result<Present, FetchError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Present::Nothing),
        Err(error) => return Err(io_error("looking at", path)(error)),
    };
    if length != identity.weights_bytes {
        return Ok(Present::Wrong);
    }
    let found = digest(path).map_err(io_error("reading", path))?;
    let right = found == identity.weights_sha256;
    Ok(if right {
        Present::Right
    } else {
        Present::Wrong
    })
}

fn digest(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// A file that isn't what it should be is kept for a look, out of the way.
fn set_aside(path: &Path) -> Result<(), FetchError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".corrupt");
    let aside = PathBuf::from(aside);
    tracing::warn!(path = %path.display(), "the weight file is corrupt: fetching it again");
    fs::rename(path, &aside).map_err(io_error("moving away", path))
}

fn checked(file: PathBuf, identity: &Identity) -> Result<PathBuf, SourceError> {
    let action = |source| SourceError::Io {
        action: "reading what was delivered",
        source,
    };
    let found = digest(&file).map_err(action)?;
    let expected = identity.weights_sha256;
    if found == expected {
        Ok(file)
    } else {
        Err(SourceError::Digest { expected, found })
    }
}

/// Durable first, visible second.
fn install(file: &Path, path: &Path, dir: &Path) -> Result<(), FetchError> {
    let sync = |path: &Path| File::open(path)?.sync_all();
    sync(file).map_err(io_error("writing out", file))?;
    fs::rename(file, path).map_err(io_error("moving into place", path))?;
    sync(dir).map_err(io_error("writing out", dir))
}

/// Holds whatever is unfinished. Empty when made, gone when dropped.
struct WorkFolder(PathBuf);

impl WorkFolder {
    fn new(dir: &Path) -> Result<WorkFolder, FetchError> {
        let path = dir.join(".fetching");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("removing", &path)(error));
            }
            _ => {}
        }
        fs::create_dir(&path).map_err(io_error("creating", &path))?;
        Ok(WorkFolder(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // If this fails, the next start tries again.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests;
