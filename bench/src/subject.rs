//! The model that is measured.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use models::exact::{ExactModel, Level, Options};
use models::{Model, Special};
use protocol::manifest::Manifest;

/// A whitelisted model and its weights.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Which model.
    pub manifest: &'static Manifest,
    /// Its weight file.
    pub weights: PathBuf,
}

impl Subject {
    /// The engine's model alone.
    pub fn load(
        &self,
        threads: usize,
        level: Level,
        kv_tokens: usize,
    ) -> anyhow::Result<ExactModel> {
        let options = options(threads, level, kv_tokens);
        ExactModel::load(&self.weights, &options)
            .with_context(|| format!("loading {}", self.weights.display()))
    }

    /// With tokenizer and template, as it is served.
    pub fn load_whole(&self, threads: usize, kv_tokens: usize) -> anyhow::Result<Model> {
        let options = options(threads, Level::detect(), kv_tokens);
        Model::load(&self.weights, self.manifest, &options)
            .with_context(|| format!("loading {}", self.weights.display()))
    }

    /// A text's tokens.
    pub fn tokens(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let model = self.load_whole(1, 32)?;
        Ok(model.tokenizer().encode(text, Special::AsText))
    }
}

fn options(threads: usize, level: Level, kv_tokens: usize) -> Options {
    Options {
        threads: NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN),
        level,
        kv_tokens,
    }
}
