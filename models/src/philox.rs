//! Philox4x32-10, a counter-based random function (Salmon, Moraes, Dror and
//! Shaw, SC 2011): 128 bits of counter and 64 of key to 128 random bits.

pub(crate) const ROUNDS: usize = 10;
pub(crate) const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];

/// The keys of the rounds, for a key of 64 bits, its low word first.
pub(crate) fn keys(key: u64) -> [[u32; 2]; ROUNDS] {
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    let key = [key as u32, (key >> 32) as u32];
    std::array::from_fn(|round| {
        let add = |i: usize| key[i].wrapping_add(WEYL[i].wrapping_mul(round as u32));
        [add(0), add(1)]
    })
}

/// The function of a key of 64 bits, its low word first.
#[inline]
pub(crate) fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let high = |product: u64| (product >> 32) as u32;
    keys(key).into_iter().fold(counter, |x, key| {
        let a = u64::from(x[0]) * u64::from(MULTIPLIERS[0]);
        let b = u64::from(x[2]) * u64::from(MULTIPLIERS[1]);
        [
            high(b) ^ x[1] ^ key[0],
            b as u32,
            high(a) ^ x[3] ^ key[1],
            a as u32,
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123, the authors' own implementation.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox(0, [0; 4]),
            [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]
        );
        assert_eq!(
            philox(u64::MAX, [u32::MAX; 4]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox(
                0x299f_31d0_a409_3822,
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]
            ),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }
}
