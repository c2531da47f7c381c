//! What a GGUF's metadata says about a model: sizes, and which of the
//! profile's operations its layers use (spec 5.1, 6).
//!
//! Llama and Gemma 3 are one family here: a layer is the same list of steps,
//! some of them absent. What the profile hasn't is refused, never ignored.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use super::elementary::{exp_f64, ln_f64};

/// A model's sizes and choices.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The GGUF's name of the architecture.
    pub architecture: String,
    /// Length of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Length of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Positions that the model was made for.
    pub context_tokens: usize,
    /// Added to the mean square in norms.
    pub epsilon: f32,
    /// What embeddings are multiplied with.
    pub embedding_scale: Option<f32>,
    /// What rotated queries are multiplied with.
    pub attention_scale: f32,
    /// Soft cap of attention scores.
    pub attention_cap: Option<f32>,
    /// Soft cap of logits.
    pub logit_cap: Option<f32>,
    /// The feed-forward layer's gate.
    pub gate: Gate,
    /// Rotary embeddings that layers refer to.
    pub ropes: Vec<Rope>,
    /// What differs between layers.
    pub layers: Vec<LayerKind>,
}

/// The function that the gate's half passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// SwiGLU.
    Silu,
    /// GeGLU, by the tanh formula.
    Gelu,
}

/// A rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Which dimensions rotate together.
    pub pairing: Pairing,
    /// Radians per position, for each pair.
    pub frequencies: Vec<f64>,
}

/// Which dimensions of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// 2i and 2i + 1.
    Adjacent,
    /// i and i + half the rotated dimensions.
    Halves,
}

/// What differs between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// Positions that a query sees, its own included.
    pub window: usize,
    /// Index into [`Config::ropes`].
    pub rope: usize,
}

/// Why a GGUF isn't a model of this profile.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The profile doesn't have the architecture, or something that it uses.
    #[error("exact/1 doesn't have {what} {name:?}")]
    Unsupported {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// The metadata lacks a key, or it has the wrong type or an absurd value.
    #[error("the metadata's {key} is missing or isn't {expected}")]
    Metadata {
        /// The key.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Config {
    /// Reads the metadata. `rope_factors` is the tensor `rope_freqs.weight`.
    pub fn read(
        metadata: &HashMap<String, Value>,
        rope_factors: Option<&[f32]>,
    ) -> Result<Self, ConfigError> {
        let general = Keys {
            metadata,
            prefix: "general".to_owned(),
        };
        let architecture = general.text("architecture")?;
        let keys = Keys {
            metadata,
            prefix: architecture.clone(),
        };
        match architecture.as_str() {
            "llama" => llama(&keys, rope_factors),
            "gemma3" => gemma3(&keys),
            _ => Err(ConfigError::Unsupported {
                what: "architecture",
                name: architecture,
            }),
        }
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

fn llama(keys: &Keys, rope_factors: Option<&[f32]>) -> Result<Config, ConfigError> {
    let mut config = common(keys)?;
    let rotated = keys.or("rope.dimension_count", config.head_dim)?;
    let theta = f64::from(keys.float_or("rope.freq_base", 10_000.0)?);
    let mut frequencies = frequencies(theta, rotated);
    match keys.text_or("rope.scaling.type", "none")?.as_str() {
        "none" => {}
        "linear" => {
            let factor = f64::from(keys.float_or("rope.scaling.factor", 1.0)?);
            frequencies.iter_mut().for_each(|f| *f /= factor);
        }
        other => return unsupported("rope scaling", other),
    }
    if let Some(factors) = rope_factors {
        if factors.len() != frequencies.len() {
            return unsupported("rope factors of length", &factors.len().to_string());
        }
        for (frequency, factor) in frequencies.iter_mut().zip(factors) {
            *frequency /= f64::from(*factor);
        }
    }
    config.ropes = vec![Rope {
        pairing: Pairing::Adjacent,
        frequencies,
    }];
    Ok(config)
}

fn gemma3(keys: &Keys) -> Result<Config, ConfigError> {
    let mut config = common(keys)?;
    let rotated = config.head_dim;
    let theta = f64::from(keys.float_or("rope.freq_base", 1_000_000.0)?);
    let mut global = frequencies(theta, rotated);
    match keys.text_or("rope.scaling.type", "none")?.as_str() {
        "none" => {}
        "linear" => {
            let factor = f64::from(keys.float_or("rope.scaling.factor", 1.0)?);
            global.iter_mut().for_each(|f| *f /= factor);
        }
        other => return unsupported("rope scaling", other),
    }
    let local_theta = f64::from(keys.float_or("rope.freq_base_swa", 10_000.0)?);
    let halves = |frequencies| Rope {
        pairing: Pairing::Halves,
        frequencies,
    };
    config.ropes = vec![halves(global), halves(frequencies(local_theta, rotated))];
    let pattern = keys.or("attention.sliding_window_pattern", 6)?;
    if pattern != 6 {
        return unsupported("a pattern of windows of", &pattern.to_string());
    }
    let window = keys.or("attention.sliding_window", usize::MAX)?;
    // Every sixth layer sees everything.
    for (index, layer) in config.layers.iter_mut().enumerate() {
        if index % 6 != 5 {
            *layer = LayerKind { window, rope: 1 };
        }
    }
    config.gate = Gate::Gelu;
    config.embedding_scale = Some((config.hidden as f32).sqrt());
    config.attention_cap = keys.optional_float("attn_logit_softcapping")?;
    config.logit_cap = keys.optional_float("final_logit_softcapping")?;
    if config.layers.len() == 62 {
        // The 27B model scales by the width of a head of its residual stream.
        let width = (config.hidden / config.heads) as f32;
        config.attention_scale = 1.0 / width.sqrt();
    }
    Ok(config)
}

fn common(keys: &Keys) -> Result<Config, ConfigError> {
    let hidden = keys.count("embedding_length")?;
    let heads = keys.count("attention.head_count")?;
    let head_dim = keys.or("attention.key_length", hidden / heads)?;
    if keys.or("attention.value_length", head_dim)? != head_dim {
        return unsupported("heads whose values are as long as", "their keys aren't");
    }
    let kv_heads = keys.or("attention.head_count_kv", heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return unsupported("head counts", &format!("{heads} over {kv_heads}"));
    }
    let layers = keys.count("block_count")?;
    Ok(Config {
        architecture: keys.prefix.clone(),
        hidden,
        heads,
        kv_heads,
        head_dim,
        ffn: keys.count("feed_forward_length")?,
        context_tokens: keys.count("context_length")?,
        epsilon: keys.float("attention.layer_norm_rms_epsilon")?,
        embedding_scale: None,
        attention_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_cap: None,
        logit_cap: None,
        gate: Gate::Silu,
        ropes: Vec::new(),
        layers: vec![
            LayerKind {
                window: usize::MAX,
                rope: 0,
            };
            layers
        ],
    })
}

/// Radians per position of each pair: theta^(−2i/n) (spec 5.3).
fn frequencies(theta: f64, rotated: usize) -> Vec<f64> {
    let log = ln_f64(theta);
    (0..rotated / 2)
        .map(|i| exp_f64(-((2 * i) as f64 / rotated as f64 * log)))
        .collect()
}

fn unsupported<T>(what: &'static str, name: &str) -> Result<T, ConfigError> {
    Err(ConfigError::Unsupported {
        what,
        name: name.to_owned(),
    })
}

/// Typed reading of metadata under one prefix.
struct Keys<'a> {
    metadata: &'a HashMap<String, Value>,
    prefix: String,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(&format!("{}.{key}", self.prefix))
    }

    fn error(&self, key: &str, expected: &'static str) -> ConfigError {
        ConfigError::Metadata {
            key: format!("{}.{key}", self.prefix),
            expected,
        }
    }

    fn text(&self, key: &str) -> Result<String, ConfigError> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(self.error(key, "a string")),
        }
    }

    fn text_or(&self, key: &str, default: &str) -> Result<String, ConfigError> {
        match self.get(key) {
            None => Ok(default.to_owned()),
            Some(_) => self.text(key),
        }
    }

    /// A positive count of at most 2³¹.
    fn count(&self, key: &str) -> Result<usize, ConfigError> {
        let value = match self.get(key) {
            Some(Value::U32(value)) => u64::from(*value),
            Some(Value::U64(value)) => *value,
            Some(Value::I32(value)) => u64::try_from(*value).unwrap_or(0),
            _ => 0,
        };
        if value == 0 || value > 1 << 31 {
            return Err(self.error(key, "a positive count"));
        }
        Ok(value as usize)
    }

    fn or(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(_) => self.count(key),
        }
    }

    fn float(&self, key: &str) -> Result<f32, ConfigError> {
        self.optional_float(key)?
            .ok_or_else(|| self.error(key, "a positive number"))
    }

    fn float_or(&self, key: &str, default: f32) -> Result<f32, ConfigError> {
        Ok(self.optional_float(key)?.unwrap_or(default))
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(value)) if *value > 0.0 && value.is_finite() => Ok(Some(*value)),
            Some(_) => Err(self.error(key, "a positive number")),
        }
    }
}
