//! The embedded model against two other implementations: llama.cpp and a plain
//! float32 pass in NumPy (`tests/data/oracle`).
//!
//! Texts aren't compared, since rounding changes them; distributions are, with
//! the oracle's tokens forced.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::path::PathBuf;
use std::sync::LazyLock;

use models::{Chunk, KvCache, Model, Special, Want, Whitelist, log_softmax_top};
use protocol::api::{Message, Role};
use serde_json::{Map, Value};

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let manifest = &Whitelist::embedded()[0];
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::var_os("COUNTERSIGN_TEST_MODELS")
        .map_or_else(|| workspace.join("target/models"), PathBuf::from);
    let path = models::fetch::path(manifest, &dir);
    assert!(
        path.exists(),
        "{} is missing: run tests/run, which fetches it",
        path.display()
    );
    Model::load(&path, manifest).unwrap()
});

fn oracle(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/data/oracle")
        .join(name);
    let mut data: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    match data["items"].take() {
        Value::Array(items) if !items.is_empty() => items,
        _ => panic!("{name} has no items"),
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

/// The logits of `tokens` after `cache`, row by row.
fn forward(cache: &mut KvCache, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut work = [Chunk {
        cache,
        tokens,
        logits: Want::All,
    }];
    let logits = MODEL.forward(&mut work).unwrap();
    logits[0].rows().map(<[f32]>::to_vec).collect()
}

/// Rows that predict the oracle's tokens: those of its prompt's last token and of all but its
/// own last.
fn forced(item: &Value) -> Vec<Vec<f32>> {
    let (prompt, tokens) = (ids(&item["prompt_tokens"]), ids(&item["tokens"]));
    let mut cache = MODEL.new_cache();
    let all = [prompt.as_slice(), &tokens[..tokens.len() - 1]].concat();
    forward(&mut cache, &all).split_off(prompt.len() - 1)
}

#[test]
fn tokens_are_the_oracles() {
    let tokenizer = MODEL.tokenizer();
    for item in oracle("tokenize.json") {
        let text = item["text"].as_str().unwrap();
        let plain = ids(&item["ids_plain"]);
        assert_eq!(
            tokenizer.encode(text, Special::AsText),
            plain,
            "{text:?} as text"
        );
        assert_eq!(
            tokenizer.encode(text, Special::Parse),
            ids(&item["ids_special"]),
            "{text:?} parsed"
        );
        assert_eq!(
            tokenizer.decode(&plain),
            text.as_bytes(),
            "{text:?} and back"
        );
    }
}

#[test]
fn prompts_are_the_oracles() {
    for item in oracle("greedy.json") {
        let messages: Vec<Message> = item["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect();
        let prompt = MODEL
            .template()
            .render(&messages, &Map::new(), None)
            .unwrap();
        assert_eq!(prompt, item["prompt"].as_str().unwrap());
        let tokens = MODEL.tokenizer().encode(&prompt, Special::Parse);
        assert_eq!(tokens, ids(&item["prompt_tokens"]));
    }
}

fn message(value: &Value) -> Message {
    let role = match value["role"].as_str().unwrap() {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => panic!("the oracle has the role {other}"),
    };
    Message {
        role,
        content: value["content"].as_str().unwrap().to_owned(),
    }
}

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
        let (id, logprob) = (
            theirs[0].as_u64().unwrap() as u32,
            theirs[1].as_f64().unwrap(),
        );
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
    for (item, reference) in oracle("greedy.json")
        .iter()
        .zip(&oracle("f32_reference.json"))
    {
        assert_eq!(item["index"], reference["index"]);
        let rows = forced(item);
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

/// The largest difference between two rows of logits.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn neighbours_and_chunks_dont_matter() {
    let items = oracle("greedy.json");
    let sequences: Vec<Vec<u32>> = items[..4]
        .iter()
        .map(|item| ids(&item["prompt_tokens"]))
        .collect();
    let alone: Vec<Vec<Vec<f32>>> = sequences
        .iter()
        .map(|tokens| forward(&mut MODEL.new_cache(), tokens))
        .collect();

    // Every sequence in the same steps, in chunks of its own size, the last one token by token.
    let mut caches: Vec<KvCache> = sequences.iter().map(|_| MODEL.new_cache()).collect();
    let mut together: Vec<Vec<Vec<f32>>> = vec![Vec::new(); sequences.len()];
    let size = [64, 20, 7, 1];
    while together
        .iter()
        .zip(&sequences)
        .any(|(rows, tokens)| rows.len() < tokens.len())
    {
        let mut running: Vec<usize> = Vec::new();
        let mut work: Vec<Chunk<'_>> = Vec::new();
        for (i, (cache, tokens)) in caches.iter_mut().zip(&sequences).enumerate() {
            let rest = &tokens[cache.len()..];
            if !rest.is_empty() {
                let tokens = &rest[..size[i].min(rest.len())];
                work.push(Chunk {
                    cache,
                    tokens,
                    logits: Want::All,
                });
                running.push(i);
            }
        }
        let logits = MODEL.forward(&mut work).unwrap();
        for (i, logits) in running.into_iter().zip(&logits) {
            together[i].extend(logits.rows().map(<[f32]>::to_vec));
        }
    }
    for (i, (alone, together)) in alone.iter().zip(&together).enumerate() {
        let far = alone
            .iter()
            .zip(together)
            .map(|(a, b)| apart(a, b))
            .fold(0.0, f32::max);
        assert!(far < 1e-2, "sequence {i} is {far} apart");
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let prompt = MODEL.tokenizer().encode("The sea is", Special::AsText);
    let mut first = MODEL.new_cache();
    forward(&mut first, &prompt);
    let mut second = first.fork();
    let (blue, red) = (
        forward(&mut first, &[9])[0].clone(),
        forward(&mut second, &[10])[0].clone(),
    );
    assert!(apart(&blue, &red) > 0.1, "they read different tokens");

    second.truncate(prompt.len());
    assert!(
        apart(&blue, &forward(&mut second, &[9])[0]) < 1e-3,
        "and would agree on the same"
    );
    assert_eq!(first.len(), prompt.len() + 1);
}

#[test]
fn only_the_rows_asked_for_come_back() {
    let tokens = [504, 2619, 314];
    let all = forward(&mut MODEL.new_cache(), &tokens);
    let (mut none, mut last) = (MODEL.new_cache(), MODEL.new_cache());
    let mut work = [
        Chunk {
            cache: &mut none,
            tokens: &tokens,
            logits: Want::No,
        },
        Chunk {
            cache: &mut last,
            tokens: &tokens,
            logits: Want::Last,
        },
    ];
    let logits = MODEL.forward(&mut work).unwrap();
    assert_eq!((logits[0].rows().len(), logits[1].rows().len()), (0, 1));
    assert!(logits[0].last().is_none());
    assert!(apart(logits[1].last().unwrap(), &all[2]) < 1e-3);
    assert_eq!((none.len(), last.len()), (3, 3));
}

#[test]
fn bad_work_changes_nothing() {
    let refused = |tokens: &[u32]| {
        let (mut good, mut bad) = (MODEL.new_cache(), MODEL.new_cache());
        let mut work = [
            Chunk {
                cache: &mut good,
                tokens: &[1],
                logits: Want::Last,
            },
            Chunk {
                cache: &mut bad,
                tokens,
                logits: Want::Last,
            },
        ];
        let error = MODEL.forward(&mut work).unwrap_err().to_string();
        assert_eq!((good.len(), bad.len()), (0, 0));
        error
    };
    assert_eq!(refused(&[]), "chunk 1 has no tokens");
    assert_eq!(
        refused(&[5, 49152]),
        "chunk 1 has the token 49152, which isn't in the vocabulary"
    );
    let context = MODEL.config().context_tokens as usize;
    assert!(refused(&vec![5; context + 1]).contains("8193 tokens long, 8192 is the most"));
}

#[test]
fn the_model_says_what_it_is() {
    let config = MODEL.config();
    assert_eq!(
        (config.vocab, config.context_tokens, config.eos.as_slice()),
        (49152, 8192, [0, 2].as_slice())
    );
    assert_eq!(config.bos, None);
    assert_eq!(config.kv_bytes_per_token, 30 * 2 * 192 * 4);
    let (tokenizer, numerics) = (MODEL.tokenizer(), MODEL.numerics());
    assert_eq!(
        (numerics.profile.as_str(), numerics.device.as_str()),
        ("candle-cpu/1", "cpu")
    );
    assert_eq!(tokenizer.vocab_size(), config.vocab);
    assert!(config.eos.iter().all(|&id| tokenizer.is_special(id)));
    assert_eq!(tokenizer.piece(2), Some(b"<|im_end|>".as_slice()));
    assert_eq!(
        (tokenizer.piece(49152), tokenizer.is_special(49152)),
        (None, false)
    );
}
