//! Profile `exact/1` against its vectors (spec 8), and against a float64
//! reference that isn't ours (`tests/python/reference.py`).

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use models::exact::{Chunk, ExactModel, Level, Options, Output, Reference, Want};
use models::{Whitelist, fetch};
use protocol::Digest;
use protocol::digest::Hasher;
use serde::Deserialize;

#[path = "vectors/steps.rs"]
mod steps;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// A file beside the vectors,
    file: Option<String>,
    /// or a whitelisted model.
    id: Option<String>,
    weights_sha256: Digest,
    tokens: Vec<u32>,
    hidden_sha256: Digest,
    logits_sha256: Digest,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/exact")
}

fn vectors() -> Vec<Vector> {
    let text = std::fs::read(folder().join("vectors.json")).unwrap();
    let vectors: Vectors = serde_json::from_slice(&text).unwrap();
    assert!(vectors.vectors.len() >= 8);
    vectors.vectors
}

impl Vector {
    fn path(&self) -> PathBuf {
        if let Some(file) = &self.file {
            return folder().join(file);
        }
        let manifest = Whitelist::by_id(self.id.as_ref().unwrap()).unwrap();
        let dir = std::env::var_os("COUNTERSIGN_TEST_MODELS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"),
            PathBuf::from,
        );
        fetch::path(manifest, &dir)
    }

    fn check(&self, how: &str, hidden: &[Vec<f32>], logits: &[Vec<f32>]) {
        let path = self.path();
        let name = path.file_name().unwrap().display();
        assert_eq!(hidden.len(), self.tokens.len(), "{name}, {how}");
        assert_eq!(
            digest(hidden),
            self.hidden_sha256,
            "{name}, {how}: hidden states"
        );
        assert_eq!(digest(logits), self.logits_sha256, "{name}, {how}: logits");
    }
}

/// Over the bits of all rows, little-endian.
fn digest(rows: &[Vec<f32>]) -> Digest {
    let mut hasher = Hasher::new();
    for x in rows.iter().flatten() {
        hasher.update(&x.to_bits().to_le_bytes());
    }
    hasher.finish()
}

fn score(path: &Path, level: Level, tokens: &[u32], chunk: usize) -> Output {
    let options = Options {
        threads: NonZeroUsize::new(2).unwrap(),
        level,
        kv_tokens: 512,
    };
    let model = ExactModel::load(path, &options)
        .unwrap_or_else(|error| panic!("{}: {error} (tests/run fetches it)", path.display()));
    let mut cache = model.new_cache();
    let mut all = Output::default();
    for tokens in tokens.chunks(chunk) {
        let mut work = [Chunk {
            cache: &mut cache,
            tokens,
            logits: Want::All,
        }];
        let output = model.forward(&mut work).unwrap().remove(0);
        all.hidden.extend(output.hidden);
        all.logits.extend(output.logits);
    }
    all
}

#[test]
fn every_level_gives_the_vectors() {
    for vector in vectors() {
        for level in Level::available() {
            let output = score(&vector.path(), level, &vector.tokens, 61);
            vector.check(&format!("{level:?}"), &output.hidden, &output.logits);
        }
    }
}

#[test]
fn the_scalar_reference_gives_the_vectors() {
    let small = vectors().into_iter().filter(|v| v.file.is_some());
    for vector in small {
        let path = vector.path();
        let found = Digest::of(&std::fs::read(&path).unwrap());
        assert_eq!(found, vector.weights_sha256);
        let (hidden, logits) = Reference::load(&path).unwrap().score(&vector.tokens);
        vector.check("scalar reference", &hidden, &logits);
    }
}

#[derive(Deserialize)]
struct Float64 {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    models: Vec<Float64Model>,
}

#[derive(Deserialize)]
struct Float64Model {
    model: String,
    rows: Vec<Vec<f64>>,
}

impl Float64Model {
    /// Whether it's too far: in widths of a row of logits.
    fn check(&self, furthest: f64, mean: f64) -> Option<String> {
        let said = format!("{}: at most {furthest:.7}, mean {mean:.7}", self.model);
        println!("{said}");
        let quantised = self.model.ends_with("-blocks") || self.model.ends_with("-k");
        let (most, most_mean) = match quantised {
            false => (1e-4, 1e-5),
            // The profile quantises what enters a linear layer to 8 bits; the reference doesn't.
            true => (2.5e-2, 6e-3),
        };
        (furthest > most || mean > most_mean).then_some(said)
    }
}

/// Engine, replay and scalar reference share their idea of a model. This one
/// was written from the published architectures by other means. Leaving out
/// any feature moves its logits by 0.06 to 1.1 widths of a row.
#[test]
fn logits_are_close_to_another_reference_in_float64() {
    let text = std::fs::read(folder().join("reference.json")).unwrap();
    let reference: Float64 = serde_json::from_slice(&text).unwrap();
    assert_eq!(reference.models.len(), 6);
    let mut far = Vec::new();
    for theirs in &reference.models {
        let path = folder().join(format!("{}.gguf", theirs.model));
        let ours = score(&path, Level::detect(), &reference.tokens, 512).logits;
        let mut furthest: f64 = 0.0;
        let mut mean = 0.0;
        for (position, theirs) in reference.positions.iter().zip(&theirs.rows) {
            let highest = theirs.iter().fold(f64::MIN, |a, b| a.max(*b));
            let lowest = theirs.iter().fold(f64::MAX, |a, b| a.min(*b));
            let differences = ours[*position].iter().zip(theirs);
            for difference in differences.map(|(a, b)| (f64::from(*a) - b).abs()) {
                furthest = furthest.max(difference / (highest - lowest));
                mean += difference / (highest - lowest);
            }
        }
        mean /= (64 * reference.positions.len()) as f64;
        far.extend(theirs.check(furthest, mean));
    }
    assert_eq!(far, Vec::<String>::new());
}
