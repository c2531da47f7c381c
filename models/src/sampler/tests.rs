//! The sampler against its specification: noise, filters, penalties, and what it reports.

use proptest::prelude::*;
use protocol::sampling::{Effective, Seed, SeedBy};

use super::*;

fn model(vocab: usize) -> ModelConfig {
    ModelConfig {
        vocab,
        context_tokens: 8192,
        bos: None,
        eos: vec![2],
    }
}

fn parameters(change: impl FnOnce(&mut Sampling)) -> Sampling {
    let effective = Effective {
        max_tokens: 100,
        seed: Seed(7),
        seed_by: SeedBy::Client,
        template_date: None,
    };
    let mut sampling = Sampling::in_force(&Default::default(), 1, effective);
    change(&mut sampling);
    sampling
}

/// The token drawn at position 9 after `output`, with `prompt` `[0, 1]`.
fn check(logits: &[f32], output: &[u32], change: impl FnOnce(&mut Sampling), want: u32) {
    let sampler = Sampler::new(&parameters(change), &model(logits.len()));
    let drawn = sampler.sample(0, 9, logits, &[0, 1], output);
    assert_eq!(drawn, Ok(Drawn { token: want }));
}

#[test]
fn greedy_takes_the_greatest_and_the_lowest_of_equals() {
    check(&[1.0, 3.0, 0.0, 3.0], &[], |s| s.temperature = 0.0, 1);
    // Other parameters change nothing then.
    check(
        &[1.0, 3.0, 0.0, 3.0],
        &[],
        |s| (s.temperature, s.top_k, s.top_p) = (0.0, 3, 0.1),
        1,
    );
}

#[test]
fn bias_penalties_and_exclusions() {
    let greedy = |s: &mut Sampling| s.temperature = 0.0;
    let logits = [4.0, 3.0, 2.0, 1.0, -1.0];
    check(
        &logits,
        &[],
        |s| (greedy(s), s.logit_bias.extend([(3, 4.0), (99, 100.0)])).0,
        3,
    );
    // The prompt's 0 and 1 count for repetition: 4 / 2.5, 3 / 2.5.
    check(
        &logits,
        &[],
        |s| (greedy(s), s.repetition_penalty = 2.5).0,
        2,
    );
    // Negative logits are multiplied: −1 becomes −3.
    check(
        &[-1.0, -2.0, -2.5],
        &[],
        |s| (greedy(s), s.repetition_penalty = 3.0).0,
        2,
    );
    // Presence counts once, frequency each time, the prompt for neither.
    check(
        &logits,
        &[0, 0],
        |s| (greedy(s), s.presence_penalty = 0.9).0,
        0,
    );
    check(
        &logits,
        &[0, 0],
        |s| (greedy(s), s.frequency_penalty = 0.9).0,
        1,
    );
    // Model ends (2) and stop tokens wait for min_tokens.
    let ends = [1.0, 3.0, 5.0, 4.0];
    check(
        &ends,
        &[7],
        |s| (greedy(s), s.min_tokens = 2, s.stop_token_ids = vec![3]).0,
        1,
    );
    check(
        &ends,
        &[7, 7],
        |s| (greedy(s), s.min_tokens = 2, s.stop_token_ids = vec![3]).0,
        2,
    );
    check(
        &ends,
        &[7],
        |s| (greedy(s), s.min_tokens = 2, s.ignore_eos = true).0,
        2,
    );
}

#[test]
fn what_cannot_be_drawn_from_is_an_error() {
    let sample = |logits: &[f32], change: fn(&mut Sampling)| {
        Sampler::new(&parameters(change), &model(3)).sample(0, 0, logits, &[], &[])
    };
    assert_eq!(
        sample(&[0.0; 2], |_| ()),
        Err(SampleError::Length {
            expected: 3,
            found: 2
        })
    );
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(
            sample(&[0.0, bad, 0.0], |_| ()),
            Err(SampleError::NotFinite)
        );
    }
    let all = |s: &mut Sampling| (s.min_tokens, s.stop_token_ids) = (1, vec![0, 1]);
    assert_eq!(sample(&[0.0; 3], all), Err(SampleError::Nothing));
    let huge = |s: &mut Sampling| {
        s.logit_bias.insert(0, f64::MAX);
        s.logit_bias.insert(1, f64::MAX);
        s.frequency_penalty = -f64::MAX;
    };
    let sampler = Sampler::new(&parameters(huge), &model(3));
    assert_eq!(
        sampler.sample(0, 0, &[0.0; 3], &[], &[0]),
        Err(SampleError::NotFinite)
    );
}

#[test]
fn tiny_temperatures_are_greedy_and_huge_ones_uniform() {
    let logits = [1.0, 1.0001, 0.0];
    for position in 0..100 {
        let sampler = Sampler::new(&parameters(|s| s.temperature = 1e-300), &model(3));
        assert_eq!(
            sampler.sample(0, position, &logits, &[], &[]),
            Ok(Drawn { token: 1 })
        );
    }
    assert!(chi_square(&logits, |s| s.temperature = 1e300, &[1.0 / 3.0; 3]) < 13.8);
}

/// How far the draws of 20,000 positions are from their expected shares.
fn chi_square(logits: &[f32], change: impl FnOnce(&mut Sampling), shares: &[f64]) -> f64 {
    const DRAWS: u32 = 20_000;
    let sampler = Sampler::new(&parameters(change), &model(logits.len()));
    let mut counts = vec![0.0; logits.len()];
    for position in 0..DRAWS {
        let drawn = sampler.sample(0, position, logits, &[], &[]).unwrap();
        counts[drawn.token as usize] += 1.0;
    }
    let square = |(count, share): (&f64, &f64)| {
        let expected = share * f64::from(DRAWS);
        if *share == 0.0 {
            assert_eq!(*count, 0.0, "a token that may not be drawn was");
            return 0.0;
        }
        (count - expected) * (count - expected) / expected
    };
    counts.iter().zip(shares).map(square).sum()
}

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let weights: Vec<f64> = logits
        .iter()
        .map(|&logit| libm::exp(f64::from(logit) / temperature))
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[test]
fn draws_follow_softmax() {
    // The thresholds are those that a right sampler passes 999 times of 1000.
    let logits = [0.0, 1.0, 2.0, -1.0, 0.5, 0.5, -3.0, 1.5, 0.1, -0.7];
    for temperature in [0.5, 1.0, 2.0] {
        for seed in [0, 1, u64::MAX] {
            let change = |s: &mut Sampling| (s.temperature, s.seed) = (temperature, Seed(seed));
            let distance = chi_square(&logits, change, &softmax(&logits, temperature));
            assert!(
                distance < 27.9,
                "temperature {temperature}, seed {seed}: {distance}"
            );
        }
    }
}

#[test]
fn draws_follow_softmax_of_the_survivors() {
    let logits = [0.0, 1.0, 2.0, -1.0, 2.0, -40.0];
    let over = |ids: &[usize]| {
        let all = softmax(&logits, 1.0);
        let sum: f64 = ids.iter().map(|&id| all[id]).sum();
        let share = |id| {
            if ids.contains(&id) {
                all[id] / sum
            } else {
                0.0
            }
        };
        (0..logits.len()).map(share).collect::<Vec<_>>()
    };
    let check = |change: fn(&mut Sampling), ids: &[usize]| {
        let distance = chi_square(&logits, change, &over(ids));
        assert!(distance < 16.3, "{ids:?}: {distance}");
    };
    check(|s| s.top_k = 3, &[1, 2, 4]);
    check(|s| s.top_k = 1, &[2]);
    check(|s| s.min_p = 0.3, &[1, 2, 4]);
    check(|s| s.min_p = 1.0, &[2, 4]);
    // Shares: 2 and 4 have 0.39 each, 1 has 0.14.
    check(|s| s.top_p = 0.39, &[2]);
    check(|s| s.top_p = 0.5, &[2, 4]);
    check(|s| s.top_p = 0.8, &[1, 2, 4]);
    check(|s| s.top_p = 0.0, &[2]);
    check(|s| (s.top_k, s.top_p) = (2, 0.6), &[2, 4]);
    check(|s| (s.top_k, s.top_p) = (2, 0.4), &[2]);
}

#[test]
fn every_address_has_noise_of_its_own() {
    let logits = [0.0; 1000];
    let draw = |seed, choice, position| {
        let sampler = Sampler::new(&parameters(|s| s.seed = Seed(seed)), &model(1000));
        sampler
            .sample(choice, position, &logits, &[], &[])
            .unwrap()
            .token
    };
    let base = draw(7, 0, 9);
    assert_eq!(draw(7, 0, 9), base, "the same again");
    for other in [
        draw(8, 0, 9),
        draw(7 << 32, 0, 9),
        draw(7, 1, 9),
        draw(7, 0, 10),
    ] {
        assert_ne!(other, base);
    }
}

#[test]
fn known_draws() {
    // spec 6.4, computed there by another program
    let sampler = Sampler::new(&parameters(|s| s.seed = Seed(7)), &model(10));
    let draw = |position| {
        sampler
            .sample(0, position, &[0.0; 10], &[], &[])
            .unwrap()
            .token
    };
    let known = [7, 2, 9, 4, 2, 7, 8, 0, 7, 9, 0, 6, 4, 1, 6, 1];
    assert_eq!((0..16).map(draw).collect::<Vec<_>>(), known);
}

/// The spec's rules as they are written, without any short cut.
fn by_the_rules(values: &[f64], parameters: &Sampling, position: u32) -> u32 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let z: Vec<f64> = values
        .iter()
        .map(|v| (v - max) / parameters.temperature)
        .collect();
    let mut ranked: Vec<usize> = (0..z.len()).collect();
    ranked.sort_by(|&a, &b| z[b].partial_cmp(&z[a]).unwrap().then(a.cmp(&b)));
    if parameters.top_k > 0 {
        ranked.truncate(parameters.top_k as usize);
    }
    if parameters.min_p > 0.0 {
        ranked.retain(|&id| z[id] >= libm::log(parameters.min_p));
    }
    if parameters.top_p < 1.0 {
        let weight =
            |id: usize| (libm::exp(z[id]) * f64::from(1u32 << 20) * f64::from(1u32 << 20)) as u64;
        let total: u64 = ranked.iter().map(|&id| weight(id)).sum();
        let target = (parameters.top_p * total as f64).ceil() as u64;
        let mut sum = 0;
        let enough = ranked.iter().position(|&id| {
            sum += weight(id);
            sum >= target
        });
        ranked.truncate(enough.map_or(ranked.len(), |last| last + 1));
    }
    ranked.sort_unstable();
    let score = |id: usize| {
        let words = crate::philox::philox(parameters.seed.0, [id as u32 / 4, position, 0, 0]);
        let u = (f64::from(words[id % 4]) + 0.5) / 4_294_967_296.0;
        z[id] - libm::log(-libm::log(u))
    };
    let first = ranked[0];
    ranked.iter().fold(
        first,
        |best, &id| if score(id) > score(best) { id } else { best },
    ) as u32
}

/// Section 3 as it is written, but for what is excluded.
fn adjusted(logits: &[f32], parameters: &Sampling, prompt: &[u32], output: &[u32]) -> Vec<f64> {
    let adjust = |(id, logit): (u32, &f32)| {
        let mut v = f64::from(*logit);
        v += parameters.logit_bias.get(&id).unwrap_or(&0.0);
        let count = output.iter().filter(|o| **o == id).count();
        if parameters.repetition_penalty != 1.0 && (count > 0 || prompt.contains(&id)) {
            v = if v > 0.0 {
                v / parameters.repetition_penalty
            } else {
                v * parameters.repetition_penalty
            };
        }
        if count > 0 {
            v -= parameters.frequency_penalty * count as f64;
            v -= parameters.presence_penalty;
        }
        v
    };
    (0u32..).zip(logits).map(adjust).collect()
}

/// Logits of many shapes: ties everywhere, flat, one far ahead, huge, all but zero.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let some = |one: BoxedStrategy<f32>| prop::collection::vec(one, 1..700);
    let ties = (-12i8..12, 1.0f32..3.0).prop_map(|(n, scale)| f32::from(n) / scale.floor());
    prop_oneof![
        some(ties.boxed()),
        some((-20.0f32..5.0).boxed()),
        some(prop::sample::select(vec![0.0f32, -0.0]).boxed()),
        some(prop::sample::select(vec![30.0f32, -3.0, -3.5, -3.25, 0.0, -0.0]).boxed()),
        some((-3.4e38f32..3.4e38).boxed()),
        some((-1e-40f32..1e-40).boxed()),
    ]
}

const TEMPERATURES: [f64; 9] = [1e-300, 1e-6, 0.3, 1.0, 1.7, 50.0, 1e15, 1e25, 1e300];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn short_cuts_change_nothing(
        logits in logits(),
        seed: u64,
        position in 0u32..9000,
        temperature in prop::sample::select(TEMPERATURES.to_vec()),
        top_k in prop::sample::select(vec![0, 0, 1, 5, 100, 1000]),
        top_p in prop::sample::select(vec![1.0, 1.0, 0.999_999_999_999, 0.999, 0.9, 0.3, 0.0]),
        min_p in prop::sample::select(vec![0.0, 0.0, 1e-300, 0.001, 0.2, 1.0]),
        penalties in prop::sample::select(vec![
            (1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (1.3, 0.0, 0.0), (0.7, 0.5, 0.25), (1.0, -1.0, 0.0),
        ]),
        bias in prop::sample::select(vec![None, None, Some((3, 2.5)), Some((0, -100.0)), Some((9999, 5.0))]),
        context in prop::collection::vec(0u32..800, 0..40),
        claimed in 0u32..700,
    ) {
        let parameters = parameters(|s| {
            (s.seed, s.temperature) = (Seed(seed), temperature);
            (s.top_k, s.top_p, s.min_p) = (top_k, top_p, min_p);
            (s.repetition_penalty, s.frequency_penalty, s.presence_penalty) = penalties;
            s.logit_bias.extend(bias);
        });
        let (prompt, output) = context.split_at(context.len() / 2);
        let values = adjusted(&logits, &parameters, prompt, output);
        let want = by_the_rules(&values, &parameters, position);
        let greedy = Sampling { temperature: 0.0, ..parameters.clone() };
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let likeliest = values.iter().position(|value| *value == max).unwrap() as u32;
        for level in Level::available() {
            let mut sampler = Sampler::new(&parameters, &model(logits.len()));
            sampler.level = level;
            let drawn = sampler.sample(0, position, &logits, prompt, output);
            prop_assert_eq!(drawn, Ok(Drawn { token: want }), "{:?}", level);
            let weighed = sampler.weigh(0, position, &logits, prompt, output, None, want);
            prop_assert_eq!(weighed, Ok(Weighed { drawn: want, standing: Standing::Drawn }));
            let other = sampler.weigh(0, position, &logits, prompt, output, None, claimed).unwrap();
            prop_assert_eq!(other.standing == Standing::Drawn, claimed == want);
            if let Standing::Lost { by } = other.standing {
                prop_assert!(by >= 0.0);
            }
            sampler.parameters = greedy.clone();
            let drawn = sampler.sample(0, position, &logits, prompt, output);
            prop_assert_eq!(drawn, Ok(Drawn { token: likeliest }), "{:?}", level);
        }
    }
}

#[test]
fn a_claimed_token_is_told_why_it_lost() {
    // The noise of position 9: what each of six equals would have.
    let weigh = |change: fn(&mut Sampling), logits: &[f32], mask: Option<&TokenMask>, claimed| {
        let sampler = Sampler::new(&parameters(change), &model(logits.len()));
        let weighed = sampler.weigh(0, 9, logits, &[0], &[], mask, claimed);
        weighed.unwrap().standing
    };
    let logits = [1.0, 9.0, 0.5, 8.0, 2.0, -50.0];
    let lost = |by| Standing::Lost { by };
    assert_eq!(weigh(|s| s.temperature = 0.0, &logits, None, 3), lost(1.0));
    assert_eq!(
        weigh(|s| s.temperature = 0.0, &logits, None, 1),
        Standing::Drawn
    );
    let excluded = |change, mask, claimed| weigh(change, &logits, mask, claimed);
    let by = Standing::Excluded;
    assert_eq!(excluded(|s| s.top_k = 2, None, 4), by(Rule::TopK));
    assert_eq!(excluded(|s| s.min_p = 0.1, None, 4), by(Rule::MinP));
    assert_eq!(excluded(|s| s.top_p = 0.9, None, 4), by(Rule::TopP));
    assert_eq!(excluded(|s| s.min_tokens = 1, None, 2), by(Rule::MinTokens));
    assert_eq!(excluded(|_| (), None, 6), by(Rule::Vocabulary));
    let mask = TokenMask::of(6, [1, 3]);
    assert_eq!(excluded(|_| (), Some(&mask), 4), by(Rule::Mask));
    // Without noise to speak of, the distances are what is lost.
    let Standing::Lost { by } = weigh(|s| s.temperature = 1e-3, &logits, None, 3) else {
        panic!("it took part");
    };
    assert!((by - 1000.0).abs() < 30.0, "{by}");
}

proptest! {
    #[test]
    fn what_a_mask_leaves_out_takes_part_in_nothing(
        logits in prop::collection::vec((-12i8..12, any::<bool>()), 2..300),
        seed: u64,
        temperature in prop::sample::select(vec![0.3, 1.0]),
        top_k in prop::sample::select(vec![0, 1, 5, 1000]),
        top_p in prop::sample::select(vec![1.0, 0.9, 0.3]),
        min_p in prop::sample::select(vec![0.0, 0.2]),
    ) {
        let allowed: Vec<u32> = (0u32..)
            .zip(&logits)
            .filter_map(|(id, (_, allowed))| allowed.then_some(id))
            .collect();
        let logits: Vec<f32> = logits.iter().map(|&(logit, _)| f32::from(logit)).collect();
        let parameters = parameters(|s| {
            (s.seed, s.temperature) = (Seed(seed), temperature);
            (s.top_k, s.top_p, s.min_p) = (top_k, top_p, min_p);
        });
        let sampler = Sampler::new(&parameters, &model(logits.len()));
        let mask = TokenMask::of(logits.len(), allowed.iter().copied());
        let drawn = sampler.sample_masked(0, 9, &logits, &[], &[], Some(&mask));
        if allowed.is_empty() {
            prop_assert_eq!(drawn, Err(SampleError::Nothing));
        } else {
            let mut values = vec![f64::NEG_INFINITY; logits.len()];
            for &id in &allowed {
                values[id as usize] = f64::from(logits[id as usize]);
            }
            let want = by_the_rules(&values, &parameters, 9);
            prop_assert_eq!(drawn, Ok(Drawn { token: want }));
        }
    }
}

#[test]
fn min_tokens_waits_where_a_grammar_has_nothing_but_ends() {
    let sampling = parameters(|s| (s.temperature, s.min_tokens) = (0.0, 5));
    let sampler = Sampler::new(&sampling, &model(4));
    let draw = |ids: &[u32]| {
        let mask = TokenMask::of(4, ids.iter().copied());
        sampler.sample_masked(0, 0, &[0.0, 1.0, 9.0, 2.0], &[], &[], Some(&mask))
    };
    assert_eq!(draw(&[0, 1, 2]), Ok(Drawn { token: 1 }));
    assert_eq!(draw(&[2]), Ok(Drawn { token: 2 }));
}
