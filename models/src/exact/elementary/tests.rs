//! What is tested of `elementary`: the same bits as the page and its scalar reference give.

use super::*;

/// Largest distance of `ours` from `theirs` in units of the last place.
fn worst(points: impl Iterator<Item = f64>, check: impl Fn(f64) -> (f64, f64), last: f64) -> f64 {
    points
        .map(|x| {
            let (ours, theirs) = check(x);
            (ours - theirs).abs() / (theirs.abs() * last).max(f64::MIN_POSITIVE)
        })
        .fold(0.0, f64::max)
}

fn spread(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let steps = 20_000;
    (0..=steps).map(move |i| low + (high - low) * f64::from(i) / f64::from(steps))
}

#[test]
fn exponentials_are_close() {
    let single = worst(
        spread(-87.0, 88.0).map(|x| f64::from(x as f32)),
        |x| (f64::from(exp(x as f32)), libm::exp(x)),
        f64::from(f32::EPSILON),
    );
    assert!(single < 1.0, "{single}");
    let double = worst(
        spread(-40.0, 40.0),
        |x| (exp_f64(x), libm::exp(x)),
        f64::EPSILON,
    );
    assert!(double < 2.0, "{double}");
}

#[test]
fn exp_at_the_edges() {
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-87.01), 0.0);
    assert_eq!(exp(88.01), f32::INFINITY);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert!(exp(-87.0) >= f32::MIN_POSITIVE && exp(88.0).is_finite());
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn logarithm_sine_and_cosine_are_close() {
    let log = worst(
        spread(0.001, 1e6),
        |x| (ln_f64(x), libm::log(x)),
        f64::EPSILON,
    );
    assert!(log < 2.0, "{log}");
    for x in spread(0.0, 200_000.0) {
        let (sin, cos) = sin_cos_f64(x);
        assert!((sin - libm::sin(x)).abs() < 1e-15, "{x}");
        assert!((cos - libm::cos(x)).abs() < 1e-15, "{x}");
    }
}

#[test]
fn halves_round_to_even_and_mark_what_does_not_fit() {
    for bits in 0..=u16::MAX {
        let value = f16_to_f32(bits);
        if bits & 0x7C00 != 0x7C00 {
            assert_eq!(f32_to_f16(value), bits);
        } else {
            assert!(!value.is_finite());
            assert_eq!(f32_to_f16(value), F16_NAN);
        }
    }
    // Halfway between neighbours goes to the even one, a little more goes up.
    for bits in 0..0x7BFF_u16 {
        let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1));
        let middle = low + (high - low) / 2.0;
        assert_eq!(f32_to_f16(middle), bits + (bits & 1), "{bits:#x}");
        assert_eq!(f32_to_f16(f32::from_bits(middle.to_bits() + 1)), bits + 1);
        assert_eq!(
            f32_to_f16(-f32::from_bits(middle.to_bits() - 1)),
            0x8000 | bits
        );
    }
    assert_eq!(f32_to_f16(65519.996), 0x7BFF);
    assert_eq!(f32_to_f16(65520.0), F16_NAN);
}
