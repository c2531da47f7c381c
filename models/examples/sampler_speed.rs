//! Times one draw in many settings: `sampler_speed MODEL.gguf`.
//!
//! The logits are the model's own, at every position of a text. Prints the
//! median microseconds of a draw on one thread.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use models::{Chunk, Level, Model, Options, Sampler, Special, Want, Whitelist};
use protocol::api::SamplingAsk;
use protocol::sampling::{Effective, Sampling, Seed, SeedBy};

const TEXT: &str = "<|im_start|>user\nWhat is the capital of France, and why is it there?<|im_end|>\n\
<|im_start|>assistant\nThe capital of France is Paris. It grew around an island in the Seine, where the \
river was easy to cross, and became the seat of kings in the tenth century. Since then, roads, money and \
people have met there, and so the government has stayed, too.<|im_end|>\n";

type Change = fn(&mut Sampling);

fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).expect("a model file");
    let options = Options {
        threads: NonZeroUsize::new(2).expect("not zero"),
        level: Level::detect(),
        kv_tokens: 1024,
    };
    let model = Model::load(Path::new(&path), &Whitelist::embedded()[0], &options)?;
    let tokens = model.tokenizer().encode(TEXT, Special::Parse);
    let mut cache = model.new_cache();
    let outputs = model.forward(&mut [Chunk {
        cache: &mut cache,
        tokens: &tokens,
        logits: Want::All,
    }])?;
    let rows = &outputs[0].logits;
    println!("{} positions, vocabulary of {}", rows.len(), rows[0].len());
    let settings: [(&str, Change); 12] = [
        ("greedy", |s| s.temperature = 0.0),
        ("the API's defaults", |_| {}),
        ("temperature 0.7", |s| s.temperature = 0.7),
        ("top_p 0.9", |s| s.top_p = 0.9),
        ("top_p 0.99", |s| s.top_p = 0.99),
        ("temperature 0.7, top_p 0.9", |s| {
            (s.temperature, s.top_p) = (0.7, 0.9);
        }),
        ("top_k 40", |s| s.top_k = 40),
        ("top_k 40, top_p 0.9", |s| (s.top_k, s.top_p) = (40, 0.9)),
        ("min_p 0.05", |s| s.min_p = 0.05),
        ("min_p 1e-9", |s| s.min_p = 1e-9),
        ("repetition_penalty 1.1", |s| s.repetition_penalty = 1.1),
        ("greedy, frequency_penalty 0.5", |s| {
            (s.temperature, s.frequency_penalty) = (0.0, 0.5);
        }),
    ];
    for (name, change) in settings {
        let sampler = Sampler::new(&sampling(change), model.config());
        let mut times = Vec::new();
        let mut sum = 0;
        for _ in 0..8 {
            for (at, logits) in rows.iter().enumerate() {
                let (prompt, output) = tokens[..=at].split_at(at / 2);
                let start = Instant::now();
                let drawn = sampler.sample(0, at as u32 + 1, logits, prompt, output)?;
                times.push(start.elapsed().as_secs_f64() * 1e6);
                sum += u64::from(drawn.token) * (at as u64 + 1);
            }
        }
        report(name, times, sum);
    }
    let mut times = Vec::new();
    for _ in 0..8 {
        for logits in rows {
            let start = Instant::now();
            std::hint::black_box(models::log_softmax_top(logits, 20, 5));
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    report("20 log-probabilities", times, 0);
    Ok(())
}

fn sampling(change: Change) -> Sampling {
    let effective = Effective {
        max_tokens: 100,
        seed: Seed(7),
        seed_by: SeedBy::Client,
        template_date: None,
    };
    let mut sampling = Sampling::in_force(&SamplingAsk::default(), 1, effective);
    change(&mut sampling);
    sampling
}

/// `sum` tells whether two builds drew the same.
fn report(name: &str, mut times: Vec<f64>, sum: u64) {
    times.sort_by(f64::total_cmp);
    let (median, most) = (times[times.len() / 2], times[times.len() * 9 / 10]);
    println!("{name:32} {median:7.1} µs, nine of ten within {most:7.1} (drawn: {sum})");
}
