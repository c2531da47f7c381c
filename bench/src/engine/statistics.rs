//! Medians and ratios.

use serde_json::{Value, json};

/// One number of each round.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a round's.
    pub fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The number at this fraction of the sorted samples; NaN of none.
    pub fn quantile(&self, fraction: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n => sorted[((n - 1) as f64 * fraction).round() as usize],
        }
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The greatest.
    pub fn best(&self) -> f64 {
        self.quantile(1.0)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it; null of none.
    pub fn json(&self) -> Value {
        match self.is_empty() {
            true => Value::Null,
            false => json!({ "median": self.median(), "best": self.best(), "rounds": self.0 }),
        }
    }
}

/// A median and the best, for tables.
pub fn rate(samples: &Samples) -> String {
    match samples.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.0} (best {:.0})", samples.median(), samples.best()),
    }
}

/// The ratio of two medians.
pub fn ratio(ours: &Samples, theirs: &Samples) -> Option<f64> {
    match ours.is_empty() || theirs.is_empty() {
        true => None,
        false => Some(ours.median() / theirs.median()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_samples() {
        let mut samples = Samples::default();
        assert!(samples.is_empty() && samples.median().is_nan());
        for sample in [5.0, 1.0, 4.0, 2.0, 3.0] {
            samples.add(sample);
        }
        assert_eq!(samples.median(), 3.0);
        assert_eq!(samples.best(), 5.0);
        assert_eq!(samples.quantile(0.99), 5.0);
        assert_eq!(ratio(&samples, &Samples::default()), None);
        assert_eq!(ratio(&samples, &samples), Some(1.0));
    }
}
