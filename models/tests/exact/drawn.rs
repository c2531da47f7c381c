//! Steps drawn at random: which sequences run together, in which slots, in
//! chunks of which sizes, on which kernels and how many threads, and which of
//! them are preempted, cancelled or begun from kept blocks.

use std::sync::LazyLock;

use models::exact::{Chunk, ExactModel, KvBlock, KvCache, Level, POSITIONS, Want};
use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::bits::{TEXTS, same};
use crate::model::{MODEL, load};

/// What happens to a sequence on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Undisturbed,
    /// Half-way, its keys are thrown away and computed again.
    Preempted,
    /// Half-way, it ends; it begins anew in blocks that were others'.
    Cancelled,
    /// It begins with blocks that an earlier sequence left.
    FromPrefix,
}

#[derive(Debug, Clone)]
struct Drawn {
    text: usize,
    tokens: usize,
    fate: Fate,
}

/// A sequence on its way.
struct Running {
    drawn: Drawn,
    cache: KvCache,
    disturbed: bool,
}

static MODELS: LazyLock<Vec<ExactModel>> = LazyLock::new(|| {
    let levels = Level::available().into_iter().skip(1);
    let both = levels.flat_map(|level| [load(1, level), load(2, level)]);
    both.collect()
});

fn drawn() -> impl Strategy<Value = Drawn> {
    let fate = prop_oneof![
        Just(Fate::Undisturbed),
        Just(Fate::Preempted),
        Just(Fate::Cancelled),
        Just(Fate::FromPrefix),
    ];
    (0..TEXTS.len(), 1..110_usize, fate).prop_map(|(text, tokens, fate)| Drawn {
        text,
        tokens: usize::min(tokens, TEXTS[text].len()),
        fate,
    })
}

/// Numbers that look random, from one that is.
fn next(state: &mut u64, below: usize) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) as usize % below
}

fn begin(model: &ExactModel, drawn: &Drawn) -> Running {
    let tokens = &TEXTS[drawn.text][..drawn.tokens];
    let blocks = (drawn.tokens - 1) / POSITIONS;
    let mut cache = model.new_cache();
    if drawn.fate == Fate::FromPrefix && blocks > 0 {
        append(model, &mut cache, tokens);
        let kept: Vec<std::sync::Arc<KvBlock>> = cache.blocks()[..blocks].to_vec();
        cache = model.pool().cache_from(kept);
    }
    Running {
        drawn: drawn.clone(),
        cache,
        disturbed: false,
    }
}

fn append(model: &ExactModel, cache: &mut KvCache, tokens: &[u32]) {
    let mut work = [Chunk {
        cache,
        tokens,
        logits: Want::No,
    }];
    model.forward(&mut work).unwrap();
}

fn check(model: &ExactModel, sequences: &[Drawn], mut seed: u64) {
    let mut running: Vec<Running> = sequences.iter().map(|drawn| begin(model, drawn)).collect();
    while !running.is_empty() {
        let count = running.len();
        running.rotate_left(next(&mut seed, count));
        let other = next(&mut seed, count);
        running.swap(0, other);
        let mut places = Vec::new();
        let mut work = Vec::new();
        for one in &mut running {
            let rest = &TEXTS[one.drawn.text][one.cache.len()..one.drawn.tokens];
            let size = [1, 1, 2, 5, 9, 16, 33, 64][next(&mut seed, 8)];
            places.push(one.drawn.text);
            work.push(Chunk {
                tokens: &rest[..usize::min(size, rest.len())],
                cache: &mut one.cache,
                logits: Want::All,
            });
        }
        model
            .forward_each(&mut work, &mut |row| {
                same(places[row.chunk], row.position, row.hidden, row.logits);
            })
            .unwrap();
        for one in &mut running {
            let half_way = one.cache.len() >= one.drawn.tokens / 2;
            let fate = matches!(one.drawn.fate, Fate::Preempted | Fate::Cancelled);
            if fate && half_way && !one.disturbed && one.cache.len() < one.drawn.tokens {
                one.disturbed = true;
                // The old cache goes first or last: its blocks are taken again, or others.
                if one.drawn.fate == Fate::Cancelled {
                    one.cache.truncate(0);
                }
                one.cache = model.new_cache();
            }
        }
        running.retain(|one| one.cache.len() < one.drawn.tokens);
    }
}

proptest! {
    #![proptest_config(Config { cases: 10, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_company_gives_the_same_bits(
        sequences in prop::collection::vec(drawn(), 1..9),
        model in 0..4_usize,
        seed: u64,
    ) {
        let model = MODELS.get(model).unwrap_or(&MODEL);
        check(model, &sequences, seed);
    }
}
