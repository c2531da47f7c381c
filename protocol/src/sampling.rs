//! The sampling parameters in force, as a receipt states them, and the seed.
//!
//! What a client left out is filled in with the fixed defaults here, never
//! with a model's own. Start at [`Sampling::in_force`]; [`Sampling::honours`]
//! is how a client checks that it got what it asked for. Normative in
//! `docs/spec/receipt.md`, 4.7 and 4.8.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::api::{Ask, SamplingAsk};
use crate::digest::{Digest, Hasher};

/// The sampler that the parameters mean.
pub const VERSION: &str = "gumbel-philox/1";

/// The kinds of grammars.
const GRAMMARS: [&str; 5] = [
    "json_object",
    "json_schema",
    "tools",
    "tools+json_object",
    "tools+json_schema",
];

/// Goes before a nonce where it is hashed to a seed.
const SEED_DOMAIN: &[u8] = b"countersign/seed/1\n";

/// Every parameter that decides which token is drawn, and when to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// The sampler: [`VERSION`].
    pub version: String,
    /// 0 is greedy.
    pub temperature: f64,
    /// Smallest set of tokens with at least this probability; 1 is off.
    pub top_p: f64,
    /// That many most likely tokens; 0 is off.
    pub top_k: u32,
    /// Tokens with at least this fraction of the likeliest one's probability; 0 is off.
    pub min_p: f64,
    /// Divides (or multiplies, if negative) logits of tokens seen; 1 is off.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens in the output; 0 is off.
    pub presence_penalty: f64,
    /// Subtracted once per occurrence in the output; 0 is off.
    pub frequency_penalty: f64,
    /// Added to a token's logit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logit_bias: BTreeMap<u32, f64>,
    /// Tokens at most, for each choice.
    pub max_tokens: u32,
    /// Tokens before the model may end its answer.
    pub min_tokens: u32,
    /// Texts that end the answer and aren't part of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Tokens that end the answer, beside the model's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_token_ids: Vec<u32>,
    /// Whether the model's end token is drawn through.
    pub ignore_eos: bool,
    /// Choices.
    pub n: u8,
    /// The seed of the noise, one for all choices: the choice's number is in the counter.
    pub seed: Seed,
    /// Who chose the seed.
    pub seed_by: SeedBy,
    /// The day that the chat template was told, `YYYY-MM-DD`, if it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_date: Option<String>,
    /// The kind of the grammar that the answer follows, and what read it; none: any text will do.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "known_grammar"
    )]
    pub grammar: Option<String>,
    /// The digest of what the request says of that grammar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar_sha256: Option<Digest>,
}

/// Who chose a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedBy {
    /// The request's `seed`.
    Client,
    /// [`seed_from_nonce`]: nobody could choose it after the other's move.
    Nonce,
    /// The job, for an unsigned request without a seed.
    Server,
}

/// A seed; in JSON a decimal string, since JavaScript's numbers can't hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

/// Why a text isn't a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a seed is a decimal number below 2^64, without sign or leading zeros")]
pub struct SeedError;

impl SeedError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        "seed_form"
    }
}

/// What is in force beside what the request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The limit: the request's, or what the context leaves.
    pub max_tokens: u32,
    /// The seed.
    pub seed: Seed,
    /// Who chose it.
    pub seed_by: SeedBy,
    /// The day that the chat template was told, if it asked.
    pub template_date: Option<String>,
}

impl Sampling {
    /// The parameters in force for a request with `n` choices.
    pub fn in_force(ask: &SamplingAsk, n: u8, effective: Effective) -> Self {
        Sampling {
            version: VERSION.to_owned(),
            temperature: ask.temperature.unwrap_or(1.0),
            top_p: ask.top_p.unwrap_or(1.0),
            top_k: ask.top_k.unwrap_or(0),
            min_p: ask.min_p.unwrap_or(0.0),
            repetition_penalty: ask.repetition_penalty.unwrap_or(1.0),
            presence_penalty: ask.presence_penalty.unwrap_or(0.0),
            frequency_penalty: ask.frequency_penalty.unwrap_or(0.0),
            logit_bias: ask.logit_bias.clone(),
            max_tokens: effective.max_tokens,
            min_tokens: ask.min_tokens.unwrap_or(0),
            stop: ask.stop.clone(),
            stop_token_ids: ask.stop_token_ids.clone(),
            ignore_eos: ask.ignore_eos,
            n,
            seed: effective.seed,
            seed_by: effective.seed_by,
            template_date: effective.template_date,
            grammar: None,
            grammar_sha256: None,
        }
    }

    /// The same, with the grammar that `ask` asks for.
    pub fn with_grammar(self, ask: &Ask) -> Self {
        Sampling {
            grammar: ask.grammar(),
            grammar_sha256: ask.grammar_sha256(),
            ..self
        }
    }

    /// Whether the answer may call tools: then its text has another form. Spec 4.4.
    pub fn may_call(&self) -> bool {
        let kind = self.grammar.as_deref().unwrap_or_default();
        kind.starts_with("tools/") || kind.starts_with("tools+")
    }

    /// Whether these are the parameters that `ask` asked for, with the seed
    /// that its `signed` nonce and body give if it names none; otherwise the
    /// name of the first that isn't.
    pub fn honours(&self, ask: &Ask, signed: Option<(&[u8], &Digest)>) -> Result<(), &'static str> {
        let asked = &ask.sampling;
        let seed_as_asked = match (asked.seed, signed) {
            (Some(seed), _) => self.seed_by == SeedBy::Client && self.seed == Seed(seed),
            (None, Some((nonce, body))) => {
                self.seed_by == SeedBy::Nonce && self.seed == seed_from_nonce(nonce, body)
            }
            (None, None) => self.seed_by == SeedBy::Server,
        };
        if !seed_as_asked {
            return Err("seed");
        }
        // What the server alone decides is taken as it is, the rest compared.
        let expected = Sampling::in_force(
            asked,
            ask.n,
            Effective {
                max_tokens: ask.max_tokens.unwrap_or(self.max_tokens),
                seed: self.seed,
                seed_by: self.seed_by,
                template_date: self.template_date.clone(),
            },
        )
        .with_grammar(ask);
        self.first_difference(&expected).map_or(Ok(()), Err)
    }

    fn first_difference(&self, other: &Sampling) -> Option<&'static str> {
        [
            ("version", self.version == other.version),
            ("temperature", self.temperature == other.temperature),
            ("top_p", self.top_p == other.top_p),
            ("top_k", self.top_k == other.top_k),
            ("min_p", self.min_p == other.min_p),
            (
                "repetition_penalty",
                self.repetition_penalty == other.repetition_penalty,
            ),
            (
                "presence_penalty",
                self.presence_penalty == other.presence_penalty,
            ),
            (
                "frequency_penalty",
                self.frequency_penalty == other.frequency_penalty,
            ),
            ("logit_bias", self.logit_bias == other.logit_bias),
            ("max_tokens", self.max_tokens == other.max_tokens),
            ("min_tokens", self.min_tokens == other.min_tokens),
            ("stop", self.stop == other.stop),
            (
                "stop_token_ids",
                self.stop_token_ids == other.stop_token_ids,
            ),
            ("ignore_eos", self.ignore_eos == other.ignore_eos),
            ("n", self.n == other.n),
            ("grammar", self.grammar == other.grammar),
            (
                "grammar_sha256",
                self.grammar_sha256 == other.grammar_sha256,
            ),
        ]
        .into_iter()
        .find_map(|(name, equal)| (!equal).then_some(name))
    }
}

/// A grammar's kind is one of those that there are: what a reader doesn't know might change what
/// the hashes mean. // spec grammar 2.1
fn known_grammar<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let known = match text.split_once('/') {
        Some((kind, engine)) => GRAMMARS.contains(&kind) && !engine.is_empty(),
        None => false,
    };
    match known {
        true => Ok(Some(text)),
        false => Err(serde::de::Error::custom("not a kind of grammar")),
    }
}

/// The seed of a signed request that names none: nobody can shop for it.
pub fn seed_from_nonce(nonce: &[u8], body: &Digest) -> Seed {
    // spec 4.8
    let mut hasher = Hasher::new();
    hasher.update(SEED_DOMAIN);
    hasher.update(nonce);
    hasher.update(body.as_bytes());
    let digest = hasher.finish();
    let first = digest.as_bytes().first_chunk::<8>();
    Seed(u64::from_le_bytes(*first.expect("a digest has 32 bytes")))
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let seed = Seed(text.parse().map_err(|_| SeedError)?);
        // `parse` also reads a plus sign and leading zeros.
        if seed.to_string() != text {
            return Err(SeedError);
        }
        Ok(seed)
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
