//! Small random models with every feature, through files as real ones are.

use std::num::NonZeroUsize;

use super::*;
use crate::exact::reference::Reference;
use crate::exact::tiny::{self, Tiny};

fn load(tiny: &Tiny, level: Level, threads: usize) -> ExactModel {
    let options = Options {
        threads: NonZeroUsize::new(threads).unwrap(),
        level,
        kv_tokens: 4096,
    };
    ExactModel::load(tiny.path(), &options).unwrap()
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (i * 37 + i * i * 11) % 61)
        .collect()
}

fn run(model: &ExactModel, cache: &mut KvCache, tokens: &[u32], want: Want) -> Output {
    let mut work = [Chunk {
        cache,
        tokens,
        logits: want,
    }];
    model.forward(&mut work).unwrap().remove(0)
}

#[test]
fn every_architecture_is_as_specified() {
    for tiny in tiny::all() {
        let reference = Reference::load(tiny.path()).unwrap();
        let tokens = tokens(70);
        let (hidden, logits) = reference.score(&tokens);
        let expected = Output { hidden, logits };
        for level in Level::available() {
            for (threads, chunk) in [(1, 70), (2, 1), (2, 9)] {
                let model = load(&tiny, level, threads);
                let mut cache = model.new_cache();
                let mut all = Output::default();
                for tokens in tokens.chunks(chunk) {
                    let output = run(&model, &mut cache, tokens, Want::All);
                    all.hidden.extend(output.hidden);
                    all.logits.extend(output.logits);
                }
                assert!(
                    all == expected,
                    "{}: {level:?}, {threads} threads, chunks of {chunk}",
                    tiny.name
                );
            }
        }
    }
}

#[test]
fn a_step_that_cannot_be_computed_changes_nothing() {
    let tiny = tiny::all().remove(0);
    let model = load(&tiny, Level::detect(), 1);
    let mut good = model.new_cache();
    run(&model, &mut good, &tokens(5), Want::No);
    let mut refused = |tokens: &[u32]| {
        let mut bad = model.new_cache();
        let mut work = [
            Chunk {
                cache: &mut good,
                tokens: &[3],
                logits: Want::Last,
            },
            Chunk {
                cache: &mut bad,
                tokens,
                logits: Want::Last,
            },
        ];
        let error = model.forward(&mut work).unwrap_err();
        assert_eq!((good.len(), bad.len()), (5, 0));
        error
    };
    assert!(matches!(refused(&[]), ForwardError::Empty { chunk: 1 }));
    let error = refused(&[1, 64]);
    assert!(matches!(
        error,
        ForwardError::Token {
            chunk: 1,
            token: 64
        }
    ));
    let error = refused(&vec![1; 513]);
    assert!(matches!(error, ForwardError::TooLong { chunk: 1, .. }));

    let mut hogs: Vec<_> = (0..15).map(|_| model.new_cache()).collect();
    for hog in &mut hogs[..7] {
        run(&model, hog, &vec![1; 512], Want::No);
    }
    let error = refused(&[1; 512]);
    assert!(matches!(error, ForwardError::OutOfBlocks(_)), "{error}");
    hogs.clear();
    let mut again = model.new_cache();
    assert_eq!(
        run(&model, &mut again, &[1; 512], Want::Last).logits.len(),
        1
    );
}

#[test]
fn what_is_not_finite_is_an_error_of_its_sequence_alone() {
    let tiny = tiny::overflowing();
    let model = load(&tiny, Level::detect(), 1);
    let mut fine = model.new_cache();
    let expected = run(&model, &mut fine, &[1, 2], Want::All);
    let (mut fine, mut bad) = (model.new_cache(), model.new_cache());
    let mut work = [
        Chunk {
            cache: &mut fine,
            tokens: &[1, 2],
            logits: Want::All,
        },
        Chunk {
            cache: &mut bad,
            tokens: &[1, tiny::OVERFLOWING_TOKEN, 2],
            logits: Want::Last,
        },
    ];
    let error = model.forward(&mut work).unwrap_err();
    let ForwardError::NotFinite { chunk, position } = error else {
        panic!("{error}");
    };
    assert_eq!((chunk, position), (1, 1));
    assert_eq!((fine.len(), bad.len()), (0, 0));
    assert_eq!(run(&model, &mut fine, &[1, 2], Want::All), expected);
}

#[test]
fn rows_that_the_team_sees_are_the_same() {
    for tiny in tiny::all() {
        let model = load(&tiny, Level::detect(), 3);
        let tokens = tokens(70);
        let expected = run(&model, &mut model.new_cache(), &tokens, Want::All);
        let seen = Mutex::new(std::collections::BTreeMap::new());
        let mut cache = model.new_cache();
        let mut work = [Chunk {
            cache: &mut cache,
            tokens: &tokens,
            logits: Want::All,
        }];
        let take = |row: Scored| {
            let bits = (row.hidden.to_vec(), row.logits.to_vec());
            let before = seen.lock().unwrap().insert(row.position, bits);
            assert!(before.is_none(), "each row once");
        };
        model.forward_shared(&mut work, &take).unwrap();
        let (hidden, logits) = seen.into_inner().unwrap().into_values().unzip();
        assert!(Output { hidden, logits } == expected, "{}", tiny.name);
    }
}
