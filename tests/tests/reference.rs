//! The float64 reference of profile `exact/1`, which isn't ours: its small
//! models and its logits come out as they are kept in `tests/data/exact`,
//! where `models/tests/vectors.rs` holds the profile against them.

use std::process::Command;

use tests::workspace::python;

fn passes(mut script: Command) {
    let told = script.output().expect("the script runs");
    let stdout = String::from_utf8_lossy(&told.stdout);
    println!("{stdout}");
    assert!(
        told.status.success(),
        "{stdout}\n{}",
        String::from_utf8_lossy(&told.stderr)
    );
}

#[test]
fn the_small_models_come_out_as_they_are_kept() {
    let mut script = python("tiny_models.py");
    script.arg("check");
    passes(script);
}

#[test]
fn the_reference_comes_out_as_it_is_kept_and_every_feature_shows() {
    let mut script = python("reference.py");
    script.arg("check");
    passes(script);
}
