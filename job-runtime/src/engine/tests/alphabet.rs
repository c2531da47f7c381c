//! A model that says the next letter, and ends after `z`.

use std::sync::atomic::{AtomicUsize, Ordering};

use models::{ForwardError, ModelConfig, Scored};

use crate::language_model::{LanguageModel, Part};

/// Ends an answer; says nothing.
pub(super) const END: u32 = 256;

/// The model names this as its fault.
pub(super) const BREAKS: char = '!';

/// The model panics on this.
pub(super) const PANICS: char = '?';

/// Reads bytes, says letters.
pub(super) struct Alphabet {
    config: ModelConfig,
    bytes: Vec<u8>,
    read: AtomicUsize,
}

impl Alphabet {
    pub(super) fn new() -> Self {
        Self {
            config: ModelConfig {
                vocab: 257,
                context_tokens: 1000,
                bos: None,
                eos: vec![END],
            },
            bytes: (0..=255).collect(),
            read: AtomicUsize::new(0),
        }
    }

    /// Tokens that went through it.
    pub(super) fn tokens_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

fn next(token: u32) -> u32 {
    match u8::try_from(token) {
        Ok(b'z') => END,
        Ok(letter) => u32::from(letter) + 1,
        Err(_) => u32::from(b'a'),
    }
}

impl LanguageModel for Alphabet {
    /// The tokens themselves.
    type Cache = Vec<u32>;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn new_cache(&self) -> Vec<u32> {
        Vec::new()
    }

    fn fork(&self, cache: &Vec<u32>) -> Vec<u32> {
        cache.clone()
    }

    fn text(&self, token: u32) -> &[u8] {
        self.bytes
            .get(token as usize)
            .map_or(&[], std::slice::from_ref)
    }

    fn forward(
        &self,
        work: &mut [Part<'_, Vec<u32>>],
        take: &(dyn Fn(Scored<'_>) + Sync),
    ) -> Result<(), ForwardError> {
        for (chunk, part) in work.iter().enumerate() {
            assert!(!part.tokens.contains(&u32::from(PANICS)));
            if part.tokens.contains(&u32::from(BREAKS)) {
                return Err(ForwardError::NotFinite { chunk, position: 0 });
            }
        }
        for (chunk, part) in work.iter_mut().enumerate() {
            part.cache.extend_from_slice(part.tokens);
            self.read.fetch_add(part.tokens.len(), Ordering::Relaxed);
            let Some(last) = part.cache.last().filter(|_| part.draw) else {
                continue;
            };
            let mut logits = vec![0.0; self.config.vocab];
            logits[next(*last) as usize] = 9.0;
            take(Scored {
                chunk,
                position: part.cache.len() - 1,
                hidden: &hidden(part.cache),
                logits: &logits,
            });
        }
        Ok(())
    }
}

/// A state that depends on everything that was read.
pub(super) fn hidden(read: &[u32]) -> [f32; 2] {
    let sum = (1..).zip(read).map(|(i, token)| i * token).sum::<u32>();
    [read.len() as f32, sum as f32]
}
