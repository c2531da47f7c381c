//! Picks the sequences that run in the next engine step.
//!
//! Pure: a snapshot goes in, a [`Step`] comes out. Channels, tensors and the
//! clock belong to `engine`. One step mixes decodes (one token each) with
//! chunks of prompts. What it keeps: no sequence waits for ever, a long prompt
//! never delays a decode by more than `prefill_tokens_per_step`, a slow reader
//! holds up nobody, and the KV cache stays within its budget. Start at
//! [`Scheduler::plan`].

use std::num::NonZeroU32;

/// What the scheduler may hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Sequences in one step.
    pub sequences_max: NonZeroU32,
    /// Prompt tokens in one step, over all prompts. Decodes wait at most this long.
    pub prefill_tokens_per_step: NonZeroU32,
    /// Tokens in the KV caches of all sequences together.
    pub kv_tokens_max: NonZeroU32,
}

/// Orders sequences by the arrival of their request, then by choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId {
    /// Counts requests as they arrive.
    pub arrival: u64,
    /// Which of the request's choices.
    pub choice: u8,
}

/// One sequence as the scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceView {
    /// Its place in the order of arrival.
    pub id: SequenceId,
    /// Tokens in its KV cache. None: it waits, and holds nothing.
    pub cached: u32,
    /// Tokens that are known and not yet in the cache, at least one.
    pub pending: u32,
    /// Its prompt is in: each step is one token of output.
    pub decoding: bool,
    /// Sequences that it becomes when its prompt is in (`n`).
    pub copies: u32,
    /// Its reader is behind: it mustn't run.
    pub parked: bool,
    /// The last step that it ran in.
    pub last_step: u64,
}

/// What the engine does next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// These give their KV cache back, and start again from their tokens later.
    pub preempt: Vec<SequenceId>,
    /// These run, with so many of their pending tokens. Nothing: wait for news.
    pub run: Vec<Run>,
}

/// One sequence's part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which sequence.
    pub id: SequenceId,
    /// How many of its pending tokens go in.
    pub tokens: u32,
}

/// The rule, with its limits.
#[derive(Debug, Clone, Copy)]
pub struct Scheduler {
    config: SchedulerConfig,
}

impl Scheduler {
    /// A scheduler that keeps these limits.
    pub fn new(config: SchedulerConfig) -> Self {
        Self { config }
    }

    /// Decides the next step. `sequences` is everything alive, in any order.
    ///
    /// As long as one sequence can run, one does, and the oldest always
    /// advances: it is never preempted and gets half of the prompt tokens.
    pub fn plan(&self, sequences: &[SequenceView]) -> Step {
        let mut plan = Plan::new(self.config, sequences);
        plan.preempt_until_it_fits();
        let decodes = plan.decodes();
        plan.admit();
        let prompts = plan.prompts(decodes.len());
        Step {
            preempt: plan.preempted,
            run: decodes.into_iter().chain(prompts).collect(),
        }
    }
}

/// A plan in the making.
struct Plan {
    config: SchedulerConfig,
    /// Holding KV cache, or admitted now; by id.
    resident: Vec<SequenceView>,
    /// Waiting for admission, by id.
    waiting: Vec<SequenceView>,
    preempted: Vec<SequenceId>,
}

impl Plan {
    fn new(config: SchedulerConfig, sequences: &[SequenceView]) -> Self {
        let mut sequences = sequences.to_vec();
        sequences.sort_by_key(|sequence| sequence.id);
        let (resident, waiting) = sequences
            .into_iter()
            .partition(|sequence| sequence.cached > 0);
        Self {
            config,
            resident,
            waiting,
            preempted: Vec::new(),
        }
    }

    /// What the residents will hold when their pending tokens are in.
    fn committed(&self) -> u32 {
        self.resident
            .iter()
            .fold(0, |sum, sequence| sum.saturating_add(demand(sequence)))
    }

    /// Takes from the slow readers first, then from the youngest; never from the oldest that runs.
    fn preempt_until_it_fits(&mut self) {
        while self.committed() > self.config.kv_tokens_max.get() {
            let oldest = self.resident.iter().find(|s| !s.parked).map(|s| s.id);
            let victim = self
                .resident
                .iter()
                .filter(|s| Some(s.id) != oldest)
                .max_by_key(|s| (s.parked, s.id))
                .map(|s| s.id);
            match victim {
                Some(id) => self.preempt(id),
                None => return,
            }
        }
    }

    fn preempt(&mut self, id: SequenceId) {
        self.resident.retain(|sequence| sequence.id != id);
        self.preempted.push(id);
    }

    /// One token for each decode, those that sat out longest first.
    fn decodes(&self) -> Vec<Run> {
        let mut ready: Vec<_> = self
            .resident
            .iter()
            .filter(|s| s.decoding && !s.parked)
            .collect();
        ready.sort_by_key(|s| (s.last_step, s.id));
        ready
            .iter()
            .take(self.config.sequences_max.get() as usize)
            .map(|s| Run {
                id: s.id,
                tokens: s.pending,
            })
            .collect()
    }

    /// Lets the waiting in, strictly in order of arrival: nobody overtakes the
    /// one that is next, or a large request would wait for ever.
    fn admit(&mut self) {
        for next in std::mem::take(&mut self.waiting) {
            if next.parked {
                continue;
            }
            let running: u32 = self
                .resident
                .iter()
                .filter(|s| !s.parked)
                .map(|s| s.copies)
                .sum();
            if running.saturating_add(next.copies) > self.config.sequences_max.get() && running > 0
            {
                return;
            }
            if !self.make_room(demand(&next), running) {
                return;
            }
            self.resident.push(next);
        }
    }

    /// True when `tokens` more fit, after taking from slow readers if that helps.
    fn make_room(&mut self, tokens: u32, running: u32) -> bool {
        let limit = self.config.kv_tokens_max.get();
        // Room for those that run to grow, so that what comes in now needn't leave soon.
        let headroom = running.saturating_mul(HEADROOM_TOKENS).min(limit / 8);
        let needed = tokens.saturating_add(headroom);
        let parked: u32 = self
            .resident
            .iter()
            .filter(|s| s.parked)
            .map(demand)
            .fold(0, u32::saturating_add);
        if (self.committed() - parked).saturating_add(needed) > limit {
            return false;
        }
        while self.committed().saturating_add(needed) > limit {
            let Some(youngest) = self
                .resident
                .iter()
                .filter(|s| s.parked)
                .map(|s| s.id)
                .max()
            else {
                return false;
            };
            self.preempt(youngest);
        }
        true
    }

    /// Half of the prompt tokens to the oldest, so that it arrives; the rest to
    /// those that have least left, so that short prompts needn't wait for long ones.
    fn prompts(&self, decodes: usize) -> Vec<Run> {
        let mut budget = self.config.prefill_tokens_per_step.get();
        let slots = (self.config.sequences_max.get() as usize).saturating_sub(decodes);
        let candidates: Vec<_> = self
            .resident
            .iter()
            .filter(|s| !s.decoding && !s.parked)
            .collect();
        let mut runs: Vec<Run> = Vec::new();
        let Some(oldest) = candidates.iter().min_by_key(|s| s.id).filter(|_| slots > 0) else {
            return runs;
        };
        let share = oldest.pending.min(budget.div_ceil(2));
        budget -= share;
        runs.push(Run {
            id: oldest.id,
            tokens: share,
        });
        let mut shortest: Vec<_> = candidates
            .iter()
            .map(|s| (s.pending - if s.id == oldest.id { share } else { 0 }, s.id))
            .filter(|(left, _)| *left > 0)
            .collect();
        shortest.sort_unstable();
        for (left, id) in shortest {
            let tokens = left.min(budget);
            if tokens == 0 {
                break;
            }
            if id == oldest.id {
                runs[0].tokens += tokens;
            } else if runs.len() < slots {
                runs.push(Run { id, tokens });
            } else {
                continue;
            }
            budget -= tokens;
        }
        runs
    }
}

/// KV tokens that a sequence and its future copies hold when their pending tokens are in.
fn demand(sequence: &SequenceView) -> u32 {
    sequence
        .cached
        .saturating_add(sequence.pending)
        .saturating_mul(sequence.copies)
}

const HEADROOM_TOKENS: u32 = 16;

#[cfg(test)]
mod tests;
