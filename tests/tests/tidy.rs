//! The rules of ARCHITECTURE.md and CONTRIBUTING.md that a machine can see:
//! who imports what, how a file opens, and what may not be committed.
//!
//! Start at [`ROWS`] and [`HOMES`]. A rule lists every fault, with the file's name.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::workspace::{root, tracked};

/// Which crates of ours each crate may import: ARCHITECTURE.md, "Crates".
const ROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("transport", &[]),
    ("models", &["protocol"]),
    ("job-runtime", &["models", "transport", "protocol"]),
    ("provider", &["transport", "protocol"]),
    ("gateway", &["transport", "protocol"]),
    ("client", &["transport", "protocol"]),
    ("verifier", &["models", "client", "protocol"]),
];

/// May import anything of ours.
const WIRING: &[&str] = &["bench", "tests", "countersign"];

/// Foreign crates with one home, by the start of their name.
const HOMES: &[(&str, &str)] = &[
    ("candle", "models"),
    ("tokenizers", "models"),
    ("minijinja", "models"),
    ("hyper", "transport"),
    ("quinn", "transport"),
    ("h3", "transport"),
    ("sqlx", "gateway"),
    ("object_store", "gateway"),
    ("kube", "provider"),
    ("ed25519", "protocol"),
];

#[test]
fn crates_import_within_their_row() {
    let packages = packages();
    let ours: Vec<&str> = packages
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let mut faults = Vec::new();
    for package in &packages {
        let name = text(&package["name"]);
        if WIRING.contains(&name) {
            continue;
        }
        let Some((_, row)) = ROWS.iter().find(|(known, _)| *known == name) else {
            faults.push(format!(
                "{name} has no row: give it one, here and in ARCHITECTURE.md"
            ));
            continue;
        };
        for import in dependencies(package) {
            if ours.contains(&import) && !row.contains(&import) {
                faults.push(format!("{name} imports {import}"));
            }
        }
    }
    none(&faults);
}

#[test]
fn foreign_crates_stay_at_home() {
    let mut faults = Vec::new();
    for package in &packages() {
        let name = text(&package["name"]);
        for import in dependencies(package) {
            for (foreign, home) in HOMES {
                if import.starts_with(foreign) && name != *home {
                    faults.push(format!("{name} imports {import}, which belongs to {home}"));
                }
            }
        }
    }
    none(&faults);
}

#[test]
fn protocol_has_no_clock_and_no_io() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::time",
        "SystemTime",
        "Instant::",
        "async fn",
        "getrandom::",
    ];
    let mut faults = Vec::new();
    for (path, code) in sources(".rs") {
        let pure = path.starts_with("protocol/src") && !path.ends_with("tests.rs");
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for word in banned.iter().filter(|word| pure && code.contains(**word)) {
            faults.push(format!("{} says {word}", path.display()));
        }
    }
    none(&faults);
}

#[test]
fn unsafe_is_forbidden_where_it_must_be() {
    let mut faults = Vec::new();
    for (path, code) in sources(".rs") {
        let crate_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if crate_root && !path.starts_with("models") && !code.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{} lacks #![forbid(unsafe_code)]", path.display()));
        }
        // An `unsafe` block says on the lines above it why it holds.
        let lines: Vec<&str> = code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let opens = line.contains("unsafe {") || line.contains("unsafe impl");
            let said = lines[at.saturating_sub(6)..=at]
                .iter()
                .any(|line| line.contains("SAFETY"));
            if path.starts_with("models") && opens && !said {
                faults.push(format!(
                    "{}:{} has no SAFETY comment",
                    path.display(),
                    at + 1
                ));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_open_by_saying_what_they_own() {
    let mut faults = Vec::new();
    for (ending, opening) in [
        (".rs", "//!"),
        (".py", "\"\"\""),
        (".mjs", "//"),
        (".sql", "--"),
    ] {
        for (path, code) in sources(ending) {
            if !code.starts_with(opening) {
                faults.push(format!("{} doesn't open with {opening}", path.display()));
            }
        }
    }
    none(&faults);
}

#[test]
fn files_are_named_after_nouns_and_fit_a_reader() {
    let vague = [
        "mod", "utils", "util", "common", "helpers", "helper", "types", "misc",
    ];
    let mut faults = Vec::new();
    for (path, code) in [".rs", ".py", ".mjs"]
        .iter()
        .flat_map(|ending| sources(ending))
    {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if vague.contains(&stem) {
            faults.push(format!("{}: name it after what it owns", path.display()));
        }
        let lines = code.lines().count();
        if lines > 800 {
            faults.push(format!("{} has {lines} lines: split it", path.display()));
        }
    }
    none(&faults);
}

#[test]
fn tests_neither_sleep_nor_hide() {
    // Written apart, so that this file doesn't find itself.
    let ignored = concat!("#[", "ignore");
    let sleeps = concat!("sleep", "(");
    let mut faults = Vec::new();
    for (path, code) in [".rs", ".py", ".mjs"]
        .iter()
        .flat_map(|ending| sources(ending))
    {
        let test = path.starts_with("tests") || path.ends_with("tests.rs");
        if code.contains(ignored) {
            faults.push(format!("{} ignores a test", path.display()));
        }
        if test && code.contains(sleeps) {
            faults.push(format!("{} sleeps", path.display()));
        }
    }
    none(&faults);
}

#[test]
fn nothing_of_this_machine_is_committed() {
    // A folder right under the file system's root has a name that could mean anything.
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let private: Vec<String> = [home, Some(root().to_owned())]
        .into_iter()
        .flatten()
        .filter(|folder| folder == Path::new("/root") || folder.components().count() > 2)
        .map(|folder| format!("{}/", folder.display()))
        .collect();
    let mut faults = Vec::new();
    for (path, content) in sources("") {
        for word in &private {
            if content.contains(word.as_str()) {
                faults.push(format!("{} says {word}", path.display()));
            }
        }
    }
    none(&faults);
}

#[test]
fn lock_files_name_no_private_registry() {
    let mut faults = Vec::new();
    for (path, content) in sources("package-lock.json") {
        if content.contains("\"resolved\"") {
            faults.push(format!("{} says where packages came from", path.display()));
        }
    }
    for (path, content) in sources("Cargo.lock") {
        let foreign = content
            .lines()
            .filter_map(|line| line.strip_prefix("source = "))
            .filter(|source| {
                *source != r#""registry+https://github.com/rust-lang/crates.io-index""#
            });
        faults.extend(foreign.map(|source| format!("{} has a source {source}", path.display())));
    }
    none(&faults);
}

#[test]
fn documents_link_to_what_is_there() {
    let mut faults = Vec::new();
    for (path, content) in sources(".md") {
        let folder = path.parent().unwrap_or(Path::new(""));
        for link in content.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !root().join(folder).join(target).exists() {
                faults.push(format!(
                    "{} links to {target}, which isn't there",
                    path.display()
                ));
            }
        }
    }
    none(&faults);
}

/// The packages of this workspace, as cargo sees them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let told = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&told.stdout).expect("metadata is JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .clone();
    assert!(packages.len() >= ROWS.len(), "every row has a crate");
    packages
}

/// Names of all dependencies of a package: of its build and its tests too.
fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    let list = package["dependencies"]
        .as_array()
        .expect("a list of dependencies");
    list.iter().map(|dependency| text(&dependency["name"]))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// Tracked files with that ending which are text, with their content.
fn sources(ending: &str) -> Vec<(PathBuf, String)> {
    tracked()
        .into_iter()
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending)))
        .filter_map(|path| {
            Some((
                path.clone(),
                std::fs::read_to_string(root().join(&path)).ok()?,
            ))
        })
        .collect()
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}
