//! What an engine process is told when it starts. No secrets are in it.

use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use models::{Level, Options};
use protocol::manifest::{Manifest, ManifestError};
use protocol::{Did, JobId};
use serde::{Deserialize, Serialize};

use crate::engine::Pace;
use crate::prefixes::PrefixSharing;
use crate::scheduler::SchedulerConfig;

/// One job: which model, for whom, within what limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// The job's id, which its credential and its receipts name.
    pub job: JobId,
    /// Whose admissions and credential count.
    pub gateway: Did,
    /// The model's manifest, as TOML text.
    pub manifest: String,
    /// The weight file. It was checked against the manifest's digest.
    pub model_path: PathBuf,
    /// Whether requests that no client signed are answered.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// The authorities that the credential may list. None: any.
    #[serde(default)]
    pub authorities: Vec<String>,
    /// What clients can take.
    #[serde(default)]
    pub limits: EngineLimits,
    /// Threads that compute. None: one for each core.
    #[serde(default)]
    pub threads: Option<NonZeroUsize>,
    /// Instruction set that computes, one of this CPU's. None: the fastest. No answer
    /// depends on it.
    #[serde(default)]
    pub level: Option<String>,
}

/// What clients can take of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineLimits {
    /// Sequences in one step of the engine.
    pub sequences_max: NonZeroU32,
    /// Requests beyond `sequences_max` that are held, waiting or being read. One more is a 429.
    pub waiting_max: u32,
    /// Longest prompt and output together; the model's own limit counts too.
    pub context_tokens_max: NonZeroU32,
    /// Tokens that the KV blocks of all sequences together can hold.
    pub kv_tokens_max: NonZeroU32,
    /// Prompt tokens in one step, over all prompts. A decode waits at most this long.
    pub prefill_tokens_per_step: NonZeroU32,
    /// Tokens of a streamed answer after which the receipt so far is signed; 0: never.
    pub checkpoint_tokens: u32,
    /// Whose requests may begin with what was computed for another.
    pub prefix_sharing: PrefixSharing,
    /// Tokens that a client may leave unread before its request sits out.
    pub unread_tokens_max: NonZeroU32,
    /// Milliseconds that a request may sit out before it ends with `deadline`.
    pub stall_ms: NonZeroU32,
    /// Choices of one request.
    pub n_max: NonZeroU8,
    /// Bytes of a request body.
    pub body_bytes_max: NonZeroU32,
    /// Milliseconds for a whole request body to arrive.
    pub body_ms: NonZeroU32,
    /// Requests that are parsed and tokenized at the same time; the others wait.
    pub preparing_max: NonZeroU32,
    /// Milliseconds that an admission of the gateway counts.
    pub admission_ms: NonZeroU32,
    /// Milliseconds before the end of a drain at which streams are cut, so that
    /// their receipts still arrive.
    pub cut_margin_ms: u32,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self {
            sequences_max: non_zero(64),
            waiting_max: 64,
            context_tokens_max: non_zero(8192),
            kv_tokens_max: non_zero(32_768),
            prefill_tokens_per_step: non_zero(128),
            checkpoint_tokens: 256,
            prefix_sharing: PrefixSharing::Client,
            unread_tokens_max: non_zero(256),
            stall_ms: non_zero(60_000),
            n_max: const { NonZeroU8::new(8).expect("not zero") },
            body_bytes_max: non_zero(8 << 20),
            body_ms: non_zero(30_000),
            preparing_max: non_zero(2),
            admission_ms: non_zero(600_000),
            cut_margin_ms: 2_000,
        }
    }
}

const fn non_zero(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("called with constants above zero")
}

/// Why a configuration can't be served; every fault of it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The manifest.
    #[error("the manifest can't be read")]
    Manifest(#[source] ManifestError),
    /// An instruction set that this CPU doesn't have.
    #[error("the level {name:?} isn't one of this CPU's: {available}")]
    Level {
        /// As configured.
        name: String,
        /// What there is.
        available: String,
    },
    /// Limits that contradict each other.
    #[error("{}", .0.join("; "))]
    Limits(Vec<String>),
}

impl EngineConfig {
    /// Checks everything, and reads the manifest.
    pub(crate) fn check(&self) -> Result<Manifest, ConfigError> {
        let manifest = Manifest::parse(&self.manifest).map_err(ConfigError::Manifest)?;
        self.limits.check(&manifest)?;
        self.options()?;
        Ok(manifest)
    }

    /// How the model is run.
    pub(crate) fn options(&self) -> Result<Options, ConfigError> {
        let available = Level::available();
        let named = |name: &String| {
            let level = available.iter().find(|level| level.name() == name);
            level.copied().ok_or_else(|| ConfigError::Level {
                name: name.clone(),
                available: available
                    .iter()
                    .map(|l| l.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Options {
            threads: self.threads.unwrap_or_else(cores),
            level: self
                .level
                .as_ref()
                .map_or_else(|| Ok(Level::detect()), named)?,
            kv_tokens: self.limits.kv_tokens_max.get() as usize,
        })
    }
}

impl EngineLimits {
    /// Whether a job with this model can keep to these limits; every reason why not.
    pub fn check(&self, manifest: &Manifest) -> Result<(), ConfigError> {
        let context = self.context_tokens(manifest);
        let mut faults = Vec::new();
        if self.kv_tokens_max.get() < context {
            faults.push(format!(
                "kv_tokens_max is {}, which doesn't hold one context of {context} tokens",
                self.kv_tokens_max
            ));
        }
        if u32::from(self.n_max.get()) > self.sequences_max.get() {
            faults.push(format!(
                "n_max is {}, more than the {} sequences of a step",
                self.n_max, self.sequences_max
            ));
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Limits(faults)),
        }
    }

    /// The longest prompt and output together.
    pub(crate) fn context_tokens(&self, manifest: &Manifest) -> u32 {
        let model = manifest.identity.context_tokens;
        model.min(self.context_tokens_max.get())
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace {
            scheduler: SchedulerConfig {
                sequences_max: self.sequences_max,
                prefill_tokens_per_step: self.prefill_tokens_per_step,
                block_tokens: BLOCK_TOKENS,
                blocks_max: self.kv_tokens_max.div_ceil(BLOCK_TOKENS),
            },
            stall: Duration::from_millis(u64::from(self.stall_ms.get())),
        }
    }

    /// Requests that are alive or being read at the same time.
    pub(crate) fn requests_max(&self) -> usize {
        self.sequences_max.get().saturating_add(self.waiting_max) as usize
    }
}

const BLOCK_TOKENS: NonZeroU32 = non_zero(models::exact::POSITIONS as u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_field_is_refused() {
        let error = serde_json::from_str::<EngineLimits>(r#"{"sequence_max": 4}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `sequence_max`"));
    }

    #[test]
    fn all_faults_are_reported_together() {
        let manifest = models::Whitelist::embedded()[0].clone();
        let config = EngineConfig {
            job: JobId::new([1; 16]),
            gateway: protocol::SigningKey::from_seed([1; 32]).did(),
            manifest: include_str!("../../models/manifests/smollm2-135m-instruct-q4_1.toml").into(),
            model_path: PathBuf::new(),
            allow_unsigned: false,
            authorities: Vec::new(),
            limits: EngineLimits {
                sequences_max: non_zero(2),
                kv_tokens_max: non_zero(100),
                ..EngineLimits::default()
            },
            threads: None,
            level: None,
        };
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("kv_tokens_max is 100") && message.contains("n_max is 8"));
        let sound = EngineConfig {
            limits: EngineLimits::default(),
            ..config
        };
        assert_eq!(sound.check().unwrap(), manifest);
        let level = |name: &str| EngineConfig {
            level: Some(name.to_owned()),
            ..sound.clone()
        };
        assert_eq!(level("portable").options().unwrap().level, Level::Portable);
        let refused = level("quantum").check().unwrap_err().to_string();
        assert!(refused.contains("portable"), "{refused}");
    }
}
