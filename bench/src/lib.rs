//! Benchmarks: each prints a table that says on what machine and how it was
//! measured, and is the only source of the figures in `docs/benchmarks.md`.
//!
//! [`exact`] compares bits, [`engine`] measures speed beside llama.cpp. Figures
//! of one run belong together: machines differ, and so do their hours.

#![forbid(unsafe_code)]

pub mod engine;
pub mod exact;
mod machine;
mod report;
mod subject;
mod text;

pub use subject::Subject;
