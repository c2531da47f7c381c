//! Random requests run to their end: what the scheduler promises holds in every step.
//!
//! Blocks are simulated one by one: forks share them, a shared one is copied
//! before it is written, and what is full may be found again by a later request
//! with the same beginning.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;

const BLOCK: u32 = 4;

/// A request.
#[derive(Debug, Clone)]
struct Job {
    arrives: u64,
    prompt: u32,
    output: u32,
    choices: u8,
    /// Requests of one family begin alike, so far.
    family: u8,
    alike: u32,
    /// Its client leaves in this step.
    leaves: Option<u64>,
    /// Its reader is behind in these steps.
    slow: std::ops::Range<u64>,
}

prop_compose! {
    fn job()(
        arrives in 0u64..40,
        prompt in 1u32..60,
        output in 1u32..40,
        choices in prop_oneof![3 => Just(1u8), 1 => 2u8..4],
        family in 0u8..3,
        alike in 0u32..60,
        leaves in proptest::option::weighted(0.2, 0u64..80),
        slow in prop_oneof![3 => Just(0..0), 1 => (0u64..60, 1u64..40).prop_map(|(from, long)| from..from + long)],
    ) -> Job {
        Job { arrives, prompt, output, choices, family, alike, leaves, slow }
    }
}

/// What a block's content depends on: equal names, equal content.
type Name = (u8, u64, u32);

struct Sequence {
    view: SequenceView,
    job: usize,
    blocks: Vec<Rc<()>>,
    /// Output tokens to go.
    left: u32,
}

struct World<'a> {
    config: SchedulerConfig,
    jobs: &'a [Job],
    alive: BTreeMap<SequenceId, Sequence>,
    /// Kept full blocks, none of them ever evicted while held.
    kept: BTreeMap<Name, Rc<()>>,
}

impl World<'_> {
    fn name(&self, id: SequenceId, job: usize, block: u32) -> Name {
        let alike = (block + 1) * BLOCK <= self.jobs[job].alike.min(self.jobs[job].prompt);
        match alike {
            true => (self.jobs[job].family, u64::MAX, block),
            false => (id.choice, id.arrival, block),
        }
    }

    fn blocks(&self) -> impl Iterator<Item = &Rc<()>> {
        let held = self.alive.values().flat_map(|sequence| &sequence.blocks);
        held.chain(self.kept.values())
    }

    /// Blocks that exist.
    fn used(&self) -> u32 {
        let mut all: Vec<_> = self.blocks().map(Rc::as_ptr).collect();
        all.sort_unstable();
        all.dedup();
        all.len() as u32
    }

    /// Evicts until so many blocks are free.
    fn make_room(&mut self, wanted: u32) {
        while self.used() + wanted > self.config.blocks_max.get() {
            let idle = self
                .kept
                .iter()
                .find(|(_, block)| Rc::strong_count(block) == 1);
            let name = *idle.expect("the plan fits").0;
            self.kept.remove(&name);
        }
    }

    /// Reads tokens into a sequence, and keeps its full blocks.
    fn read(&mut self, id: SequenceId, tokens: u32) {
        for _ in 0..tokens {
            let at = self.alive[&id].view.cached;
            let last = self.alive[&id].blocks.last();
            let copied = !at.is_multiple_of(BLOCK) && Rc::strong_count(last.unwrap()) > 1;
            if copied || at.is_multiple_of(BLOCK) {
                self.make_room(1);
                let sequence = self.alive.get_mut(&id).unwrap();
                if copied {
                    sequence.blocks.pop();
                }
                sequence.blocks.push(Rc::new(()));
            }
            let sequence = self.alive.get_mut(&id).unwrap();
            sequence.view.cached += 1;
            sequence.view.pending -= 1;
            if (at + 1).is_multiple_of(BLOCK) {
                let (job, block) = (sequence.job, Rc::clone(sequence.blocks.last().unwrap()));
                let name = self.name(id, job, at / BLOCK);
                self.kept.entry(name).or_insert(block);
            }
        }
    }

    /// The kept blocks that a sequence begins with.
    fn found(&self, id: SequenceId) -> Vec<Rc<()>> {
        let Sequence { view, job, .. } = &self.alive[&id];
        let most = (view.cached + view.pending - 1) / BLOCK;
        let names = (0..most).map(|block| self.name(id, *job, block));
        names
            .map_while(|name| self.kept.get(&name).cloned())
            .collect()
    }

    fn release(&mut self, id: SequenceId) {
        let sequence = self.alive.get_mut(&id).unwrap();
        let view = &mut sequence.view;
        view.pending += view.cached;
        (view.cached, view.decoding) = (0, false);
        sequence.blocks.clear();
    }
}

impl Blocks for World<'_> {
    fn free(&self) -> u32 {
        let mut held: Vec<_> = (self.alive.values().flat_map(|s| &s.blocks))
            .map(Rc::as_ptr)
            .collect();
        held.sort_unstable();
        held.dedup();
        self.config.blocks_max.get() - held.len() as u32
    }

    fn own(&self, id: SequenceId) -> u32 {
        let kept = |block: &Rc<()>| self.kept.values().any(|kept| Rc::ptr_eq(kept, block));
        let own = |block: &&Rc<()>| Rc::strong_count(block) == 1 + usize::from(kept(block));
        self.alive[&id].blocks.iter().filter(own).count() as u32
    }

    fn prefix(&self, id: SequenceId) -> Prefix {
        let found = self.found(id);
        // One is the cache's, one is ours.
        let idle = found.iter().filter(|block| Rc::strong_count(block) == 2);
        Prefix {
            blocks: found.len() as u32,
            idle: idle.count() as u32,
        }
    }
}

/// Runs the jobs to their end; returns the steps that it took.
fn simulate(config: SchedulerConfig, jobs: &[Job]) -> Result<u64, TestCaseError> {
    let scheduler = Scheduler::new(config);
    let mut world = World {
        config,
        jobs,
        alive: BTreeMap::new(),
        kept: BTreeMap::new(),
    };
    let mut step = 0;
    while step <= 40 || !world.alive.is_empty() {
        for (at, job) in jobs.iter().enumerate() {
            if job.arrives == step {
                let arrival = (step << 32) + at as u64;
                let id = SequenceId { arrival, choice: 0 };
                let (mut view, _) = parse((0, "a: wait 1"));
                (view.id, view.pending, view.copies) = (id, job.prompt, job.choices.into());
                let (blocks, left) = (Vec::new(), job.output);
                let sequence = Sequence {
                    view,
                    job: at,
                    blocks,
                    left,
                };
                world.alive.insert(id, sequence);
            }
        }
        step += 1;
        prop_assert!(step < 20_000, "it doesn't end");
        world
            .alive
            .retain(|_, s| jobs[s.job].leaves.is_none_or(|leaves| leaves > step));
        for sequence in world.alive.values_mut() {
            sequence.view.parked = jobs[sequence.job].slow.contains(&step);
            let partial = !sequence.view.cached.is_multiple_of(BLOCK);
            let last = sequence.blocks.last();
            sequence.view.tail_shared = partial && last.is_some_and(|b| Rc::strong_count(b) > 1);
        }
        let views: Vec<_> = world.alive.values().map(|sequence| sequence.view).collect();
        let plan = scheduler.plan(&views, &world);
        let ready: Vec<_> = views.iter().filter(|view| !view.parked).collect();
        prop_assert!(ready.is_empty() || !plan.run.is_empty(), "nothing runs");
        for id in &plan.preempt {
            world.release(*id);
        }
        check_step(config, &views, &plan)?;
        // As the engine does: all caches first, then all blocks.
        for run in &plan.run {
            if world.alive[&run.id].view.cached == 0 {
                let blocks = world.found(run.id);
                let sequence = world.alive.get_mut(&run.id).unwrap();
                let tokens = blocks.len() as u32 * BLOCK;
                sequence.view.cached += tokens;
                sequence.view.pending -= tokens;
                sequence.blocks = blocks;
            }
        }
        for run in &plan.run {
            prop_assert!((1..=world.alive[&run.id].view.pending).contains(&run.tokens));
            world.read(run.id, run.tokens);
            prop_assert!(world.used() <= config.blocks_max.get());
        }
        for run in &plan.run {
            draw(&mut world, run.id, step);
        }
    }
    Ok(step)
}

/// The limits of a step, and that no decode that is ready is left out while there is room.
fn check_step(
    config: SchedulerConfig,
    views: &[SequenceView],
    plan: &Step,
) -> Result<(), TestCaseError> {
    let view = |id| views.iter().find(|view| view.id == id).unwrap();
    let (decodes, prompts): (Vec<&Run>, Vec<&Run>) =
        (plan.run.iter()).partition(|run| view(run.id).decoding);
    prop_assert!(plan.run.len() <= config.sequences_max.get() as usize);
    let tokens: u32 = prompts.iter().map(|run| run.tokens).sum();
    prop_assert!(tokens <= config.prefill_tokens_per_step.get());
    prop_assert!(plan.run.iter().all(|run| !view(run.id).parked));
    prop_assert!(plan.run.iter().all(|run| !plan.preempt.contains(&run.id)));
    let ready = views
        .iter()
        .filter(|view| view.decoding && !view.parked && !plan.preempt.contains(&view.id));
    let most = config.sequences_max.get() as usize;
    prop_assert_eq!(decodes.len(), ready.count().min(most), "a decode waits");
    let oldest = views
        .iter()
        .filter(|view| !view.parked)
        .map(|view| view.id)
        .min();
    let resident = views.iter().filter(|view| !view.parked && view.cached > 0);
    if let Some(first) = resident.map(|view| view.id).min() {
        prop_assert!(!plan.preempt.contains(&first), "the oldest gives way");
        let runs = plan.run.iter().any(|run| Some(run.id) == oldest);
        prop_assert!(runs || oldest != Some(first) || decodes.len() == most);
    }
    Ok(())
}

/// What the engine does with a sequence that has run: draws, forks, ends.
fn draw(world: &mut World, id: SequenceId, step: u64) {
    let sequence = world.alive.get_mut(&id).unwrap();
    sequence.view.last_step = step;
    if sequence.view.pending > 0 {
        return;
    }
    (sequence.view.decoding, sequence.view.pending) = (true, 1);
    sequence.left -= 1;
    let copies = std::mem::replace(&mut sequence.view.copies, 1);
    let ended = sequence.left == 0;
    for choice in 1..copies as u8 {
        let sequence = &world.alive[&id];
        let (job, left) = (sequence.job, sequence.left);
        let (blocks, mut view) = (sequence.blocks.clone(), sequence.view);
        view.id.choice = choice;
        let fork = Sequence {
            view,
            job,
            blocks,
            left,
        };
        if !ended {
            world.alive.insert(view.id, fork);
        }
    }
    if ended {
        world.alive.remove(&id);
    }
}

proptest! {
    #[test]
    fn nobody_waits_for_ever(
        jobs in proptest::collection::vec(job(), 1..30),
        sequences in 1u32..6,
        prefill in 1u32..20,
        blocks in 25u32..75,
    ) {
        let steps = simulate(config(sequences, prefill, blocks), &jobs)?;
        // One after another, each token alone, twice over for what preemption
        // repeats; and as long as readers are slow.
        let alone = |job: &Job| u64::from(job.prompt + job.output * u32::from(job.choices));
        let alone: u64 = jobs.iter().map(alone).sum();
        prop_assert!(steps <= 41 + 100 + 2 * alone, "{steps} steps for {alone} tokens");
    }
}
