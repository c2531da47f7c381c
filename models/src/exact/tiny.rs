//! Small random models for tests, as GGUF files.

use std::borrow::Cow;
use std::path::Path;

use candle_core::Device;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use tempfile::NamedTempFile;

use super::blocks::Format;
use super::random::Random;

/// A model file that is removed when dropped.
pub struct Tiny {
    pub name: &'static str,
    file: NamedTempFile,
}

impl Tiny {
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// The token whose embedding [`overflowing`] makes too large.
pub const OVERFLOWING_TOKEN: u32 = 7;

/// Models that together use every format and every feature.
pub fn all() -> Vec<Tiny> {
    use Format::*;
    let plain = Recipe {
        name: "llama, tied, all 32-block formats",
        formats: vec![Q8_0, Q4_1, Q4_0, Q5_0, Q5_1],
        ..Recipe::llama()
    };
    vec![
        plain.write(),
        Recipe {
            name: "llama, untied, K-quants, scaled rope",
            hidden: 256,
            head_dim: 64,
            ffn: 512,
            tied: false,
            layers: 2,
            formats: vec![Q4K, Q6K, Q5K],
            extra: vec![
                (
                    "llama.rope.scaling.type",
                    Value::String("linear".to_owned()),
                ),
                ("llama.rope.scaling.factor", Value::F32(4.0)),
            ],
            ..Recipe::llama()
        }
        .write(),
        Recipe {
            name: "llama, floats, partial rope with factors, ungrouped heads",
            formats: vec![F32, F16, Bf16],
            kv_heads: 4,
            rope_factors: true,
            ..Recipe::llama()
        }
        .write(),
        Recipe {
            name: "gemma3, windows, norms of heads and branches, caps",
            formats: vec![Q5_0, Q8_0, Q5_1],
            layers: 7,
            gemma: true,
            extra: vec![
                ("gemma3.attention.sliding_window", Value::U32(12)),
                ("gemma3.attn_logit_softcapping", Value::F32(5.0)),
                ("gemma3.final_logit_softcapping", Value::F32(3.0)),
            ],
            ..Recipe::llama()
        }
        .write(),
    ]
}

/// Gemma 3 without quantised weights, so that nothing but the order of sums is rounded apart.
pub fn gemma_of_floats() -> Tiny {
    Recipe {
        name: "gemma3, floats",
        formats: vec![Format::F32, Format::F16, Format::Bf16],
        layers: 7,
        gemma: true,
        extra: vec![
            ("gemma3.attention.sliding_window", Value::U32(12)),
            ("gemma3.attn_logit_softcapping", Value::F32(5.0)),
            ("gemma3.final_logit_softcapping", Value::F32(3.0)),
        ],
        ..Recipe::llama()
    }
    .write()
}

/// A model with one token whose values don't fit f16.
pub fn overflowing() -> Tiny {
    Recipe {
        name: "overflowing",
        formats: vec![Format::F32],
        overflow: true,
        ..Recipe::llama()
    }
    .write()
}

struct Recipe {
    name: &'static str,
    gemma: bool,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    layers: usize,
    tied: bool,
    rope_factors: bool,
    overflow: bool,
    /// Taken in turn by the matrices.
    formats: Vec<Format>,
    extra: Vec<(&'static str, Value)>,
}

const VOCAB: usize = 64;

impl Recipe {
    fn llama() -> Self {
        Self {
            name: "",
            gemma: false,
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            ffn: 96,
            layers: 3,
            tied: true,
            rope_factors: false,
            overflow: false,
            formats: Vec::new(),
            extra: Vec::new(),
        }
    }

    fn write(self) -> Tiny {
        let mut random = Random::new(self.name.len() as u64);
        let mut tensors = Vec::new();
        let mut turn = self.formats.iter().cycle();
        let mut matrix = |name: String, outputs: usize, inputs: usize, random: &mut Random| {
            let format = *turn.next().unwrap();
            let bytes = random.weights(format, outputs * inputs);
            tensors.push((name, tensor(format, &bytes, &[outputs, inputs])));
        };
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        matrix(
            "token_embd.weight".to_owned(),
            VOCAB,
            self.hidden,
            &mut random,
        );
        if !self.tied {
            matrix("output.weight".to_owned(), VOCAB, self.hidden, &mut random);
        }
        for layer in 0..self.layers {
            for (part, outputs, inputs) in [
                ("attn_q", query, self.hidden),
                ("attn_k", kv, self.hidden),
                ("attn_v", kv, self.hidden),
                ("attn_output", self.hidden, query),
                ("ffn_gate", self.ffn, self.hidden),
                ("ffn_up", self.ffn, self.hidden),
                ("ffn_down", self.hidden, self.ffn),
            ] {
                matrix(
                    format!("blk.{layer}.{part}.weight"),
                    outputs,
                    inputs,
                    &mut random,
                );
            }
        }
        for (name, len) in self.vectors() {
            let floats: Vec<f32> = (0..len)
                .map(|_| 1.0 + 0.2 * random.normal().abs())
                .collect();
            tensors.push((name, floats_tensor(&floats, &[len])));
        }
        if self.overflow {
            self.break_a_token(&mut tensors);
        }
        let metadata = self.metadata();
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, t)| (k.as_str(), t)).collect();
        let mut file = NamedTempFile::new().unwrap();
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
        Tiny {
            name: self.name,
            file,
        }
    }

    /// Makes the value matrix see a token's last embedding weight, and that huge:
    /// one column of ones and an embedding in which only one weight counts.
    fn break_a_token(&self, tensors: &mut [(String, QTensor)]) {
        for (name, tensor) in tensors {
            if name == "blk.0.attn_v.weight" {
                let kv = self.kv_heads * self.head_dim;
                let mut weights = vec![1.0_f32; kv * self.hidden];
                for row in weights.chunks_mut(self.hidden) {
                    row[self.hidden - 1] = 1e5;
                }
                *tensor = floats_tensor(&weights, &[kv, self.hidden]);
            }
            if name == "token_embd.weight" {
                let mut weights = vec![1.0_f32; VOCAB * self.hidden];
                for (token, row) in weights.chunks_mut(self.hidden).enumerate() {
                    let last = token == OVERFLOWING_TOKEN as usize;
                    row[self.hidden - 1] = if last { 1.0 } else { 0.0 };
                }
                *tensor = floats_tensor(&weights, &[VOCAB, self.hidden]);
            }
        }
    }

    /// Names and lengths of the vectors.
    fn vectors(&self) -> Vec<(String, usize)> {
        let mut vectors = vec![("output_norm.weight".to_owned(), self.hidden)];
        if self.rope_factors {
            vectors.push(("rope_freqs.weight".to_owned(), 8));
        }
        for layer in 0..self.layers {
            let mut add =
                |part: &str, len| vectors.push((format!("blk.{layer}.{part}.weight"), len));
            add("attn_norm", self.hidden);
            add("ffn_norm", self.hidden);
            if self.gemma {
                add("attn_q_norm", self.head_dim);
                add("attn_k_norm", self.head_dim);
                add("post_attention_norm", self.hidden);
                add("post_ffw_norm", self.hidden);
            }
        }
        vectors
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let architecture = if self.gemma { "gemma3" } else { "llama" };
        let count = |n: usize| Value::U32(n as u32);
        let mut pairs: Vec<(String, Value)> = [
            ("embedding_length", count(self.hidden)),
            ("block_count", count(self.layers)),
            ("attention.head_count", count(self.heads)),
            ("attention.head_count_kv", count(self.kv_heads)),
            ("attention.key_length", count(self.head_dim)),
            ("attention.value_length", count(self.head_dim)),
            ("feed_forward_length", count(self.ffn)),
            ("context_length", count(512)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("rope.freq_base", Value::F32(5000.0)),
        ]
        .into_iter()
        .map(|(key, value)| (format!("{architecture}.{key}"), value))
        .collect();
        if self.rope_factors {
            pairs.push(("llama.rope.dimension_count".to_owned(), count(16)));
        }
        let architecture = Value::String(architecture.to_owned());
        pairs.push(("general.architecture".to_owned(), architecture));
        for (key, value) in &self.extra {
            pairs.push(((*key).to_owned(), value.clone()));
        }
        pairs
    }
}

fn floats_tensor(floats: &[f32], shape: &[usize]) -> QTensor {
    let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
    tensor(Format::F32, &bytes, shape)
}

fn tensor(format: Format, bytes: &[u8], shape: &[usize]) -> QTensor {
    let dtype = match format {
        Format::F32 => GgmlDType::F32,
        Format::F16 => GgmlDType::F16,
        Format::Bf16 => GgmlDType::BF16,
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q4K => GgmlDType::Q4K,
        Format::Q5K => GgmlDType::Q5K,
        Format::Q6K => GgmlDType::Q6K,
    };
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype).unwrap();
    QTensor::new(storage, shape).unwrap()
}
