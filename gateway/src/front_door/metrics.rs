//! Who comes to the front door, and who is sent away.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use super::Endpoint;
use crate::metrics::register;
use crate::problem::Problem;

/// What the front door measures.
#[derive(Debug, Clone)]
pub(crate) struct FrontDoorMetrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    admission_seconds: Histogram,
}

impl FrontDoorMetrics {
    pub(crate) fn register(registry: &Registry) -> Self {
        let admission = HistogramOpts::new(
            "countersign_gateway_admission_seconds",
            "Time from a request's last byte to its way to the engine, the nonce's commit included",
        );
        let admission = admission.buckets(vec![
            0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0,
        ]);
        Self {
            requests: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "countersign_gateway_requests_total",
                        "Requests to an engine, refused ones included",
                    ),
                    &["endpoint"],
                ),
            ),
            refused: register(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "countersign_gateway_refused_total",
                        "Requests that the gateway refused, by the code that it gave",
                    ),
                    &["code"],
                ),
            ),
            admission_seconds: register(registry, Histogram::with_opts(admission)),
        }
    }

    pub(crate) fn asked(&self, endpoint: Endpoint) {
        self.requests.with_label_values(&[endpoint.label()]).inc();
    }

    /// Codes are a closed set: they come from enums, never from a client.
    pub(crate) fn refused(&self, problem: &Problem) {
        self.refused.with_label_values(&[problem.code()]).inc();
    }

    pub(super) fn admitted(&self, took: Duration) {
        self.admission_seconds.observe(took.as_secs_f64());
    }
}
