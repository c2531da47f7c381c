//! Time and chance: what the pure crates get as arguments is read here.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::UnixMs;

/// Milliseconds since the epoch, by this machine's clock.
pub(crate) fn now() -> UnixMs {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("Linux gives random bytes to any process");
    bytes
}

/// The day by UTC, `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    date(now().as_secs() / 86_400)
}

/// A day since the epoch in the Gregorian calendar (Fliegel and Van Flandern, by eras of 400 years).
fn date(days: u64) -> String {
    let days = days + 719_468; // from 0000-03-01
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153; // from March
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = match month {
        0..=9 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        let cases = [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (20_781, "2026-11-24"),
        ];
        for (days, expected) in cases {
            assert_eq!(date(days), expected);
        }
    }
}
