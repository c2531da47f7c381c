//! The same tokens give the same bits, however they are computed.

use std::sync::LazyLock;

use models::exact::Level;
use models::exact::Reference;
use models::exact::{Chunk, ExactModel, Output, Want};

use crate::model::{MODEL, ids, load, oracle, path, score};

/// Real text: the oracle's conversations, as tokens.
fn texts() -> Vec<Vec<u32>> {
    let text =
        |item: &serde_json::Value| [ids(&item["prompt_tokens"]), ids(&item["tokens"])].concat();
    oracle("greedy.json").iter().map(text).collect()
}

pub static TEXTS: LazyLock<Vec<Vec<u32>>> = LazyLock::new(texts);
/// What every way of computing the texts must give.
pub static EXPECTED: LazyLock<Vec<Output>> =
    LazyLock::new(|| TEXTS.iter().map(|text| score(&MODEL, text)).collect());

/// Panics at the first position where a bit differs.
fn check(what: &str, text: usize, from: usize, ours: &Output) {
    println!("{what}");
    for (i, (hidden, logits)) in ours.hidden.iter().zip(&ours.logits).enumerate() {
        same(text, from + i, hidden, logits);
    }
}

/// Panics if a bit of a row isn't what it must be.
pub fn same(text: usize, position: usize, hidden: &[f32], logits: &[f32]) {
    let expected = &EXPECTED[text];
    let differ = |a: &[f32], b: &[f32]| a.iter().zip(b).any(|(a, b)| a.to_bits() != b.to_bits());
    for (what, ours, expected) in [
        ("hidden state", hidden, &expected.hidden[position]),
        ("logits", logits, &expected.logits[position]),
    ] {
        assert_eq!(ours.len(), expected.len());
        assert!(
            !differ(ours, expected),
            "text {text}, position {position}: {what}"
        );
    }
}

/// A text alone, in chunks.
fn in_chunks(model: &ExactModel, text: &[u32], chunk: usize) -> Output {
    let mut cache = model.new_cache();
    let mut all = Output::default();
    for tokens in text.chunks(chunk) {
        let mut work = [Chunk {
            cache: &mut cache,
            tokens,
            logits: Want::All,
        }];
        let output = model.forward(&mut work).unwrap().remove(0);
        all.hidden.extend(output.hidden);
        all.logits.extend(output.logits);
    }
    all
}

#[test]
fn the_scalar_reference_gives_the_same_bits() {
    let reference = Reference::load(&path()).unwrap();
    let tokens = &TEXTS[0][..24];
    let (hidden, logits) = reference.score(tokens);
    check("reference", 0, 0, &Output { hidden, logits });
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for level in Level::available() {
        let model = load(2, level);
        let output = in_chunks(&model, &TEXTS[1][..20], 7);
        check(&format!("{level:?}"), 1, 0, &output);
    }
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    for (text, tokens) in TEXTS.iter().enumerate().take(3) {
        for chunk in [1, 7, 32, 128, 512] {
            let output = in_chunks(&MODEL, tokens, chunk);
            assert_eq!(output.hidden.len(), tokens.len());
            check(&format!("chunks of {chunk}"), text, 0, &output);
        }
    }
}

#[test]
fn one_thread_gives_the_same_bits() {
    let one = load(1, Level::detect());
    for chunk in [1, 50] {
        check("one thread", 2, 0, &in_chunks(&one, &TEXTS[2], chunk));
    }
    let three = load(3, Level::detect());
    check("three threads", 2, 0, &in_chunks(&three, &TEXTS[2], 50));
}

/// All texts at once, in chunks of sizes that change from step to step, each
/// step in another order: every slot, any mix of prefill and decode.
#[test]
fn neighbours_do_not_matter() {
    let mut caches: Vec<_> = TEXTS.iter().map(|_| MODEL.new_cache()).collect();
    for step in 0.. {
        let mut order: Vec<usize> = (0..TEXTS.len()).collect();
        order.rotate_left(step % TEXTS.len());
        let mut places: Vec<_> = caches.iter_mut().map(Some).collect();
        let mut work = Vec::new();
        let mut running = Vec::new();
        for text in order {
            let cache = places[text].take().expect("each text once");
            let from = cache.len();
            let rest = &TEXTS[text][from..];
            let size = usize::min([1, 5, 1, 33, 70][(step + text) % 5], rest.len());
            if size > 0 {
                running.push((text, from));
                work.push(Chunk {
                    cache,
                    tokens: &rest[..size],
                    logits: Want::All,
                });
            }
        }
        if work.is_empty() {
            break;
        }
        let outputs = MODEL.forward(&mut work).unwrap();
        for ((text, from), output) in running.into_iter().zip(&outputs) {
            check("among neighbours", text, from, output);
        }
    }
}

#[test]
fn forks_prefixes_and_truncation_give_the_same_bits() {
    let text = &TEXTS[3];
    let run = |cache: &mut _, tokens: &[u32], want| {
        let mut work = [Chunk {
            cache,
            tokens,
            logits: want,
        }];
        MODEL.forward(&mut work).unwrap().remove(0)
    };
    let mut first = MODEL.new_cache();
    run(&mut first, &text[..45], Want::No);
    let mut fork = first.fork();
    // The fork goes astray and comes back; the first isn't disturbed.
    run(&mut fork, &TEXTS[4][..30], Want::No);
    check(
        "beside a fork",
        3,
        45,
        &run(&mut first, &text[45..], Want::All),
    );
    fork.truncate(45);
    check("in a fork", 3, 45, &run(&mut fork, &text[45..], Want::All));

    let mut reused = MODEL.pool().cache_from(fork.blocks()[..1].to_vec());
    let from = reused.len();
    check(
        "after a reused prefix",
        3,
        from,
        &run(&mut reused, &text[from..], Want::All),
    );
}

#[test]
fn unwanted_rows_change_nothing() {
    let text = &TEXTS[0];
    let mut cache = MODEL.new_cache();
    let mut work = [Chunk {
        cache: &mut cache,
        tokens: text,
        logits: Want::Last,
    }];
    let output = MODEL.forward(&mut work).unwrap().remove(0);
    assert_eq!(output.hidden.len(), 1);
    check("last row only", 0, text.len() - 1, &output);
}

/// Attention adds up segments of 256 positions apart: three of them here.
#[test]
fn long_sequences_give_the_same_bits() {
    let text = TEXTS.concat()[..560].to_vec();
    let whole = score(&MODEL, &text);
    let mut cache = MODEL.new_cache();
    let mut step = |tokens: &[u32], want| {
        let mut work = [Chunk {
            cache: &mut cache,
            tokens,
            logits: want,
        }];
        MODEL.forward(&mut work).unwrap().remove(0)
    };
    for tokens in text[..499].chunks(83) {
        step(tokens, Want::No);
    }
    let mut position = 499;
    while position < 560 {
        // One by one, and then in threes.
        let count = if position < 530 { 1 } else { 3 };
        let tokens = &text[position..][..usize::min(count, 560 - position)];
        for logits in step(tokens, Want::All).logits {
            assert!(logits == whole.logits[position], "position {position}");
            position += 1;
        }
    }
}
