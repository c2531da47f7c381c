//! Picks the sequences that run in the next engine step.
//!
//! Pure: a snapshot goes in, a [`Step`] comes out. Channels, tensors and the
//! clock belong to `engine`. One step mixes decodes (one token each) with
//! chunks of prompts. What it keeps: no sequence waits for ever, a long prompt
//! never delays a decode by more than `prefill_tokens_per_step`, a slow reader
//! holds up nobody, and a step never wants more KV blocks than there are.
//! Start at [`Scheduler::plan`].

use std::num::NonZeroU32;

/// What the scheduler may hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Sequences in one step.
    pub sequences_max: NonZeroU32,
    /// Prompt tokens in one step, over all prompts. Decodes wait at most this long.
    pub prefill_tokens_per_step: NonZeroU32,
    /// Tokens that a KV block holds.
    pub block_tokens: NonZeroU32,
    /// KV blocks that there are.
    pub blocks_max: NonZeroU32,
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
    /// Its last block isn't full, and another sequence has it too: it is copied before
    /// it is written.
    pub tail_shared: bool,
}

/// What the scheduler asks about KV blocks, where it matters.
pub trait Blocks {
    /// Blocks that no sequence holds: free, or a cached prefix's that can be evicted.
    fn free(&self) -> u32;
    /// Blocks that no other sequence holds. (If two share one, it is neither's.)
    fn own(&self, id: SequenceId) -> u32;
    /// What a waiting sequence begins with that needn't be computed.
    fn prefix(&self, id: SequenceId) -> Prefix;
}

/// The cached beginning of a sequence. At least one token is left to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Blocks, all of them full.
    pub blocks: u32,
    /// How many of them no sequence holds: whoever takes them takes them from the free ones.
    pub idle: u32,
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
    /// How many of its pending tokens go in, after its cached prefix if it had waited.
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
    pub fn plan(&self, sequences: &[SequenceView], blocks: &dyn Blocks) -> Step {
        let mut plan = Plan::new(self.config, sequences, blocks);
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
struct Plan<'a> {
    config: SchedulerConfig,
    blocks: &'a dyn Blocks,
    /// Holding KV blocks, or admitted now; by id.
    resident: Vec<SequenceView>,
    /// Waiting for admission, by id.
    waiting: Vec<SequenceView>,
    preempted: Vec<SequenceId>,
    /// One that ran had to give way: nobody comes in for it, or they would take turns for ever.
    closed: bool,
    /// Blocks that are free when all pending tokens of the residents are in; negative:
    /// so many are missing.
    spare: i64,
}

impl<'a> Plan<'a> {
    fn new(config: SchedulerConfig, sequences: &[SequenceView], blocks: &'a dyn Blocks) -> Self {
        let mut sequences = sequences.to_vec();
        sequences.sort_by_key(|sequence| sequence.id);
        let (resident, waiting): (Vec<_>, _) = sequences
            .into_iter()
            .partition(|sequence| sequence.cached > 0);
        let growth: i64 = resident.iter().map(|s| growth(config, s)).sum();
        Self {
            config,
            resident,
            waiting,
            preempted: Vec::new(),
            closed: false,
            spare: i64::from(blocks.free()) - growth,
            blocks,
        }
    }

    /// Takes from the slow readers first, then from the youngest; never from the oldest that runs.
    fn preempt_until_it_fits(&mut self) {
        while self.spare < 0 {
            let oldest = self.resident.iter().find(|s| !s.parked).map(|s| s.id);
            let victim = self
                .resident
                .iter()
                .filter(|s| Some(s.id) != oldest)
                .max_by_key(|s| (s.parked, s.id))
                .copied();
            match victim {
                Some(victim) => {
                    self.closed |= !victim.parked;
                    self.preempt(victim.id);
                }
                None => return,
            }
        }
    }

    fn preempt(&mut self, id: SequenceId) {
        let at = self.resident.iter().position(|sequence| sequence.id == id);
        let victim = self.resident.remove(at.expect("a victim is a resident"));
        self.preempted.push(id);
        self.spare += i64::from(self.blocks.own(id)) + growth(self.config, &victim);
        // Blocks that only preempted sequences shared aren't counted above.
        let all = i64::from(self.config.blocks_max.get());
        match self.resident.as_slice() {
            [] => self.spare = all,
            [last] => {
                let held = i64::from(last.cached.div_ceil(self.config.block_tokens.get()));
                self.spare = all - held - growth(self.config, last);
            }
            _ => {}
        }
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
        if self.closed {
            return;
        }
        for mut next in std::mem::take(&mut self.waiting) {
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
            let prefix = self.blocks.prefix(next.id);
            let tokens = prefix.blocks * self.config.block_tokens.get();
            (next.cached, next.pending) = (tokens, next.pending - tokens);
            let Some(taken) = self.make_room(growth(self.config, &next), prefix, running) else {
                return;
            };
            self.spare -= taken;
            self.resident.push(next);
        }
    }

    /// Blocks that the next one takes, if they are to be had: after taking from slow
    /// readers if that helps.
    fn make_room(&mut self, growth: i64, prefix: Prefix, running: u32) -> Option<i64> {
        let all = i64::from(self.config.blocks_max.get());
        // Room for those that run to grow, so that what comes in now needn't leave soon.
        let headroom = i64::from(running.div_ceil(2)).min(all / 8);
        let taken = growth + i64::from(prefix.idle);
        if self.preempted.is_empty() && self.spare >= taken + headroom {
            return Some(taken);
        }
        // What preemption frees may be the very blocks of its prefix.
        let taken = growth + i64::from(prefix.blocks);
        // Alone it must be let in; if its choices don't fit together, they take turns.
        let wanted = (taken + headroom).min(all);
        let mut parked: Vec<_> = self.resident.iter().filter(|s| s.parked).copied().collect();
        if parked.len() < self.resident.len() {
            let theirs =
                |s: &SequenceView| i64::from(self.blocks.own(s.id)) + self::growth(self.config, s);
            if self.spare + parked.iter().map(theirs).sum::<i64>() < wanted {
                return None;
            }
        }
        while self.spare < wanted {
            self.preempt(parked.pop()?.id);
        }
        Some(taken)
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

/// Blocks that a sequence still takes until its pending tokens are in and its copies
/// are made; those share its blocks, but for the last one.
fn growth(config: SchedulerConfig, sequence: &SequenceView) -> i64 {
    let blocks = |tokens: u32| i64::from(tokens.div_ceil(config.block_tokens.get()));
    let more = blocks(sequence.cached + sequence.pending) - blocks(sequence.cached);
    more + i64::from(sequence.tail_shared) + i64::from(sequence.copies) - 1
}

#[cfg(test)]
mod tests;
