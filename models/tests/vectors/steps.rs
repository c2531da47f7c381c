//! Random engine steps on the small models: whatever is computed beside a
//! sequence, in whatever chunks, its rows are the scalar reference's.

use std::sync::{LazyLock, Mutex};

use models::exact::KvCache;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = [
    "llama-blocks",
    "llama-k",
    "llama-floats",
    "llama-factors",
    "gemma3-floats",
    "gemma3-blocks",
];

/// A model twice.
struct Pair {
    reference: Reference,
    /// At each level, on two threads.
    models: Vec<ExactModel>,
}

static PAIRS: LazyLock<Vec<Mutex<Pair>>> = LazyLock::new(|| {
    let pair = |name: &&str| {
        let path = folder().join(format!("{name}.gguf"));
        let model = |level| {
            let options = Options {
                threads: NonZeroUsize::new(2).unwrap(),
                level,
                kv_tokens: 1024,
            };
            ExactModel::load(&path, &options).unwrap()
        };
        Mutex::new(Pair {
            reference: Reference::load(&path).unwrap(),
            models: Level::available().into_iter().map(model).collect(),
        })
    };
    NAMES.iter().map(pair).collect()
});

/// What one sequence does in one step.
#[derive(Debug, Clone, Copy)]
enum Move {
    /// Reads so many of its tokens.
    Read(usize),
    /// Sits out.
    Wait,
    /// Loses its keys and values from a position on, as a preempted one does.
    Lose(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (1_usize..40).prop_map(Move::Read),
        3 => Just(Move::Read(1)),
        1 => Just(Move::Wait),
        1 => (0_usize..60).prop_map(Move::Lose),
    ]
}

/// A text, and what its sequence does, over and over.
fn sequences() -> impl Strategy<Value = (Vec<u32>, Vec<Move>)> {
    let text = prop::collection::vec(0_u32..64, 1..56);
    (text, prop::collection::vec(moves(), 1..6))
}

/// Runs all sequences to their ends, or until the steps run out.
fn check(model: &ExactModel, sequences: &[(Vec<u32>, Vec<Move>)], expected: &[Output]) {
    let mut caches: Vec<KvCache> = sequences.iter().map(|_| model.new_cache()).collect();
    for step in 0..24 {
        let mut work = Vec::new();
        let mut running = Vec::new();
        for (index, (cache, (text, moves))) in caches.iter_mut().zip(sequences).enumerate() {
            let from = cache.len();
            let count = match moves[step % moves.len()] {
                Move::Read(count) => count.min(text.len() - from),
                Move::Wait => 0,
                Move::Lose(position) => {
                    cache.truncate(position.min(from));
                    0
                }
            };
            if count > 0 {
                running.push((index, from));
                work.push(Chunk {
                    cache,
                    tokens: &text[from..from + count],
                    logits: Want::All,
                });
            }
        }
        if work.is_empty() {
            continue;
        }
        let outputs = model.forward(&mut work).unwrap();
        for ((index, from), output) in running.into_iter().zip(outputs) {
            let rows = from..from + output.hidden.len();
            let same = bits(&output.hidden) == bits(&expected[index].hidden[rows.clone()])
                && bits(&output.logits) == bits(&expected[index].logits[rows.clone()]);
            assert!(same, "step {step}, sequence {index}, positions {rows:?}");
        }
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn every_small_model_takes_part() {
    let files: Vec<String> = vectors().into_iter().filter_map(|v| v.file).collect();
    assert_eq!(files, NAMES.map(|name| format!("{name}.gguf")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_steps_give_the_same_bits(
        which in 0..NAMES.len(),
        level in 0..3_usize,
        sequences in prop::collection::vec(sequences(), 1..5),
    ) {
        let pair = PAIRS[which].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let expected: Vec<Output> = sequences
            .iter()
            .map(|(text, _)| {
                let (hidden, logits) = pair.reference.score(text);
                Output { hidden, logits }
            })
            .collect();
        check(&pair.models[level % pair.models.len()], &sequences, &expected);
    }
}
