//! The local executor with real processes.
//!
//! This binary starts itself again: as `engine CONFIG` it is an engine that
//! behaves as its configuration says (`engine`), as `parent …` it is somebody
//! who starts one (`parent`), else it runs the tests (`tests`).

#![allow(clippy::unwrap_used)] // tests

mod engine;
mod parent;
mod tests;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        ["engine", config] => engine::run(config),
        ["parent", run_dir] => parent::run(run_dir.as_ref()),
        ["--list", ..] => tests::list(),
        _ => tests::run(&arguments[1..]),
    }
}
