//! What becomes of relayed requests and their receipts.

use std::time::Instant;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use protocol::receipt::{Finish, VerifiedReceipt};

use crate::metrics::register;
use crate::problem::Problem;

/// What the relays measure, together.
#[derive(Debug, Clone)]
pub(crate) struct RelayMetrics {
    in_flight: IntGauge,
    seconds: Histogram,
    receipts: IntCounterVec,
    without_receipt: IntCounter,
    failures: IntCounterVec,
    clients_left: IntCounter,
}

/// Counts a request as in flight until it is dropped.
pub(super) struct InFlight {
    metrics: RelayMetrics,
    began: Instant,
}

impl RelayMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let seconds = HistogramOpts::new(
            "countersign_gateway_relay_seconds",
            "Time from asking the engine to the end of its answer",
        );
        let seconds = seconds.buckets(vec![
            0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
        ]);
        Self {
            in_flight: register(
                registry,
                IntGauge::new(
                    "countersign_gateway_relays_running",
                    "Requests that an engine is answering, drained ones included",
                ),
            ),
            seconds: register(registry, Histogram::with_opts(seconds)),
            receipts: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "countersign_gateway_receipts_total",
                        "Receipts stored, by how their first choice ended",
                    ),
                    &["finished_reason"],
                ),
            ),
            without_receipt: register(
                registry,
                IntCounter::new(
                    "countersign_gateway_without_receipt_total",
                    "Relayed requests that ended without a receipt",
                ),
            ),
            failures: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "countersign_gateway_relay_failures_total",
                        "Answers that an engine or the store spoiled",
                    ),
                    &["code"],
                ),
            ),
            clients_left: register(
                registry,
                IntCounter::new(
                    "countersign_gateway_clients_left_total",
                    "Clients that left before their stream ended",
                ),
            ),
        }
    }

    pub(super) fn began(&self) -> InFlight {
        self.in_flight.inc();
        InFlight {
            metrics: self.clone(),
            began: Instant::now(),
        }
    }

    pub(super) fn ended(&self, has_receipt: bool) {
        if !has_receipt {
            self.without_receipt.inc();
        }
    }

    pub(super) fn kept(&self, receipt: &VerifiedReceipt) {
        let claims = receipt.claims();
        let finish = claims.output.first().map(|first| first.finish);
        // A choice may have ended before a checkpoint of the others.
        let label = match claims.part {
            0 => finish.map_or("none", |finish| finish.as_str()),
            _ => Finish::Open.as_str(),
        };
        self.receipts.with_label_values(&[label]).inc();
    }

    pub(super) fn failed(&self, problem: &Problem) {
        self.failures.with_label_values(&[problem.code()]).inc();
    }

    pub(super) fn client_left(&self) {
        self.clients_left.inc();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics
            .seconds
            .observe(self.began.elapsed().as_secs_f64());
    }
}
