//! The one thread that drives the model.
//!
//! Owns the batch: every request that is alive and its sequences. Between two
//! steps it takes its mail, looks after the readers, asks the scheduler, and
//! hands out what was drawn. It never waits for a client; it sleeps only when
//! nothing can run. Start at [`Engine::run`].

mod draw;
mod memory;
mod request;
mod sequence;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use models::{ForwardError, Scored};

use crate::inbox::{Mail, Receiver};
use crate::language_model::{LanguageModel, Part};
use crate::mailbox::{Cut, Delta};
use crate::metrics::Metrics;
use crate::notary::Notary;
use crate::prefixes::BlockKeys;
use crate::scheduler::{Run, Scheduler, SchedulerConfig, SequenceId};

use draw::{DrawError, Drawn};
use memory::Memory;
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
    memory: Memory<M>,
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
            memory: Memory::new(Arc::clone(&model)),
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
        let keys = BlockKeys::new(submission.scope, M::BLOCK_TOKENS);
        let first = Sequence::new(arrival, &submission.prompt, &submission.sampling, keys);
        self.sequences.insert(first.id, first);
        self.requests
            .insert(arrival, Request::new(submission, self.model.config()));
    }

    /// Does one step; false when nothing can run.
    fn advance(&mut self) -> bool {
        let views: Vec<_> = self
            .sequences
            .values()
            .map(|sequence| {
                let parked = self.requests[&sequence.id.arrival].parked();
                sequence.view(parked, tail_shared::<M>(sequence))
            })
            .collect();
        let blocks = self.memory.view(&self.sequences);
        let step = self.scheduler.plan(&views, &blocks);
        for id in &step.preempt {
            self.preempt(*id);
        }
        if !step.run.is_empty() {
            self.step += 1;
            self.perform(&step.run);
        }
        self.gauge();
        !step.run.is_empty()
    }

    fn preempt(&mut self, id: SequenceId) {
        self.metrics.num_preemptions_total.inc();
        self.memory.release(alive(&mut self.sequences, id));
    }

    fn perform(&mut self, runs: &[Run]) {
        if !self.make_room(runs) {
            return self.relieve(runs);
        }
        let mut caches: Vec<M::Cache> = Vec::with_capacity(runs.len());
        for run in runs {
            let sequence = alive(&mut self.sequences, run.id);
            caches.push(sequence.cache.take().expect("what runs has a cache"));
        }
        match self.compute(runs, &mut caches) {
            Ok(Ok(drawn)) => {
                self.restore(runs, caches);
                for (run, drawn) in runs.iter().zip(drawn) {
                    self.take(*run, drawn);
                }
            }
            Ok(Err(ForwardError::OutOfBlocks(_))) => {
                self.restore(runs, caches);
                self.relieve(runs);
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

    /// Gives every run a cache, and the model the free blocks that they want; false if
    /// there aren't so many.
    fn make_room(&mut self, runs: &[Run]) -> bool {
        let mut wanted = 0;
        for run in runs {
            let sequence = alive(&mut self.sequences, run.id);
            if let Some(cached) = self.memory.attach(sequence) {
                let request = self.requests.get_mut(&run.id.arrival);
                let request = request.expect("a sequence lives as long as its request");
                request.began_with(cached, &self.metrics);
            }
            let cache = sequence.cache.as_ref();
            wanted += cache.map_or(0, |cache| M::blocks_wanted(cache, run.tokens as usize));
        }
        self.memory.make_room(wanted)
    }

    /// The plan was wrong about blocks: the youngest gives way, and the others try again.
    fn relieve(&mut self, runs: &[Run]) {
        let oldest = runs.iter().map(|run| run.id).min();
        let youngest = self
            .sequences
            .values()
            .rfind(|sequence| sequence.cache.is_some() && Some(sequence.id) != oldest)
            .map(|sequence| sequence.id);
        tracing::warn!("a step found fewer KV blocks than planned");
        match youngest {
            Some(id) => self.preempt(id),
            // It has every block, and they don't hold it: `EngineLimits` was broken.
            None => self.fail(runs),
        }
    }

    /// Reads every part and draws the tokens that are due. Outer error: the
    /// forward pass panicked, and the caches are worth nothing.
    fn compute(
        &self,
        runs: &[Run],
        caches: &mut [M::Cache],
    ) -> std::thread::Result<Result<Vec<Outcome>, ForwardError>> {
        let mut draws = Vec::with_capacity(runs.len());
        let mut work = Vec::with_capacity(runs.len());
        for (run, cache) in runs.iter().zip(caches) {
            let sequence = &self.sequences[&run.id];
            let draw = sequence.draws_after(run.tokens);
            work.push(Part {
                cache,
                tokens: sequence.next(run.tokens),
                draw,
            });
            draws.push(draw.then(|| self.requests[&run.id.arrival].draw(sequence)));
        }
        let drawn: Vec<_> = runs.iter().map(|_| OnceLock::new()).collect();
        let take = |row: Scored<'_>| {
            if let Some(draw) = &draws[row.chunk] {
                // A part asks for one row, so nobody was quicker.
                let _ = drawn[row.chunk].set(draw.all(&row));
            }
        };
        let model = &self.model;
        let read = catch_unwind(AssertUnwindSafe(|| model.forward(&mut work, &take)))?;
        Ok(read.map(|()| drawn.into_iter().map(OnceLock::into_inner).collect()))
    }

    fn restore(&mut self, runs: &[Run], caches: Vec<M::Cache>) {
        for (run, cache) in runs.iter().zip(caches) {
            alive(&mut self.sequences, run.id).cache = Some(cache);
        }
    }

    /// A sequence has read its part, and its next tokens were drawn where they were due.
    fn take(&mut self, run: Run, drawn: Outcome) {
        let Some(sequence) = self.sequences.get_mut(&run.id) else {
            return; // its request ended with another choice's part of this step
        };
        let prompt_tokens = sequence.read(run.tokens, self.step);
        self.memory.keep(sequence);
        self.metrics
            .prompt_tokens_total
            .inc_by(prompt_tokens as u64);
        if !sequence.drawing() {
            return;
        }
        let drawn = match drawn {
            Some(Ok(drawn)) => drawn,
            Some(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "no token can be drawn");
                return self.cut(run.id.arrival, Cut::Failed);
            }
            None => {
                tracing::error!("the model gave no logits where they were asked for");
                return self.cut(run.id.arrival, Cut::Failed);
            }
        };
        let sampling = &self.requests[&run.id.arrival].sampling;
        let sequence = alive(&mut self.sequences, run.id);
        for sibling in sequence.fork(sampling, |cache| self.model.fork(cache)) {
            self.memory.forked(&sibling);
            self.sequences.insert(sibling.id, sibling);
        }
        let now = Instant::now();
        for drawn in drawn {
            if self.push(run.id.arrival, drawn, now) {
                return;
            }
        }
    }

    /// A choice's next token; true when the request ended with it.
    fn push(&mut self, arrival: u64, drawn: Drawn, now: Instant) -> bool {
        let choice = drawn.choice;
        let id = SequenceId { arrival, choice };
        let request = self
            .requests
            .get_mut(&arrival)
            .expect("a sequence lives as long as its request");
        let sequence = alive(&mut self.sequences, id);
        let bytes = self.model.text(drawn.token);
        let config = self.model.config();
        let delta = sequence.push(drawn.token, bytes, drawn.logprob, &request.sampling, config);
        let ended = delta.finish.is_some();
        self.metrics.generation_tokens_total.inc();
        if let Some(before) = sequence.drawn_at.replace(now) {
            self.metrics
                .inter_token_latency_seconds
                .observe(now.duration_since(before).as_secs_f64());
        }
        request.trace(choice, drawn.trace);
        let stuck = match ended {
            true => None,
            false => request.advance(choice, drawn.token).err(),
        };
        if request.absorb(&delta, now, &self.metrics) {
            self.close(arrival, vec![delta], None);
            return true;
        }
        request.show(delta, &self.notary);
        if let Some(error) = stuck {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "an answer can't go on");
            self.cut(arrival, Cut::Failed);
            return true;
        }
        if ended {
            self.end(id);
        }
        false
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
        let ids: Vec<_> = self
            .sequences
            .range(of(arrival))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.end(id));
        if let Some(request) = self.requests.remove(&arrival) {
            // Whoever has the last answer sees gauges that no longer count it.
            self.gauge();
            request.close(last, cut, &self.notary, &self.metrics);
        }
    }

    fn end(&mut self, id: SequenceId) {
        if let Some(mut sequence) = self.sequences.remove(&id) {
            self.memory.release(&mut sequence);
        }
    }

    fn gauge(&self) {
        let (mut running, mut waiting, mut parked) = (0, 0, 0);
        for (arrival, request) in &self.requests {
            let mut choices = self.sequences.range(of(*arrival));
            match request.parked() {
                true => parked += 1,
                false if choices.any(|(_, sequence)| sequence.held() > 0) => running += 1,
                false => waiting += 1,
            }
        }
        let metrics = &self.metrics;
        metrics.num_requests_running.set(running);
        metrics.num_requests_waiting.set(waiting);
        metrics.num_requests_parked.set(parked);
        metrics.kv_cache_usage_perc.set(self.memory.usage());
    }
}

/// What was drawn for one part of a step: nothing where no token was due.
type Outcome = Option<Result<Vec<Drawn>, DrawError>>;

fn alive<C>(sequences: &mut BTreeMap<SequenceId, Sequence<C>>, id: SequenceId) -> &mut Sequence<C> {
    sequences
        .get_mut(&id)
        .expect("the scheduler and the step name sequences that are alive")
}

/// Whether its last block is copied before it is written.
fn tail_shared<M: LanguageModel>(sequence: &Sequence<M::Cache>) -> bool {
    let blocks = sequence.cache.as_ref().map_or(&[][..], M::blocks);
    let partial = !sequence.held().is_multiple_of(M::BLOCK_TOKENS);
    partial
        && blocks
            .last()
            .is_some_and(|last| Arc::strong_count(last) > 1)
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
