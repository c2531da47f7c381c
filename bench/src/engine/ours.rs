//! Our engine's model, driven as the engine and the verifier drive it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use models::exact::{Chunk, ExactModel, Scored, Want};
use models::{KvCache, ModelConfig, Sampler, Trace};
use protocol::digest::Hasher;
use protocol::sampling::{Sampling, Seed, SeedBy, VERSION};

/// Tokens that mean nothing: speed doesn't depend on them.
fn tokens(count: usize, seed: u32) -> Vec<u32> {
    let token = |i: u32| (i + 37 * seed).wrapping_mul(7919) % 40_000 + 100;
    (0..count as u32).map(token).collect()
}

/// Tokens a second of a prompt whose next token is wanted.
pub fn prefill(model: &ExactModel, count: usize) -> anyhow::Result<f64> {
    prompt(model, count, Want::Last, &|_| {})
}

/// Tokens a second with logits at every position.
pub fn score(model: &ExactModel, count: usize) -> anyhow::Result<f64> {
    prompt(model, count, Want::All, &|_| {})
}

/// Tokens a second with a token drawn at every position, as a replay does.
pub fn replay(model: &ExactModel, count: usize) -> anyhow::Result<f64> {
    let sampler = Sampler::new(&sampling(), &config(model));
    let tokens = tokens(count, 0);
    let failed = AtomicBool::new(false);
    let rate = prompt(model, count, Want::All, &|row| {
        let output = &tokens[..=row.position];
        let position = row.position as u32 + 1;
        let drawn = sampler.sample(0, position, row.logits, &[], output);
        failed.fetch_or(drawn.is_err(), Ordering::Relaxed);
    })?;
    anyhow::ensure!(!failed.into_inner(), "a token couldn't be drawn");
    Ok(rate)
}

/// The median of three.
fn prompt(
    model: &ExactModel,
    count: usize,
    want: Want,
    take: &(dyn Fn(Scored) + Sync),
) -> anyhow::Result<f64> {
    let tokens = tokens(count, 0);
    let mut rates = Vec::new();
    for _ in 0..3 {
        let mut cache = model.new_cache();
        let mut work = [Chunk {
            cache: &mut cache,
            tokens: &tokens,
            logits: want,
        }];
        let start = Instant::now();
        model.forward_shared(&mut work, take)?;
        rates.push(count as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[1])
}

/// Tokens a second of `count` sequences together, `steps` tokens each, after
/// prompts of `prompt` tokens. The tokens are given: nothing is drawn, as in
/// llama.cpp's own benchmarks.
pub fn decode(
    model: &ExactModel,
    count: usize,
    prompt: usize,
    steps: usize,
) -> anyhow::Result<f64> {
    let mut caches = prompts(model, count, prompt)?;
    let next = tokens(steps * count, 5);
    let start = Instant::now();
    for step in next.chunks(count) {
        let work = caches.iter_mut().zip(step);
        let mut work: Vec<Chunk> = work.map(|(cache, token)| one(cache, token)).collect();
        model.forward_each(&mut work, &mut |_| {})?;
    }
    Ok((count * steps) as f64 / start.elapsed().as_secs_f64())
}

fn one<'a>(cache: &'a mut KvCache, token: &'a u32) -> Chunk<'a> {
    Chunk {
        cache,
        tokens: std::slice::from_ref(token),
        logits: Want::Last,
    }
}

fn prompts(model: &ExactModel, count: usize, prompt: usize) -> anyhow::Result<Vec<KvCache>> {
    let mut caches: Vec<_> = (0..count).map(|_| model.new_cache()).collect();
    for (index, cache) in caches.iter_mut().enumerate() {
        let tokens = tokens(prompt, index as u32);
        let mut work = [Chunk {
            cache,
            tokens: &tokens,
            logits: Want::No,
        }];
        model.forward_each(&mut work, &mut |_| {})?;
    }
    Ok(caches)
}

/// How answers are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// The likeliest token, and nothing else.
    Greedy,
    /// Temperature 1 from a seed, the trace over hidden states, and the
    /// receipt's digest over tokens.
    Receipts,
}

/// Tokens a second of whole answers, each token drawn and fed back.
pub fn answers(
    model: &ExactModel,
    count: usize,
    prompt: usize,
    steps: usize,
    style: Style,
) -> anyhow::Result<f64> {
    let mut caches = prompts(model, count, prompt)?;
    let sampler = Sampler::new(&sampling(), &config(model));
    let answers: Vec<Mutex<Answer>> = (0..count).map(|_| Mutex::default()).collect();
    let mut next: Vec<u32> = tokens(count, 9);
    let start = Instant::now();
    for step in 0..steps {
        let work = caches.iter_mut().zip(&next);
        let mut work: Vec<Chunk> = work.map(|(cache, token)| one(cache, token)).collect();
        let drawn: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(u32::MAX)).collect();
        model.forward_shared(&mut work, &|row| {
            let position = (prompt + step + 1) as u32;
            let token = match style {
                Style::Greedy => Some(likeliest(row.logits)),
                Style::Receipts => {
                    let drawn = sampler.sample(0, position, row.logits, &[], &[]);
                    drawn.ok().map(|drawn| drawn.token)
                }
            };
            let Some(token) = token else { return };
            drawn[row.chunk].store(token, Ordering::Relaxed);
            if style == Style::Receipts {
                let answer = &answers[row.chunk];
                let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
                answer.trace.absorb(token, row.hidden);
                answer.tokens.update_token(token);
            }
        })?;
        next = drawn.into_iter().map(AtomicU32::into_inner).collect();
        anyhow::ensure!(!next.contains(&u32::MAX), "a token couldn't be drawn");
    }
    Ok((count * steps) as f64 / start.elapsed().as_secs_f64())
}

/// What a receipt states of an answer.
#[derive(Default)]
struct Answer {
    trace: Trace,
    tokens: Hasher,
}

/// As a plain engine would do it: one pass that compilers make vectors of.
fn likeliest(logits: &[f32]) -> u32 {
    let max = logits
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    logits.iter().position(|x| *x == max).unwrap_or(0) as u32
}

fn config(model: &ExactModel) -> ModelConfig {
    ModelConfig {
        vocab: model.vocab(),
        context_tokens: 8192,
        bos: None,
        eos: Vec::new(),
    }
}

/// The API's defaults, with a seed.
fn sampling() -> Sampling {
    Sampling {
        version: VERSION.to_owned(),
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logit_bias: BTreeMap::new(),
        max_tokens: 64,
        min_tokens: 0,
        stop: Vec::new(),
        stop_token_ids: Vec::new(),
        ignore_eos: true,
        n: 1,
        seed: Seed(7),
        seed_by: SeedBy::Client,
        template_date: None,
        grammar: None,
        grammar_sha256: None,
    }
}
