//! Where things are: the repository, the model, and the interpreters that
//! `tests/run` prepared.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the repository")
}

/// The folder with the embedded model, which tests never fetch themselves.
pub fn models() -> PathBuf {
    let folder = match std::env::var_os("COUNTERSIGN_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => root().join("target/models"),
    };
    let filled = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    assert!(
        filled,
        "no model in {}: run tests/run, which fetches it",
        folder.display()
    );
    folder
}

/// Every file that git tracks, relative to the root.
pub fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(listed.status.success(), "git ls-files failed");
    let text = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    text.split_terminator('\0')
        .map(PathBuf::from)
        .filter(|path| root().join(path).exists())
        .collect()
}

/// A script of `tests/python`, to be run by the environment that `tests/run` makes.
pub fn python(script: &str) -> Command {
    foreign("tests/.env/python/bin/python", "tests/python", script)
}

/// A script of `tests/node`, to be run by the Node that `tests/run` found.
pub fn node(script: &str) -> Command {
    foreign("tests/.env/bin/node", "tests/node", script)
}

fn foreign(interpreter: &str, folder: &str, script: &str) -> Command {
    let interpreter = root().join(interpreter);
    assert!(
        interpreter.exists(),
        "{} is missing: run tests/run, which makes it",
        interpreter.display()
    );
    let mut command = Command::new(interpreter);
    command
        .arg(root().join(folder).join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
