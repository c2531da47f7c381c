//! Many answers of an honest gateway, as different as requests can be, asked
//! by many at once, and kept as `chat --save` keeps them.
//!
//! What is asked follows from the number alone. Start at [`answers`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use client::save::SavedAnswer;
use client::{Client, Http, ReplyLimits, Trust};
use models::Whitelist;
use protocol::SigningKey;
use serde_json::{Map, Value, json};

use crate::up::Up;

/// Requests at a time.
const AT_ONCE: usize = 16;

/// Asks `count` questions, and keeps each answer in a folder of its own under `dir`.
///
/// # Panics
///
/// If the client doesn't believe one of them.
pub fn answers(up: &Up, count: usize, dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let askers: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let asker = Asker::new(up, number, dir);
                let next = Arc::clone(&next);
                tokio::spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        asker.ask(number).await;
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.await.expect("every answer is believed");
        }
    });
}

/// One answer of 300 tokens, streamed, kept in `folder`.
pub fn long_answer(up: &Up, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut body = json!({
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 300,
        "ignore_eos": true,
        "stream": true,
    });
    body["model"] = Whitelist::embedded()[0].identity.id.clone().into();
    let asker = Asker::new(up, 1, folder);
    runtime.block_on(asker.keep("/v1/chat/completions", &body, folder));
}

struct Asker {
    client: Client,
    trust: Trust,
    dir: std::path::PathBuf,
}

impl Asker {
    fn new(up: &Up, number: usize, dir: &Path) -> Self {
        let byte = u8::try_from(number).expect("few askers");
        // Some don't sign: their seeds are the job's, if they name none.
        let key = (!number.is_multiple_of(5)).then(|| SigningKey::from_seed([byte + 1; 32]));
        let http = Http::ALL[number % Http::ALL.len()];
        let url = up.base().parse().expect("a URL");
        Asker {
            client: Client::new(url, key, http, ReplyLimits::default()),
            trust: Trust {
                gateway: Some(up.gateway.parse().expect("a DID")),
                ..Trust::default()
            },
            dir: dir.to_owned(),
        }
    }

    async fn ask(&self, number: usize) {
        let (path, body) = question(number);
        let folder = self.dir.join(format!("{:03}/{number:06}", number / 100));
        self.keep(path, &body, &folder).await;
    }

    async fn keep(&self, path: &str, body: &Value, folder: &Path) {
        let body = body.to_string().into_bytes();
        let reply = self.client.ask(path, body).await.expect("it is reached");
        let (sent, received) = reply.finish().await;
        let id = received.answer.id.as_deref().unwrap_or_default();
        let id = id.parse().unwrap_or_else(|_| panic!("{received:?}"));
        let proof = self.client.proof(&id).await.expect("it is kept");
        let verdict = self.trust.judge(&sent, &received, Ok(&proof));
        let rejection = verdict.as_ref().err();
        assert!(rejection.is_none(), "{rejection:?}");
        let (url, came) = (self.client.url(), (&sent, &received));
        SavedAnswer::of(url, came, Some(proof), rejection, self.trust.gateway)
            .write(folder)
            .expect("it can be kept");
    }
}

/// Numbers that look random and follow from a first one.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.roll().is_multiple_of(n)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        let at = self.roll() % values.len() as u64;
        values[usize::try_from(at).expect("few values")]
    }
}

/// The path and body of a question.
fn question(number: usize) -> (&'static str, Value) {
    let mut dice = Dice(number as u64);
    let topic = dice.of(&TOPICS);
    let mut body = Map::new();
    body.insert("model".into(), json!(Whitelist::embedded()[0].identity.id));
    let path = if dice.one_in(3) {
        let prompt = match dice.one_in(4) {
            true => json!([504, 2380, 6376, 6330, 359]),
            false => json!(format!("A short note on {topic}:")),
        };
        body.insert("prompt".into(), prompt);
        "/v1/completions"
    } else {
        let mut messages = Vec::new();
        if dice.one_in(2) {
            messages.push(json!({"role": "system", "content": SYSTEM}));
        }
        let asked = dice.of(&[
            "Explain",
            "Write a poem about",
            "List facts about",
            "Was ist",
            "解释",
        ]);
        messages.push(json!({"role": "user", "content": format!("{asked} {topic}.")}));
        if dice.one_in(6) {
            messages.push(json!({"role": "assistant", "content": "Gladly. 😀"}));
            messages.push(json!({"role": "user", "content": "Shorter, please."}));
        }
        body.insert("messages".into(), messages.into());
        "/v1/chat/completions"
    };
    let most = dice.of(&[1, 2, 7, 16, 24, 40, 64]);
    body.insert("max_tokens".into(), json!(most));
    body.insert("stream".into(), json!(dice.one_in(2)));
    let mut maybe = |odds: u64, name: &str, values: &[Value]| {
        let (chosen, value) = (dice.one_in(odds), dice.roll() % values.len() as u64);
        if chosen {
            let value = values[usize::try_from(value).expect("few values")].clone();
            body.insert(name.into(), value);
        }
    };
    let n = |values: &[f64]| values.iter().map(|v| json!(v)).collect::<Vec<_>>();
    maybe(2, "temperature", &n(&[0.0, 0.2, 0.7, 1.0, 1.3, 2.0]));
    maybe(3, "top_p", &n(&[0.1, 0.5, 0.9, 0.95, 1.0]));
    maybe(4, "top_k", &[json!(1), json!(5), json!(40), json!(-1)]);
    maybe(5, "min_p", &n(&[0.01, 0.05, 0.3]));
    maybe(5, "repetition_penalty", &n(&[0.8, 1.1, 1.5]));
    maybe(5, "presence_penalty", &n(&[-0.5, 0.6, 2.0]));
    maybe(5, "frequency_penalty", &n(&[-0.3, 0.4, 1.5]));
    maybe(
        6,
        "logit_bias",
        &[json!({"28": -100, "30": 3}), json!({"260": 5.5})],
    );
    maybe(
        3,
        "seed",
        &[json!(0), json!(42), json!(-1), json!(u64::MAX)],
    );
    maybe(
        4,
        "stop",
        &[json!("."), json!(["\n", " the"]), json!([",", "and", "é"])],
    );
    maybe(6, "stop_token_ids", &[json!([28]), json!([30, 198])]);
    maybe(6, "min_tokens", &[json!(1), json!(most)]);
    maybe(5, "ignore_eos", &[json!(true)]);
    maybe(5, "n", &[json!(2), json!(3)]);
    maybe(4, "return_token_ids", &[json!(true)]);
    if path == "/v1/chat/completions" {
        maybe(
            8,
            "response_format",
            &[json!({"type": "json_object"}), schema()],
        );
    }
    (path, body.into())
}

fn schema() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {"title": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["title", "count"],
        "additionalProperties": false,
    });
    json!({"type": "json_schema", "json_schema": {"name": "note", "schema": schema}})
}

const TOPICS: [&str; 12] = [
    "the sea",
    "rain in autumn",
    "the number 1,729",
    "Zürich",
    "bread",
    "a clock that runs backwards",
    "东京",
    "Rust's borrow checker",
    "tea ☕",
    "the Moon",
    "old maps",
    "why cats purr",
];

/// Longer than a few blocks of the KV cache, and shared.
const SYSTEM: &str = "You are a careful assistant. You answer in plain words, in a few short sentences, \
    and you never make up facts. If you don't know something, you say that you don't know it. You like lists, \
    but only where they help. You write numbers with digits. You don't apologise. You don't repeat the question. \
    You stop when everything is said.";
