//! A day and its `strftime` spellings, for templates that name the date.

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    year: u32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Day {
    /// Reads `YYYY-MM-DD`.
    pub(super) fn parse(text: &str) -> Option<Day> {
        let digits = |range: std::ops::Range<usize>| -> Option<u32> {
            let text = text.get(range)?;
            text.bytes()
                .all(|b| b.is_ascii_digit())
                .then(|| text.parse().ok())?
        };
        let shape = text.len() == 10 && text.get(4..5)? == "-" && text.get(7..8)? == "-";
        let day = Day {
            year: digits(0..4)?,
            month: digits(5..7)?,
            day: digits(8..10)?,
        };
        let exists = (1..=12).contains(&day.month) && (1..=day.month_length()).contains(&day.day);
        (shape && exists).then_some(day)
    }

    /// Writes the day as a `strftime` format says; `None` for a mark that isn't about the day.
    pub(super) fn format(self, format: &str) -> Option<String> {
        let month = MONTHS[self.month as usize - 1];
        let weekday = WEEKDAYS[self.weekday()];
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            out.push_str(&match chars.next()? {
                'Y' => format!("{:04}", self.year),
                'y' => format!("{:02}", self.year % 100),
                'm' => format!("{:02}", self.month),
                'd' => format!("{:02}", self.day),
                'e' => format!("{:2}", self.day),
                'B' => month.to_owned(),
                'b' | 'h' => month[..3].to_owned(),
                'A' => weekday.to_owned(),
                'a' => weekday[..3].to_owned(),
                '%' => "%".to_owned(),
                _ => return None,
            });
        }
        Some(out)
    }

    fn month_length(self) -> u32 {
        let leap = self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)
            || self.year.is_multiple_of(400);
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Sakamoto's rule; 0 is Sunday.
    fn weekday(self) -> usize {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        // Whole 400-year cycles keep the weekday, and keep the year from going below zero.
        let year = self.year + 400 - u32::from(self.month < 3);
        let days =
            year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1] + self.day;
        (days % 7) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        let format = |day: &str| {
            Day::parse(day)
                .unwrap()
                .format("%A %d %B %Y, %a %e %b %y, %m%%")
        };
        assert_eq!(
            format("2024-02-29").as_deref(),
            Some("Thursday 29 February 2024, Thu 29 Feb 24, 02%")
        );
        assert_eq!(
            format("1970-01-01").as_deref(),
            Some("Thursday 01 January 1970, Thu  1 Jan 70, 01%")
        );
        assert_eq!(
            format("2026-11-22").as_deref(),
            Some("Sunday 22 November 2026, Sun 22 Nov 26, 11%")
        );
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-1-1",
            "2026-01-00",
            "+026-01-01",
            "2026/01/01",
            "２026-01-1",
        ] {
            assert_eq!(Day::parse(text), None, "{text}");
        }
        let day = Day::parse("2026-01-01").unwrap();
        assert_eq!(day.format("%H:%M"), None);
        assert_eq!(day.format("%"), None);
    }
}
