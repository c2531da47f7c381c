//! Candle's tensors against the exact kernels, on small models with every
//! feature. The exact profile rounds the inputs of quantised linear layers to
//! eight bits, so they agree to some hundredths; without such layers, to the
//! roundings of keys and values.

use std::num::NonZeroUsize;

use super::*;
use crate::exact::{Chunk, ExactModel, Level, Options, tiny};

#[test]
fn one_definition_on_two_machines() {
    let tokens: Vec<u32> = (0..70u32).map(|i| (i * 37 + i * i * 11) % 61).collect();
    let floats = [
        "llama, floats, partial rope with factors, ungrouped heads",
        "gemma3, floats",
    ];
    for tiny in tiny::all().into_iter().chain([tiny::gemma_of_floats()]) {
        let limit = if floats.contains(&tiny.name) {
            0.003
        } else {
            0.06
        };
        let options = Options {
            threads: NonZeroUsize::MIN,
            level: Level::detect(),
            kv_tokens: 256,
        };
        let exact = ExactModel::load(tiny.path(), &options).unwrap();
        let mut work = [Chunk {
            cache: &mut exact.new_cache(),
            tokens: &tokens,
            logits: Want::All,
        }];
        let want = exact.forward(&mut work).unwrap().remove(0);
        let model = CandleModel::load(tiny.path(), &Device::Cpu).unwrap();
        assert_eq!((model.vocab(), model.profile()), (64, "candle-cpu/1"));
        for chunk in [70, 9] {
            let mut cache = CandleCache::default();
            let mut found = Output::default();
            for tokens in tokens.chunks(chunk) {
                let output = model.forward(&mut cache, tokens, Want::All).unwrap();
                found.hidden.extend(output.hidden);
                found.logits.extend(output.logits);
            }
            assert_eq!(cache.len(), 70);
            let (hidden, logits) = (
                distance(&found.hidden, &want.hidden),
                distance(&found.logits, &want.logits),
            );
            println!("{}: {hidden:.5}, {logits:.5}", tiny.name);
            assert!(hidden < limit && logits < limit, "{}", tiny.name);
        }
        // Without the other rows, the last is the same but for rounding.
        let mut cache = CandleCache::default();
        model.forward(&mut cache, &tokens[..50], Want::No).unwrap();
        let last = model
            .forward(&mut cache, &tokens[50..], Want::Last)
            .unwrap();
        assert!(distance(&last.logits, &want.logits[69..]) < limit);
    }
}

/// The root of the mean square of the differences, by that of what is wanted.
fn distance(found: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    assert_eq!(found.len(), want.len());
    let pairs = found.iter().flatten().zip(want.iter().flatten());
    let (mut differences, mut squares) = (0.0, 0.0);
    for (found, want) in pairs {
        let (found, want) = (f64::from(*found), f64::from(*want));
        differences += (found - want) * (found - want);
        squares += want * want;
    }
    libm::sqrt(differences / squares)
}

#[test]
fn what_cannot_follow_is_refused() {
    let tiny = &tiny::all()[0];
    let model = CandleModel::load(tiny.path(), &Device::Cpu).unwrap();
    let mut cache = CandleCache::default();
    for tokens in [&[][..], &[64], &[1; 513]] {
        let refused = model.forward(&mut cache, tokens, Want::Last);
        assert!(matches!(refused, Err(CandleError::Tokens)));
        assert!(cache.is_empty());
    }
}
