//! The registry that the modules' metrics are in, and how it is written out.
//!
//! Which metrics there are is each module's own affair; every name starts with
//! `countersign_gateway_`, and labels come from closed enums, never from ids.

use std::collections::BTreeMap;

use prometheus::core::Collector;

/// Registers a metric whose name and options are constants of ours.
pub(crate) fn register<C: Collector + Clone + 'static>(
    registry: &prometheus::Registry,
    made: Result<C, prometheus::Error>,
) -> C {
    let metric = made.expect("the options are constants, and valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("each name is registered once in a registry");
    metric
}

/// One exposition of several: each family described once, and a series that
/// several jobs have is their sum.
pub(crate) fn merge(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for text in texts {
        let mut current = "";
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (Some(word), Some(name)) = (words.next(), words.next()) else {
                    continue;
                };
                current = name;
                let family = families.entry(name).or_default();
                match word {
                    "HELP" => family.help.get_or_insert(line),
                    "TYPE" => family.kind.get_or_insert(line),
                    _ => continue,
                };
            } else if let Some((series, value)) = line.rsplit_once(' ') {
                let family = families.entry(current).or_default();
                family.add(series, value);
            }
        }
    }
    let mut merged = String::new();
    for family in families.values() {
        let described = family.help.iter().chain(&family.kind);
        for line in described {
            merged.push_str(line);
            merged.push('\n');
        }
        for (series, value) in &family.samples {
            merged.push_str(&format!("{series} {value}\n"));
        }
    }
    merged
}

#[derive(Debug, Default)]
struct Family<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: Vec<(&'a str, f64)>,
}

impl<'a> Family<'a> {
    fn add(&mut self, series: &'a str, value: &str) {
        let Ok(value) = value.parse::<f64>() else {
            return;
        };
        match self.samples.iter_mut().find(|(known, _)| *known == series) {
            Some((_, sum)) => *sum += value,
            None => self.samples.push((series, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_once_and_equal_series_summed() {
        let one = "# HELP b What.\n# TYPE b counter\nb{m=\"x y\"} 1\n# TYPE a gauge\na 0.5\n";
        let two = "# HELP b What.\n# TYPE b counter\nb{m=\"x y\"} 2\nb{m=\"z\"} 4\n";
        let merged = merge(&[one.to_owned(), two.to_owned()]);
        let wanted = "# TYPE a gauge\na 0.5\n\
            # HELP b What.\n# TYPE b counter\nb{m=\"x y\"} 3\nb{m=\"z\"} 4\n";
        assert_eq!(merged, wanted);
    }
}
