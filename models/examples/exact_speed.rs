//! Times the exact engine: `exact_speed MODEL.gguf [threads] [level] [what…]`.
//!
//! Prints the best of several runs, since the machine may be shared; ratios to
//! other engines need both measured side by side.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use models::exact::{Chunk, ExactModel, KvCache, Level, Options, Want};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let threads = args.get(1).map_or(2, |n| n.parse().expect("threads"));
    let level = match args.get(2).map(String::as_str) {
        Some("portable") => Level::Portable,
        Some("avx2") => Level::Avx2,
        Some("avx512") => Level::Avx512,
        _ => Level::detect(),
    };
    let all = ["load", "prefill", "decode", "many", "score"].map(str::to_owned);
    let what = if args.len() > 3 { &args[3..] } else { &all };
    let options = Options {
        threads: NonZeroUsize::new(threads).expect("threads"),
        level,
        kv_tokens: 20_000,
    };
    let start = Instant::now();
    let model = ExactModel::load(Path::new(&args[0]), &options)?;
    println!(
        "{level:?}, {threads} threads; loaded in {:.0} ms",
        ms(start)
    );
    let tokens: Vec<u32> = (0..4096_u32).map(|i| i * 7919 % 40_000 + 100).collect();
    for what in what {
        match what.as_str() {
            "prefill" => {
                report("prefill 512, tokens/s", 512, 8, || {
                    let mut cache = model.new_cache();
                    timed(&model, &mut [(&mut cache, &tokens[..512], Want::Last)])
                });
                report("prefill 128, tokens/s", 128, 8, || {
                    let mut cache = model.new_cache();
                    timed(&model, &mut [(&mut cache, &tokens[..128], Want::Last)])
                });
            }
            "score" => report("prefill 512 with all logits, tokens/s", 512, 5, || {
                let mut cache = model.new_cache();
                timed(&model, &mut [(&mut cache, &tokens[..512], Want::All)])
            }),
            "decode" => {
                for past in [16, 512] {
                    let mut cache = model.new_cache();
                    timed(&model, &mut [(&mut cache, &tokens[..past], Want::No)]);
                    report(&format!("decode one after {past}, tokens/s"), 1, 60, || {
                        timed(&model, &mut [(&mut cache, &tokens[..1], Want::Last)])
                    });
                }
            }
            "many" => {
                let mut caches: Vec<_> = (0..16).map(|_| model.new_cache()).collect();
                for cache in &mut caches {
                    timed(&model, &mut [(cache, &tokens[..32], Want::No)]);
                }
                report("decode 16 after 32, tokens/s", 16, 20, || {
                    let mut work: Vec<_> = caches
                        .iter_mut()
                        .map(|cache| (cache, &tokens[..1], Want::Last))
                        .collect();
                    timed(&model, &mut work)
                });
            }
            // For a profiler: little work, once.
            "prefill-once" => {
                let mut cache = model.new_cache();
                timed(&model, &mut [(&mut cache, &tokens[..128], Want::Last)]);
            }
            "decode-once" => {
                let mut cache = model.new_cache();
                timed(&model, &mut [(&mut cache, &tokens[..1], Want::Last)]);
            }
            "many-once" => {
                let mut caches: Vec<_> = (0..16).map(|_| model.new_cache()).collect();
                let mut work: Vec<_> = caches
                    .iter_mut()
                    .map(|cache| (cache, &tokens[..1], Want::Last))
                    .collect();
                timed(&model, &mut work);
            }
            "load" => {}
            other => anyhow::bail!("nothing is called {other}"),
        }
    }
    Ok(())
}

type Work<'a> = (&'a mut KvCache, &'a [u32], Want);

fn timed(model: &ExactModel, work: &mut [Work]) -> f64 {
    let mut chunks: Vec<Chunk> = work
        .iter_mut()
        .map(|(cache, tokens, want)| Chunk {
            cache,
            tokens,
            logits: *want,
        })
        .collect();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    model
        .forward_each(&mut chunks, &mut |_| {})
        .expect("a step");
    if model.threads() == 1 {
        return cpu_seconds() - cpu;
    }
    start.elapsed().as_secs_f64()
}

/// What this thread has run: on a busy machine, the fairer clock for one thread.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = stat.split(' ').next().expect("a first field");
    nanoseconds.parse::<f64>().expect("a number") / 1e9
}

fn report(what: &str, tokens: usize, runs: usize, mut run: impl FnMut() -> f64) {
    let mut times: Vec<f64> = (0..runs).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    let rate = |seconds: f64| tokens as f64 / seconds;
    println!(
        "{what}: best {:.1}, median {:.1}",
        rate(times[0]),
        rate(times[runs / 2])
    );
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
