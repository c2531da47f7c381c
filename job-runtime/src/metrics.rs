//! What the engine counts: vLLM's names under our prefix, the label `model_name`.
//!
//! [`Metrics`] is made once per job and shared; [`Metrics::text`] is what
//! `GET /metrics` answers.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use protocol::receipt::Finish;

/// Counters, gauges and histograms of one engine.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub time_to_first_token_seconds: Histogram,
    pub inter_token_latency_seconds: Histogram,
    pub e2e_request_latency_seconds: Histogram,
    pub num_requests_running: IntGauge,
    pub num_requests_waiting: IntGauge,
    pub num_requests_parked: IntGauge,
    pub kv_cache_usage_perc: prometheus::Gauge,
    pub prompt_tokens_total: IntCounter,
    pub generation_tokens_total: IntCounter,
    pub num_preemptions_total: IntCounter,
    pub prefix_cache_queries_total: IntCounter,
    pub prefix_cache_hits_total: IntCounter,
    pub receipt_checkpoints_total: IntCounter,
    request_success_total: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(model_name: &str) -> Self {
        let registry = Registry::new();
        let make = Maker {
            registry: &registry,
            model_name,
        };
        let metrics = Self {
            time_to_first_token_seconds: make.histogram(
                "time_to_first_token_seconds",
                "From the beginning of a request to its first token.",
                &[
                    0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
                ],
            ),
            inter_token_latency_seconds: make.histogram(
                "inter_token_latency_seconds",
                "Between two tokens of one choice.",
                &[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0],
            ),
            e2e_request_latency_seconds: make.histogram(
                "e2e_request_latency_seconds",
                "From the beginning of a request to its receipt.",
                &[
                    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
                ],
            ),
            num_requests_running: make.gauge("num_requests_running", "Requests in the batch."),
            num_requests_waiting: make.gauge(
                "num_requests_waiting",
                "Requests that wait to enter the batch.",
            ),
            num_requests_parked: make.gauge(
                "num_requests_parked",
                "Requests that sit out because their reader is behind.",
            ),
            kv_cache_usage_perc: make.register(
                prometheus::Gauge::with_opts(make.opts(
                    "kv_cache_usage_perc",
                    "Share of the KV blocks that sequences hold, 0 to 1.",
                ))
                .expect("the name is valid"),
            ),
            prompt_tokens_total: make.counter("prompt_tokens_total", "Prompt tokens computed."),
            generation_tokens_total: make.counter("generation_tokens_total", "Tokens drawn."),
            num_preemptions_total: make.counter(
                "num_preemptions_total",
                "Sequences that gave their KV cache back.",
            ),
            prefix_cache_queries_total: make.counter(
                "prefix_cache_queries_total",
                "Prompt tokens that were looked for in the prefix cache.",
            ),
            prefix_cache_hits_total: make.counter(
                "prefix_cache_hits_total",
                "Prompt tokens that were found there, and not computed.",
            ),
            receipt_checkpoints_total: make.counter(
                "receipt_checkpoints_total",
                "Receipts of answers that went on.",
            ),
            request_success_total: make.register(
                IntCounterVec::new(
                    make.opts(
                        "request_success_total",
                        "Choices in receipts, by how they ended.",
                    ),
                    &["finished_reason"],
                )
                .expect("the name is valid"),
            ),
            registry: registry.clone(),
        };
        for finish in FINISHES {
            // Zero from the start, so that a rate sees the first one.
            metrics
                .request_success_total
                .with_label_values(&[finish.as_str()]);
        }
        metrics
    }

    /// Counts a choice of a signed receipt.
    pub(crate) fn finished(&self, finish: Finish) {
        self.request_success_total
            .with_label_values(&[finish.as_str()])
            .inc();
    }

    /// Everything, as Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("every metric has a name and a value")
    }
}

const FINISHES: [Finish; 6] = [
    Finish::Stop,
    Finish::Length,
    Finish::Cancelled,
    Finish::Refused,
    Finish::Error,
    Finish::Deadline,
];

struct Maker<'a> {
    registry: &'a Registry,
    model_name: &'a str,
}

impl Maker<'_> {
    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help)
            .namespace("countersign")
            .const_label("model_name", self.model_name)
    }

    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.registry
            .register(Box::new(collector.clone()))
            .expect("every name is registered once");
        collector
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts).expect("the buckets ascend"))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.opts(name, help)).expect("the name is valid"))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.opts(name, help)).expect("the name is valid"))
    }
}
