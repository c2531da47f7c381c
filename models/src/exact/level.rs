//! Which instruction set computes. Never what is computed: every level gives
//! the same bits.

/// A set of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, for any CPU.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// The same, and AVX-512 (F, BW, VL, VNNI).
    Avx512,
}

impl Level {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// The fastest level that this CPU has.
    pub fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    /// The levels that this CPU has, slowest first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "other CPUs have no second level")]
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
        {
            levels.push(Self::Avx2);
            if std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512vnni")
            {
                levels.push(Self::Avx512);
            }
        }
        levels
    }
}

/// Compiles row functions once per level, from one body.
///
/// Rust never reorders or contracts floating point, so a body gives the same
/// bits however it is vectorised.
macro_rules! for_every_level {
    ($($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        $(#[$doc])*
        $vis fn $name(level: crate::exact::level::Level, $($arg: $type),*) {
            #[inline(always)]
            fn body($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $type),*) {
                body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
            fn avx512($($arg: $type),*) {
                body($($arg),*)
            }
            match level {
                crate::exact::level::Level::Portable => body($($arg),*),
                // SAFETY: `Level::available` found these features.
                #[cfg(target_arch = "x86_64")]
                crate::exact::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                crate::exact::level::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => body($($arg),*),
            }
        }
    )*};
}
pub(crate) use for_every_level;
