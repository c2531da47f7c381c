//! Profile `exact/1` on the embedded model against two other implementations:
//! llama.cpp and a plain float32 pass in NumPy (`tests/data/oracle`).

use crate::model::{MODEL, ids, oracle, score};
use models::log_softmax_top;
use serde_json::Value;

/// How far our distributions are from another implementation's.
#[derive(Default)]
struct Distance {
    positions: u32,
    agreeing: u32,
    differing_by: f64,
}

impl Distance {
    /// Compares the top choices, and the log-probability of the other's choice.
    fn add(&mut self, logits: &[f32], theirs: &Value) {
        let id = theirs[0].as_u64().unwrap() as u32;
        let logprob = theirs[1].as_f64().unwrap();
        let ours = log_softmax_top(logits, 1, id);
        self.positions += 1;
        self.agreeing += u32::from(ours.top[0].0 == id);
        self.differing_by += (f64::from(ours.chosen) - logprob).abs();
    }

    fn check(&self, name: &str) {
        let n = f64::from(self.positions);
        let (agreeing, mean) = (f64::from(self.agreeing) / n, self.differing_by / n);
        println!("{name}: {n} positions, {agreeing:.4} agree, mean difference {mean:.5}");
        assert!(n > 400.0, "{name}: only {n} positions compared");
        assert!(agreeing >= 0.97, "{name}: {agreeing} agree");
        assert!(mean <= 0.05, "{name}: mean difference {mean}");
    }
}

#[test]
fn distributions_are_close_to_both_oracles() {
    let (mut llama_cpp, mut numpy) = (Distance::default(), Distance::default());
    let references = oracle("f32_reference.json");
    for (item, reference) in oracle("greedy.json").iter().zip(&references) {
        let (prompt, tokens) = (ids(&item["prompt_tokens"]), ids(&item["tokens"]));
        let all = [prompt.as_slice(), &tokens[..tokens.len() - 1]].concat();
        let rows = score(&MODEL, &all).logits.split_off(prompt.len() - 1);
        let positions = item["positions"].as_array().unwrap();
        let reference = reference["positions"].as_array().unwrap();
        assert_eq!((rows.len(), rows.len()), (positions.len(), reference.len()));
        for ((row, theirs), reference) in rows.iter().zip(positions).zip(reference) {
            llama_cpp.add(row, &theirs["top5"][0]);
            numpy.add(row, &reference["top5"][0]);
        }
    }
    llama_cpp.check("llama.cpp");
    numpy.check("NumPy");
}
