//! Noise by the known answers, and the bound: it may let a token pass that
//! can't win, but never stop one that could.

use proptest::prelude::*;

use super::*;

#[test]
fn known_noise() {
    // spec 6.4: the bits, so that another implementation can tell whether its log is ours.
    let known = [
        (0x0000_0000, 0xc009_0a3a_a15a_0b5du64),
        (0x8000_0000, 0x3fd7_74f2_9c39_c0bd),
        (0xffff_ffff, 0x4036_dfb5_16f1_cbbf),
        (0x6627_e8d5, 0x3fb5_b6c7_ac8f_d9d3),
    ];
    for (word, bits) in known {
        assert_eq!(gumbel(word).to_bits(), bits, "{word:#010x}");
        assert!(gumbel(word) < NOISE_MAX && gumbel(word) > BEHIND.1);
    }
}

fn adjusted<'a>(best: f64, temperature: f64, bulk: &'a [f32]) -> Adjusted<'a> {
    Adjusted {
        bulk,
        maxima: &[],
        extras: &[],
        best: (0, best),
        temperature,
        level: Level::Portable,
    }
}

const ALL: Last = Last {
    distance: f64::NEG_INFINITY,
    id: u32::MAX,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn whoever_could_win_passes(
        word: u32,
        ones in 0u32..=32,
        best in -3e4f32..3e4,
        gap in prop::sample::select(vec![0.0f32, 1e-30, 1e-6, 0.3, 5.0, 24.0, 27.0, 40.0, 1e4, 1e30]),
        part in 0.0f32..=1.0,
        beyond in prop::sample::select(vec![0.0, 1e-9, 0.01]),
        temperature in prop::sample::select(vec![1e-30, 1e-3, 0.1, 0.7, 1.0, 2.0, 1e3, 1e19]),
    ) {
        let value = best - gap * part;
        // Words near the upper end, too: the extremes of noise.
        for word in [word, word | !(u32::MAX.checked_shr(ones).unwrap_or(0)), !(word.checked_shr(ones).unwrap_or(0))] {
            // The best may be between two floats, if it is an adjusted one.
            let best = f64::from(best) * (1.0 + 1e-9);
            let adjusted = adjusted(best.max(f64::from(value)), temperature, &[]);
            let score = adjusted.distance(f64::from(value)) + gumbel(word);
            if score < BEHIND.1 {
                continue; // It can't lead.
            }
            let bound = Bound::new(&adjusted, ALL, score - beyond);
            prop_assert!(bound.lets(value, word), "{value} {word:#x} {bound:?}");
            prop_assert!(value >= bound.floor);
        }
    }

    #[test]
    fn the_bound_stops_what_is_clearly_behind(
        word: u32,
        ones in 3u32..14,
        distance in -20.0f32..0.0,
    ) {
        let word = word | !(u32::MAX >> ones);
        let adjusted = adjusted(0.0, 1.0, &[]);
        let ahead = f64::from(distance) + gumbel(word) + 1.2;
        let bound = Bound::new(&adjusted, ALL, ahead);
        // −ln u is nearly 1 − u for high words; the very highest pass always.
        prop_assume!(!word >> 8 > 0);
        prop_assert!(!bound.lets(distance, word));
    }

    #[test]
    fn words_and_bounds_are_the_same_at_every_level(
        key: u64,
        position: u32,
        choice: u8,
        first in prop::sample::select(vec![0u32, 16, 12_272, 1 << 26]),
        values in prop::collection::vec(-15.0f32..0.0, BLOCK),
        score in -3.0f64..6.0,
    ) {
        let values: &[f32; BLOCK] = values.first_chunk().unwrap();
        let bound = Bound::new(&adjusted(0.0, 1.0, &[]), ALL, score);
        let bound = Bound { floor: f32::MIN, ..bound };
        let noise = Noise {
            level: Level::Portable,
            key,
            keys: philox::keys(key),
            position,
            choice: u32::from(choice),
        };
        let want = portable(&noise, first, values, &bound);
        #[cfg(target_arch = "x86_64")]
        for level in Level::available() {
            let found = match level {
                Level::Portable => continue,
                // SAFETY: `Level::available` found the features.
                Level::Avx2 => unsafe { avx2::pass(&noise, first, values, &bound) },
                // SAFETY: as above.
                Level::Avx512 => unsafe { avx512::pass(&noise, first, values, &bound) },
            };
            // A product and a sum may be fused here, so that a token at the border differs.
            prop_assert!((found ^ want).count_ones() <= 1, "{level:?}: {found:#x}, {want:#x}");
        }
    }
}
