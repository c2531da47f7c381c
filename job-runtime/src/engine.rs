//! The one thread that drives the model.
//!
//! Owns the batch: every request that is alive and its sequences. Between two
//! steps it takes its mail, looks after the readers, asks the scheduler, and
//! hands out what was drawn. It never waits for a client; it sleeps only when
//! nothing can run. Start at [`Engine::run`].

mod request;
mod sequence;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use models::{ForwardError, log_softmax_top};

use crate::inbox::{Mail, Receiver};
use crate::language_model::{LanguageModel, Part};
use crate::mailbox::{Cut, Delta, TokenLogprob};
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::scheduler::{Run, Scheduler, SchedulerConfig, SequenceId};

use request::Request;
pub(crate) use request::Submission;
use sequence::Sequence;

/// What the engine keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub scheduler: SchedulerConfig,
    /// How long a reader may be behind before its request ends.
    pub stall: Duration,
}

/// The batch and what drives it.
pub(crate) struct Engine<M: LanguageModel> {
    model: Arc<M>,
    notary: Arc<Notary>,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
    pace: Pace,
    inbox: Receiver<Submission>,
    requests: BTreeMap<u64, Request>,
    sequences: BTreeMap<SequenceId, Sequence<M::Cache>>,
    arrivals: u64,
    step: u64,
}

impl<M: LanguageModel> Engine<M> {
    pub(crate) fn new(
        model: Arc<M>,
        notary: Arc<Notary>,
        metrics: Arc<Metrics>,
        pace: Pace,
        inbox: Receiver<Submission>,
    ) -> Self {
        Self {
            model,
            notary,
            metrics,
            scheduler: Scheduler::new(pace.scheduler),
            pace,
            inbox,
            requests: BTreeMap::new(),
            sequences: BTreeMap::new(),
            arrivals: 0,
            step: 0,
        }
    }

    /// Runs until the inbox is closed and nothing is alive.
    pub(crate) fn run(mut self) {
        let mut wait = Some(IDLE);
        while self.turn(wait) {
            let idle = match self.requests.is_empty() {
                true => IDLE,
                false => WATCH,
            };
            wait = (!self.advance()).then_some(idle);
        }
    }

    /// Takes the mail and looks after the readers; false when the engine is done.
    fn turn(&mut self, wait: Option<Duration>) -> bool {
        let Mail {
            requests,
            cut,
            closed,
        } = self.inbox.take(wait);
        for submission in requests {
            self.begin(submission);
        }
        let now = Instant::now();
        let ended: Vec<_> = self
            .requests
            .iter_mut()
            .filter_map(|(arrival, request)| {
                let reason = request.look(now, self.pace.stall);
                Some((*arrival, reason.or(cut.then_some(Cut::Draining))?))
            })
            .collect();
        for (arrival, reason) in ended {
            self.cut(arrival, reason);
        }
        !(closed && self.requests.is_empty())
    }

    fn begin(&mut self, submission: Submission) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        let first = Sequence::new(arrival, &submission.prompt, &submission.sampling);
        self.sequences.insert(first.id, first);
        self.requests
            .insert(arrival, Request::new(submission, self.model.config()));
    }

    /// Does one step; false when nothing can run.
    fn advance(&mut self) -> bool {
        let views: Vec<_> = self
            .sequences
            .values()
            .map(|sequence| sequence.view(self.requests[&sequence.id.arrival].parked()))
            .collect();
        let step = self.scheduler.plan(&views);
        for id in &step.preempt {
            self.metrics.num_preemptions_total.inc();
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.preempt();
            }
        }
        if !step.run.is_empty() {
            self.step += 1;
            self.perform(&step.run);
        }
        self.gauge();
        !step.run.is_empty()
    }

    fn perform(&mut self, runs: &[Run]) {
        let mut caches: Vec<M::Cache> = Vec::with_capacity(runs.len());
        for run in runs {
            let cache = self.sequence(run.id).cache.take();
            caches.push(cache.unwrap_or_else(|| self.model.new_cache()));
        }
        let outcome = self.forward(runs, &mut caches);
        match outcome {
            Ok(Ok(logits)) => {
                self.restore(runs, caches);
                for (run, logits) in runs.iter().zip(&logits) {
                    self.draw(*run, M::last(logits));
                }
            }
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a step failed");
                self.restore(runs, caches);
                match blamed(&error).and_then(|chunk| runs.get(chunk)) {
                    // The others run again without it.
                    Some(run) => self.cut(run.id.arrival, Cut::Failed),
                    None => self.fail(runs),
                }
            }
            Err(_panic) => {
                tracing::error!("a step panicked");
                self.fail(runs);
            }
        }
    }

    /// Outer error: the forward pass panicked, and the caches are worth nothing.
    fn forward(
        &self,
        runs: &[Run],
        caches: &mut [M::Cache],
    ) -> std::thread::Result<Result<Vec<M::Logits>, ForwardError>> {
        let mut work: Vec<_> = runs
            .iter()
            .zip(caches)
            .map(|(run, cache)| {
                let sequence = &self.sequences[&run.id];
                Part {
                    cache,
                    tokens: sequence.next(run.tokens),
                    draw: sequence.draws_after(run.tokens),
                }
            })
            .collect();
        catch_unwind(AssertUnwindSafe(|| self.model.forward(&mut work)))
    }

    fn restore(&mut self, runs: &[Run], caches: Vec<M::Cache>) {
        for (run, cache) in runs.iter().zip(caches) {
            self.sequence(run.id).cache = Some(cache);
        }
    }

    /// A sequence has read its part; draws its next token, where that is due.
    fn draw(&mut self, run: Run, logits: Option<&[f32]>) {
        let sequence = alive(&mut self.sequences, run.id);
        let prompt_tokens = sequence.read(run.tokens, self.step);
        self.metrics
            .prompt_tokens_total
            .inc_by(prompt_tokens as u64);
        let Some(logits) = logits else {
            if sequence.drawing() {
                tracing::error!("the model gave no logits where they were asked for");
                self.cut(run.id.arrival, Cut::Failed);
            }
            return;
        };
        let sampling = &self.requests[&run.id.arrival].sampling;
        let siblings = sequence.fork(sampling, |cache| self.model.fork(cache));
        let mut choices = vec![run.id];
        for sibling in siblings {
            choices.push(sibling.id);
            self.sequences.insert(sibling.id, sibling);
        }
        for id in choices {
            if !self.draw_one(id, logits) {
                return;
            }
        }
    }

    /// Draws a choice's next token; false when the request has ended.
    fn draw_one(&mut self, id: SequenceId, logits: &[f32]) -> bool {
        let request = self
            .requests
            .get_mut(&id.arrival)
            .expect("a sequence lives as long as its request");
        let sequence = alive(&mut self.sequences, id);
        let drawn = request.sampler.sample(
            id.choice,
            sequence.position(),
            logits,
            sequence.prompt(),
            sequence.output(),
        );
        let token = match drawn {
            Ok(drawn) => drawn.token,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "no token can be drawn"
                );
                self.cut(id.arrival, Cut::Failed);
                return false;
            }
        };
        let logprob = request.logprobs.map(|k| {
            let found = log_softmax_top(logits, usize::from(k), token);
            TokenLogprob {
                token,
                logprob: found.chosen,
                top: found.top,
                offset: 0,
            }
        });
        let config = self.model.config();
        let bytes = self.model.text(token);
        let delta = sequence.push(token, bytes, logprob, &request.sampling, config);
        let ended = delta.finish.is_some();
        let now = Instant::now();
        self.metrics.generation_tokens_total.inc();
        if let Some(before) = sequence.drawn_at.replace(now) {
            self.metrics
                .inter_token_latency_seconds
                .observe(now.duration_since(before).as_secs_f64());
        }
        if request.absorb(&delta, now, &self.metrics) {
            self.close(id.arrival, vec![delta], None);
            return false;
        }
        request.show(delta);
        if ended {
            self.sequences.remove(&id);
        }
        true
    }

    fn fail(&mut self, runs: &[Run]) {
        for run in runs {
            self.cut(run.id.arrival, Cut::Failed);
        }
    }

    /// Ends a request now, with what it has; it may have ended already.
    fn cut(&mut self, arrival: u64, cut: Cut) {
        let Some(request) = self.requests.get_mut(&arrival) else {
            return;
        };
        let now = Instant::now();
        let last: Vec<Delta> = self
            .sequences
            .range_mut(of(arrival))
            .map(|(_, sequence)| sequence.cut(cut.finish()))
            .collect();
        for delta in &last {
            request.absorb(delta, now, &self.metrics);
        }
        self.close(arrival, last, Some(cut));
    }

    fn close(&mut self, arrival: u64, last: Vec<Delta>, cut: Option<Cut>) {
        self.sequences.retain(|id, _| id.arrival != arrival);
        if let Some(request) = self.requests.remove(&arrival) {
            request.close(last, cut, &self.notary, &self.metrics);
        }
    }

    fn sequence(&mut self, id: SequenceId) -> &mut Sequence<M::Cache> {
        alive(&mut self.sequences, id)
    }

    fn gauge(&self) {
        let (mut running, mut waiting, mut parked, mut tokens) = (0, 0, 0, 0);
        for (arrival, request) in &self.requests {
            let held: usize = self
                .sequences
                .range(of(*arrival))
                .map(|(_, sequence)| sequence.held())
                .sum();
            tokens += held;
            match (request.parked(), held > 0) {
                (true, _) => parked += 1,
                (false, true) => running += 1,
                (false, false) => waiting += 1,
            }
        }
        let metrics = &self.metrics;
        metrics.num_requests_running.set(running);
        metrics.num_requests_waiting.set(waiting);
        metrics.num_requests_parked.set(parked);
        let most = self.pace.scheduler.kv_tokens_max.get();
        metrics
            .kv_cache_usage_perc
            .set(tokens as f64 / f64::from(most));
    }
}

fn alive<C>(sequences: &mut BTreeMap<SequenceId, Sequence<C>>, id: SequenceId) -> &mut Sequence<C> {
    sequences
        .get_mut(&id)
        .expect("the scheduler and the step name sequences that are alive")
}

fn of(arrival: u64) -> std::ops::RangeInclusive<SequenceId> {
    let choice = |choice| SequenceId { arrival, choice };
    choice(0)..=choice(u8::MAX)
}

/// The part of a step that a failure names.
fn blamed(error: &ForwardError) -> Option<usize> {
    match error {
        ForwardError::Empty { chunk }
        | ForwardError::Token { chunk, .. }
        | ForwardError::TooLong { chunk, .. }
        | ForwardError::NotFinite { chunk, .. } => Some(*chunk),
        _ => None,
    }
}

/// How long to sleep when nothing is alive. Mail ends it.
const IDLE: Duration = Duration::from_secs(3600);

/// How long to sleep when every reader is behind, before looking for a stall.
const WATCH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
