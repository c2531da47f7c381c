//! What this machine could do at most: bytes read a second, and integer
//! operations a second with the instructions of a [`Level`].
//!
//! Measured, not looked up; benchmarks set the engine's speed against them.

use std::thread;
use std::time::Instant;

use super::level::{Level, for_every_level};

/// Bytes a second that `threads` read together, from a buffer of `bytes` that
/// they go through `rounds` times. Nothing is computed but a sum.
pub fn read_bandwidth(level: Level, threads: usize, bytes: usize, rounds: usize) -> f64 {
    let words = vec![1_u64; bytes / 8];
    let part = words.len().div_ceil(threads);
    // Once to warm up.
    read(level, &words);
    let start = Instant::now();
    thread::scope(|scope| {
        for part in words.chunks(part) {
            scope.spawn(move || (0..rounds).for_each(|_| read(level, part)));
        }
    });
    (rounds * bytes) as f64 / start.elapsed().as_secs_f64()
}

fn read(level: Level, words: &[u64]) {
    let mut sum = 0;
    add_up(level, words, &mut sum);
    std::hint::black_box(sum);
}

for_every_level! {
    fn add_up(words: &[u64], sum: &mut u64) {
        let mut lanes = [0_u64; 32];
        for words in words.as_chunks::<32>().0 {
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane = lane.wrapping_add(*word);
            }
        }
        *sum = lanes.into_iter().fold(0, u64::wrapping_add);
    }
}

/// The instructions that [`integer_peak`] measures.
pub fn integer_instructions(level: Level) -> &'static str {
    match level {
        Level::Portable => "none",
        Level::Avx2 => "vpmaddubsw + vpmaddwd + vpaddd, 256 bits",
        Level::Avx512 => "vpdpbusd, 512 bits",
    }
}

/// Multiplications and additions of int8 a second that `threads` do together
/// with the level's instructions, everything being in registers; none for
/// portable code.
pub fn integer_peak(level: Level, threads: usize) -> Option<f64> {
    if level == Level::Portable {
        return None;
    }
    assert!(
        Level::available().contains(&level),
        "this CPU doesn't have {level:?}"
    );
    const ROUNDS: usize = 20_000_000;
    let start = Instant::now();
    let operations: usize = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(move || multiply(level, ROUNDS)))
            .collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap_or(0));
        done.sum()
    });
    Some(operations as f64 / start.elapsed().as_secs_f64())
}

/// Operations done by `rounds` rounds.
fn multiply(level: Level, rounds: usize) -> usize {
    match level {
        Level::Portable => 0,
        // SAFETY: `Level::available` found the features.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::avx2(rounds) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::avx512(rounds) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => rounds * 0,
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// As many sums as hide an instruction's latency.
    const SUMS: usize = 12;

    #[target_feature(enable = "avx2")]
    pub fn avx2(rounds: usize) -> usize {
        let x = _mm256_set1_epi8(black_box(3));
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_set1_epi8(black_box(1)); SUMS];
        for _ in 0..rounds / 4 {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(*sum, x);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
        rounds / 4 * SUMS * 32 * 2
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub fn avx512(rounds: usize) -> usize {
        let x = _mm512_set1_epi8(black_box(3));
        let mut sums = [_mm512_set1_epi8(black_box(1)); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, x);
            }
        }
        black_box(sums);
        rounds * SUMS * 64 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_reads_and_counts_as_portable_code_does() {
        let words: Vec<u64> = (0..64).collect();
        for level in Level::available() {
            let mut sum = 0;
            add_up(level, &words, &mut sum);
            assert_eq!(sum, 63 * 64 / 2);
            let counted = multiply(level, 4);
            assert_eq!(counted > 0, level > Level::Portable);
        }
    }
}
