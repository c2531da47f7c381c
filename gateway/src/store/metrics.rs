//! How the store fares: commits, their sizes, and what failed.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

use super::StoreError;
use crate::metrics::register;

/// What the writer measures.
#[derive(Debug, Clone)]
pub(crate) struct StoreMetrics {
    commit_seconds: Histogram,
    batch_changes: Histogram,
    failures: IntCounter,
}

impl StoreMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        Self {
            commit_seconds: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "countersign_gateway_store_commit_seconds",
                        "Time from taking a batch of changes to its commit",
                    )
                    .buckets(vec![
                        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
                    ]),
                ),
            ),
            batch_changes: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "countersign_gateway_store_batch_changes",
                        "Changes that shared one commit",
                    )
                    .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]),
                ),
            ),
            failures: register(
                registry,
                IntCounter::new(
                    "countersign_gateway_store_failures_total",
                    "Commits that failed",
                ),
            ),
        }
    }

    pub(super) fn committed(&self, took: Duration, size: usize, commit: &Result<(), StoreError>) {
        self.commit_seconds.observe(took.as_secs_f64());
        self.batch_changes.observe(size as f64);
        if commit.is_err() {
            self.failures.inc();
        }
    }
}
