//! The embedded model on candle's tensors against the exact kernels, on the oracle's texts.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "exact/model.rs"]
mod model;

use candle_core::Device;
use models::candle::{CandleCache, CandleModel};
use models::{Want, log_softmax_top};

use crate::model::{MODEL, ids, oracle, path, score};

#[test]
fn distributions_are_close_to_the_exact_profiles() {
    let candle = CandleModel::load(&path(), &Device::Cpu).unwrap();
    let (mut positions, mut agreeing, mut difference) = (0.0, 0.0, 0.0);
    // Some texts are enough: candle's products are slow.
    for item in oracle("greedy.json").iter().take(6) {
        let all = [ids(&item["prompt_tokens"]), ids(&item["tokens"])].concat();
        let want = score(&MODEL, &all).logits;
        let found = candle
            .forward(&mut CandleCache::default(), &all, Want::All)
            .unwrap();
        for (found, want) in found.logits.iter().zip(&want) {
            let likeliest = log_softmax_top(want, 1, 0).top[0];
            let theirs = log_softmax_top(found, 1, likeliest.0);
            positions += 1.0;
            agreeing += f64::from(u8::from(theirs.top[0].0 == likeliest.0));
            difference += f64::from((theirs.chosen - likeliest.1).abs());
        }
    }
    let (agreeing, difference) = (agreeing / positions, difference / positions);
    println!("{positions} positions, {agreeing:.4} agree, mean difference {difference:.5}");
    assert!(positions > 200.0, "only {positions} positions compared");
    assert!(agreeing >= 0.97, "{agreeing} agree");
    assert!(difference <= 0.05, "mean difference {difference}");
}
