//! Computes answers again: many sequences at a time, every position sampled.
//!
//! Where an answer's ids are known, all of it is one prefill. Where they
//! aren't, its text is the draft: what the draws confirm is kept, the first
//! that differs is the token that was drawn, and the text after it the next
//! draft. So an unknown spelling costs a few passes, not one per token, and a
//! text that lies costs no more than decoding. Nothing here judges. Start at
//! [`run`].

mod claim;
mod prefixes;
mod sequence;

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use models::exact::POSITIONS;
use models::{Chunk, ForwardError, KvCache, Model, Want};

pub use claim::{Choice, known_ids};
pub use sequence::{Differing, Mark, Outcome, Stop};

use prefixes::{Key, Prefixes};
use sequence::{Row, Sequence};

/// Sequences in one step.
const SEQUENCES_MAX: usize = 32;

/// Rows in one step: two passes over the weights.
const STEP_ROWS: usize = 512;

/// How far the queue is looked through for one whose prompt nobody else is reading.
const LOOK_AHEAD: usize = 64;

/// Computes all of `choices` again; `done` gets each outcome as it is there, and
/// the choice. Choices with a prompt in common should stand together.
pub fn run(model: &Model, choices: Vec<Choice>, done: &mut dyn FnMut(Choice, Outcome)) {
    let mut bench = Bench {
        model,
        queue: choices.into(),
        running: Vec::new(),
        prefixes: Prefixes::default(),
        done,
    };
    loop {
        bench.admit();
        // Those without a token have nothing to compute.
        bench.settle();
        match (bench.running.is_empty(), bench.queue.is_empty()) {
            (true, true) => return,
            // There is room again: with nothing running, one is let in or refused.
            (true, false) => {}
            (false, _) => bench.step(),
        }
    }
}

struct Bench<'a> {
    model: &'a Model,
    queue: VecDeque<Choice>,
    running: Vec<Sequence>,
    prefixes: Prefixes,
    done: &'a mut dyn FnMut(Choice, Outcome),
}

impl Bench<'_> {
    /// Lets in as many as there is room for, but none whose prompt another is about to compute.
    fn admit(&mut self) {
        let mut at = 0;
        while self.running.len() < SEQUENCES_MAX && at < self.queue.len().min(LOOK_AHEAD) {
            let keys = prefixes::keys(self.queue[at].shared_prompt());
            let cached = self.prefixes.longest(&keys);
            let computing = |key: &Key| self.running.iter().any(|s| s.computes(key));
            if keys.get(cached.len()).is_some_and(computing) {
                at += 1;
                continue;
            }
            let wanted = self.queue[at].blocks_max().saturating_sub(cached.len());
            if !self.make_room(wanted) {
                if !self.running.is_empty() {
                    return;
                }
                // With nothing running, no more room is to come.
                drop(cached);
                if wanted > self.model.pool().blocks() || !self.prefixes.clear() {
                    self.refuse(at);
                }
                continue;
            }
            let choice = self.queue.remove(at).expect("it was just looked at");
            let cache = self.model.pool().cache_from(cached);
            self.running.push(Sequence::new(choice, cache, keys));
        }
    }

    fn refuse(&mut self, at: usize) {
        let choice = self.queue.remove(at).expect("it was just looked at");
        let outcome = Outcome::stopped(&choice, Stop::NoMemory);
        (self.done)(choice, outcome);
    }

    /// Whether so many blocks are free beside what the running ones will still take.
    fn make_room(&mut self, wanted: usize) -> bool {
        let promised: usize = self.running.iter().map(Sequence::blocks_to_come).sum();
        while self.model.pool().free() < wanted + promised {
            if !self.prefixes.forget_one() {
                return false;
            }
        }
        true
    }

    fn step(&mut self) {
        let mut rows_left = STEP_ROWS;
        let mut parts = Vec::new();
        for (index, sequence) in self.running.iter_mut().enumerate() {
            if rows_left == 0 {
                break;
            }
            let part = sequence.next(rows_left, self.model);
            rows_left -= part.tokens.len();
            parts.push((index, part));
        }
        match self.compute(&parts) {
            Ok(rows) => {
                for ((index, part), rows) in parts.iter().zip(rows) {
                    self.running[*index].take(part, rows, self.model);
                }
            }
            Err(ForwardError::NotFinite { chunk, position }) => {
                self.running[parts[chunk].0].stop(Stop::NotFinite { position });
            }
            Err(ForwardError::OutOfBlocks(_)) if self.prefixes.clear() => {}
            Err(ForwardError::Token { chunk, .. } | ForwardError::TooLong { chunk, .. }) => {
                self.running[parts[chunk].0].stop(Stop::Impossible);
            }
            Err(_) => {
                let (last, _) = parts.last().expect("a step has a part");
                self.running[*last].stop(Stop::NoMemory);
            }
        }
        self.settle();
    }

    /// The rows of each part: which token is drawn there, from which hidden state.
    fn compute(
        &mut self,
        parts: &[(usize, sequence::Part)],
    ) -> Result<Vec<Vec<Row>>, ForwardError> {
        let mut caches: Vec<KvCache> = parts
            .iter()
            .map(|(index, _)| {
                let empty = self.model.new_cache();
                std::mem::replace(&mut self.running[*index].cache, empty)
            })
            .collect();
        let found: Vec<Mutex<HashMap<usize, Row>>> =
            parts.iter().map(|_| Mutex::default()).collect();
        let mut work: Vec<Chunk> = parts
            .iter()
            .zip(&mut caches)
            .map(|((_, part), cache)| Chunk {
                cache,
                tokens: &part.tokens,
                logits: if part.draws { Want::All } else { Want::No },
            })
            .collect();
        let running = &self.running;
        let result = self.model.forward_shared(&mut work, &|scored| {
            let (index, part) = &parts[scored.chunk];
            let row = running[*index].draw(part, scored);
            let mut rows = found[scored.chunk].lock().expect("no drawing panics");
            rows.insert(scored.position, row);
        });
        drop(work);
        for ((index, _), cache) in parts.iter().zip(caches) {
            self.running[*index].cache = cache;
        }
        result?;
        let in_order = |rows: Mutex<HashMap<usize, Row>>| {
            let rows = rows.into_inner().expect("no drawing panics");
            let mut rows: Vec<_> = rows.into_iter().collect();
            rows.sort_by_key(|(position, _)| *position);
            rows.into_iter().map(|(_, row)| row).collect()
        };
        Ok(found.into_iter().map(in_order).collect())
    }

    /// Keeps prompts that others may share, and hands over what is done.
    fn settle(&mut self) {
        for sequence in &mut self.running {
            if let Some(keys) = sequence.prompt_is_read() {
                let blocks = &sequence.cache.blocks()[..keys.len()];
                self.prefixes.keep(&keys, blocks);
            }
        }
        let (ended, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(Sequence::ended);
        self.running = running;
        for sequence in ended {
            let (choice, outcome) = sequence.finish();
            (self.done)(choice, outcome);
        }
    }
}

/// Blocks that hold so many positions, and one more for a copy of a shared one.
fn blocks_for(positions: usize) -> usize {
    positions.div_ceil(POSITIONS) + 1
}
