//! The request bodies that `countersign chat` makes.

use serde_json::{Map, Value, json};

/// One question to a chat model, streamed, with token counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatAsk {
    /// The model's id.
    pub model: String,
    /// What the user says.
    pub prompt: String,
    /// What the model is told beforehand.
    pub system: Option<String>,
    /// Tokens at most.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: Option<f64>,
    /// The seed of the sampler.
    pub seed: Option<u64>,
}

impl ChatAsk {
    /// The path that [`ChatAsk::body`] goes to.
    pub const PATH: &'static str = "/v1/chat/completions";

    /// The body's bytes.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("model".into(), json!(self.model));
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({ "role": "system", "content": system }));
        }
        messages.push(json!({ "role": "user", "content": self.prompt }));
        body.insert("messages".into(), Value::Array(messages));
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({ "include_usage": true }));
        if let Some(max_tokens) = self.max_tokens {
            body.insert("max_tokens".into(), json!(max_tokens));
        }
        if let Some(temperature) = self.temperature {
            body.insert("temperature".into(), json!(temperature));
        }
        if let Some(seed) = self.seed {
            body.insert("seed".into(), json!(seed));
        }
        serde_json::to_vec(&body).expect("strings and numbers always have JSON")
    }
}
