//! Elementary functions beside the forward pass, in plain arithmetic.
//!
//! The platform's `exp`, `sin` and friends differ between machines, so Clippy
//! bans them in this crate (`clippy.toml`). Here is a vectorisable `exp` for
//! the inner loops; rarely called functions come from `libm`.

/// `e^x` for one f32, within 2 units in the last place.
///
/// Below −87.3 it is 0, above 88.7 infinity, and NaN stays NaN. Branch-free, so that a
/// loop over it vectorises.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    // Minimax polynomial for e^r on |r| <= ln(2)/2.
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_6e-1;
    p = p * r + 5e-1;
    let p = (p * r * r + r) + 1.0;
    // 2^n in two factors, because n = 128 has no single exponent.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    // Wrapping, since a check for overflow couldn't be vectorised.
    let scale = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let y = p * scale(half) * scale(n.wrapping_sub(half));
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.7 { f32::INFINITY } else { y }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        let mut x = -87.0f32;
        while x < 88.5 {
            let want = libm::exp(f64::from(x)) as f32;
            let got = exp(x);
            let ulps = (i64::from(got.to_bits()) - i64::from(want.to_bits())).abs();
            assert!(ulps <= 2, "exp({x}) = {got}, want {want}");
            x += 0.001_37;
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
