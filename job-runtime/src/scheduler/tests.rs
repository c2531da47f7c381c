//! Who runs, who waits, who gives way.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Plans one step with 4 sequences, 8 prompt tokens, 100 KV tokens. A view reads like
/// `a: decode 40 | b: prompt 3+20 x2 | c: wait 9 | d: decode 12 parked last=7`,
/// in order of arrival.
fn check(views: &str, expect: Expect) {
    let scheduler = Scheduler::new(config(4, 8, 100));
    let step = scheduler.plan(&views.split('|').enumerate().map(parse).collect::<Vec<_>>());
    let name = |id: SequenceId| char::from(b'a' + u8::try_from(id.arrival).unwrap());
    let runs: Vec<_> = step
        .run
        .iter()
        .map(|run| format!("{} {}", name(run.id), run.tokens))
        .collect();
    let mut text = match runs.is_empty() {
        true => "wait".to_owned(),
        false => format!("run {}", runs.join(", ")),
    };
    for id in step.preempt {
        text.push_str(&format!("; preempt {}", name(id)));
    }
    expect.assert_eq(&text);
}

fn config(sequences: u32, prefill: u32, kv: u32) -> SchedulerConfig {
    SchedulerConfig {
        sequences_max: NonZeroU32::new(sequences).unwrap(),
        prefill_tokens_per_step: NonZeroU32::new(prefill).unwrap(),
        kv_tokens_max: NonZeroU32::new(kv).unwrap(),
    }
}

fn parse((arrival, text): (usize, &str)) -> SequenceView {
    let mut words = text.split_once(':').unwrap().1.split_whitespace();
    let (kind, count) = (words.next().unwrap(), words.next().unwrap());
    let (cached, pending) = match (kind, count.split_once('+')) {
        ("decode", None) => (count.parse().unwrap(), 1),
        ("prompt", Some((done, left))) => (done.parse().unwrap(), left.parse().unwrap()),
        ("wait", None) => (0, count.parse().unwrap()),
        other => panic!("{other:?}"),
    };
    let mut view = SequenceView {
        id: SequenceId {
            arrival: arrival as u64,
            choice: 0,
        },
        cached,
        pending,
        decoding: kind == "decode",
        copies: 1,
        parked: false,
        last_step: 0,
    };
    for word in words {
        match word.split_at(1) {
            ("x", copies) => view.copies = copies.parse().unwrap(),
            ("l", last) => view.last_step = last.trim_start_matches("ast=").parse().unwrap(),
            _ => view.parked = word == "parked",
        }
    }
    view
}

#[test]
fn full_client_sits_out() {
    check("a: decode 9 parked | b: decode 9", expect!["run b 1"]);
    check("a: decode 9 parked", expect!["wait"]);
}

#[test]
fn decodes_and_a_chunk_of_a_prompt_share_a_step() {
    check(
        "a: decode 9 | b: prompt 0+50 | c: decode 5",
        expect!["run a 1, c 1, b 8"],
    );
}

#[test]
fn a_short_prompt_overtakes_a_long_one_that_still_advances() {
    check("a: prompt 20+60 | b: wait 3", expect!["run a 5, b 3"]);
    check("a: wait 3 | b: prompt 9+60", expect!["run a 3, b 5"]);
}

#[test]
fn a_step_has_a_bound() {
    check(
        "a: decode 1 | b: decode 1 | c: decode 1 | d: decode 1 | e: decode 1",
        expect!["run a 1, b 1, c 1, d 1"],
    );
    check(
        "a: decode 1 | b: decode 1 | c: decode 1 | d: wait 1 | e: wait 1",
        expect!["run a 1, b 1, c 1, d 1"],
    );
}

#[test]
fn who_sat_out_runs_first() {
    check(
        "a: decode 1 last=7 | b: decode 1 last=7 | c: decode 1 last=7 | d: decode 1 last=7 | e: decode 1 last=6",
        expect!["run e 1, a 1, b 1, c 1"],
    );
}

#[test]
fn nobody_overtakes_a_large_request() {
    check("a: decode 60 | b: wait 50 | c: wait 2", expect!["run a 1"]);
}

#[test]
fn choices_count_before_they_exist() {
    check("a: wait 3 x4 | b: wait 3", expect!["run a 3"]);
    check("a: decode 9 | b: wait 3 x4", expect!["run a 1"]);
    check("a: wait 30 x4 | b: wait 3", expect!["wait"]);
}

#[test]
fn the_youngest_gives_way_when_memory_runs_out() {
    check(
        "a: decode 50 | b: decode 30 | c: decode 20",
        expect!["run a 1, b 1; preempt c"],
    );
}

#[test]
fn a_slow_reader_gives_way_first() {
    check(
        "a: decode 50 parked | b: decode 30 | c: decode 20",
        expect!["run b 1, c 1; preempt a"],
    );
    check(
        "a: decode 50 parked | b: wait 70",
        expect!["run b 8; preempt a"],
    );
    check(
        "a: decode 20 parked | b: decode 60 | c: wait 70",
        expect!["run b 1"],
    );
}

/// A request in the simulation below.
#[derive(Debug, Clone)]
struct Job {
    arrives: u64,
    prompt: u32,
    output: u32,
}

prop_compose! {
    fn job()(arrives in 0u64..40, prompt in 1u32..60, output in 1u32..40) -> Job {
        Job { arrives, prompt, output }
    }
}

/// Runs the jobs to their end; returns the steps that it took.
fn simulate(config: SchedulerConfig, jobs: &[Job]) -> Result<u64, TestCaseError> {
    let scheduler = Scheduler::new(config);
    let mut alive: BTreeMap<SequenceId, (SequenceView, u32)> = BTreeMap::new();
    let (mut done, mut step) = (0, 0);
    while done < jobs.len() {
        for (at, job) in jobs
            .iter()
            .enumerate()
            .filter(|(_, job)| job.arrives == step)
        {
            let id = SequenceId {
                arrival: (step << 32) + at as u64,
                choice: 0,
            };
            let mut view = parse((0, "a: wait 1"));
            (view.id, view.pending) = (id, job.prompt);
            alive.insert(id, (view, job.output));
        }
        step += 1;
        let views: Vec<_> = alive.values().map(|(view, _)| *view).collect();
        let plan = scheduler.plan(&views);
        prop_assert!(views.is_empty() || !plan.run.is_empty(), "nothing runs");
        for id in &plan.preempt {
            let view = &mut alive.get_mut(id).unwrap().0;
            view.pending += view.cached;
            (view.cached, view.decoding) = (0, false);
        }
        let (mut decodes, mut prompts) = (0, 0);
        for run in &plan.run {
            prop_assert!(!plan.preempt.contains(&run.id), "preempted and run");
            let (view, left) = alive.get_mut(&run.id).unwrap();
            prop_assert!((1..=view.pending).contains(&run.tokens));
            match view.decoding {
                true => decodes += 1,
                false => prompts += run.tokens,
            }
            view.cached += run.tokens;
            view.pending -= run.tokens;
            view.last_step = step;
            if view.pending == 0 {
                (view.decoding, view.pending, *left) = (true, 1, *left - 1);
                if *left == 0 {
                    alive.remove(&run.id);
                    done += 1;
                }
            }
        }
        prop_assert!(decodes <= config.sequences_max.get());
        prop_assert!(plan.run.len() <= config.sequences_max.get() as usize);
        prop_assert!(prompts <= config.prefill_tokens_per_step.get());
        let held: u32 = alive.values().map(|(view, _)| view.cached).sum();
        prop_assert!(held <= config.kv_tokens_max.get(), "{held} KV tokens");
    }
    Ok(step)
}

proptest! {
    #[test]
    fn nobody_waits_for_ever(
        jobs in proptest::collection::vec(job(), 1..30),
        sequences in 1u32..6,
        prefill in 1u32..20,
        kv in 100u32..300,
    ) {
        let steps = simulate(config(sequences, prefill, kv), &jobs)?;
        // One after another, each token alone, twice over for what preemption repeats.
        let alone: u64 = jobs.iter().map(|job| u64::from(job.prompt + job.output)).sum();
        prop_assert!(steps <= 41 + 2 * alone, "{steps} steps for {alone} tokens");
    }
}
