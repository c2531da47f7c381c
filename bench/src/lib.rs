//! Benchmarks: each prints a table that says on what machine and how it was measured.

#![forbid(unsafe_code)]
