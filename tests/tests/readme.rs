//! The README's commands do what it says: the two that it begins with, and
//! the two that the first of them prints.
//!
//! `cargo run --release` is done by the binary that cargo built for this test;
//! `tests/run` is what is running this, so it is looked at only.

// A broken expectation is a failed test, in helpers too.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;
use tests::up::Up;
use tests::workspace::{self, root};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");

/// What stands in the README's `sh` blocks, line by line.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks = readme.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    lines.map(str::to_owned).collect()
}

#[test]
fn it_begins_with_two_commands() {
    let commands = commands();
    assert_eq!(commands[..2], ["cargo run --release", "tests/run"]);
    let script = root().join("tests/run").metadata().unwrap();
    assert_eq!(
        script.permissions().mode() & 0o111,
        0o111,
        "tests/run can be run"
    );
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("tests/run"), "CI runs the same");
}

#[test]
fn the_first_command_serves_and_what_it_prints_works() {
    let data = TempDir::with_prefix("countersign-").unwrap();
    // No subcommand, as in the README; only ports and folders are the test's.
    let mut command = Command::new(BINARY);
    command
        .args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .arg("--models")
        .arg(workspace::models());
    let began = Instant::now();
    let up = Up::run(command, data.path()).unwrap_or_else(|ended| panic!("{ended:?}"));
    println!("ready in {:.1} s", began.elapsed().as_secs_f64());
    let banner = up.banner.join("\n");
    assert!(
        banner.contains("did:key:z6Mk"),
        "the gateway's DID: {banner}"
    );
    let printed = |word: &str| {
        let line = up.banner.iter().find(|line| line.contains(word));
        let line = line.unwrap_or_else(|| panic!("no {word} in {banner}"));
        line.trim().to_owned()
    };

    let answer = shell(&printed("curl "), &data);
    assert!(answer.contains("\"receipt\""), "{answer}");

    let chat = printed(" chat --url ");
    let (text, said) = shell_both(&chat, &data);
    assert!(!text.trim().is_empty(), "the answer is on stdout");
    assert!(
        said.lines()
            .last()
            .is_some_and(|line| line.contains("verified")),
        "{said}"
    );
}

#[test]
fn every_subcommand_that_it_names_is_there() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let rows = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `countersign "));
    let mut known = 0;
    for row in rows {
        // Words in lower case are subcommands: `receipt show FILE`, `model list`.
        let usage = row.split('`').next().unwrap();
        let words = usage
            .split_whitespace()
            .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        let words: Vec<&str> = words.map(|word| word.trim_end_matches(',')).collect();
        let told = Command::new(BINARY)
            .args(&words)
            .arg("--help")
            .output()
            .unwrap();
        assert!(told.status.success(), "countersign {words:?} --help");
        known += 1;
    }
    assert!(known >= 4, "the README has a table of commands");
}

fn shell(command: &str, data: &TempDir) -> String {
    shell_both(command, data).0
}

/// Runs a printed command as a user would, with the built binary on the path.
fn shell_both(command: &str, data: &TempDir) -> (String, String) {
    let folder = std::path::Path::new(BINARY).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let told = Command::new("sh")
        .args(["-c", command])
        .env("PATH", path)
        .env("COUNTERSIGN_HOME", data.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(told.stderr).unwrap();
    assert!(told.status.success(), "{command}: {stderr}");
    (String::from_utf8(told.stdout).unwrap(), stderr)
}
