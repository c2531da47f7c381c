//! Who runs, who waits, who gives way.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// Plans one step with 4 sequences, 8 prompt tokens, 25 KV blocks of 4 tokens. A view reads like
/// `a: decode 40 | b: prompt 3+20 x2 | c: wait 9 hit=2 | d: decode 12 parked last=7 fork`,
/// in order of arrival. `hit`: blocks of its beginning that are cached, and idle.
fn check(views: &str, expect: Expect) {
    let scheduler = Scheduler::new(config(4, 8, 25));
    let (views, hits): (Vec<_>, Vec<_>) = views.split('|').enumerate().map(parse).unzip();
    let blocks = Simple {
        views: &views,
        hits,
    };
    let step = scheduler.plan(&views, &blocks);
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

fn config(sequences: u32, prefill: u32, blocks: u32) -> SchedulerConfig {
    SchedulerConfig {
        sequences_max: NonZeroU32::new(sequences).unwrap(),
        prefill_tokens_per_step: NonZeroU32::new(prefill).unwrap(),
        block_tokens: NonZeroU32::new(4).unwrap(),
        blocks_max: NonZeroU32::new(blocks).unwrap(),
    }
}

/// Nothing is shared; what is cached beside that is idle.
struct Simple<'a> {
    views: &'a [SequenceView],
    hits: Vec<u32>,
}

impl Blocks for Simple<'_> {
    fn free(&self) -> u32 {
        let held: u32 = self.views.iter().map(|view| self.own(view.id)).sum();
        25 - held
    }

    fn own(&self, id: SequenceId) -> u32 {
        self.views[id.arrival as usize].cached.div_ceil(4)
    }

    fn prefix(&self, id: SequenceId) -> Prefix {
        let blocks = self.hits[id.arrival as usize];
        let idle = blocks;
        Prefix { blocks, idle }
    }
}

fn parse((arrival, text): (usize, &str)) -> (SequenceView, u32) {
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
        tail_shared: false,
    };
    let mut hit = 0;
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("hit", blocks) => hit = blocks.parse().unwrap(),
            ("last", step) => view.last_step = step.parse().unwrap(),
            ("parked", _) => view.parked = true,
            ("fork", _) => view.tail_shared = true,
            (copies, _) => view.copies = copies.trim_start_matches('x').parse().unwrap(),
        }
    }
    (view, hit)
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
    // They share the prompt: one block more for each.
    check("a: wait 90 x3", expect!["run a 8"]);
    // Alone it is let in, even if its choices have to take turns.
    check("a: wait 98 x4 | b: wait 3", expect!["run a 8"]);
}

#[test]
fn the_youngest_gives_way_when_blocks_run_out() {
    check(
        "a: decode 48 | b: decode 32 | c: decode 20",
        expect!["run a 1, b 1; preempt c"],
    );
    check(
        "a: decode 47 | b: decode 31 | c: decode 19",
        expect!["run a 1, b 1, c 1"],
    );
    // The copy of a shared block counts, too.
    check(
        "a: decode 47 | b: decode 31 fork | c: decode 19",
        expect!["run a 1, b 1; preempt c"],
    );
}

#[test]
fn a_slow_reader_gives_way_first() {
    check(
        "a: decode 48 parked | b: decode 32 | c: decode 20",
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

#[test]
fn a_cached_prefix_is_not_computed_and_takes_no_new_blocks() {
    check("a: wait 30 hit=6", expect!["run a 6"]);
    check("a: decode 12 | b: wait 60 hit=14", expect!["run a 1, b 4"]);
    check("a: decode 60 | b: wait 40 hit=9", expect!["run a 1"]);
}

mod simulation;
