//! A model that says the next letter, and ends after `z`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use models::exact::OutOfBlocks;
use models::{ForwardError, ModelConfig, Scored};

use crate::language_model::{LanguageModel, Part};

/// Ends an answer; says nothing.
pub(super) const END: u32 = 256;

/// The model names this as its fault.
pub(super) const BREAKS: char = '!';

/// After this, the model gives no logits to draw from.
pub(super) const BARREN: char = '~';

/// The model panics on this.
pub(super) const PANICS: char = '?';

/// Reads bytes, says letters.
pub(super) struct Alphabet {
    config: ModelConfig,
    bytes: Vec<u8>,
    read: AtomicUsize,
    short: AtomicUsize,
    blocks: usize,
    free: Arc<AtomicUsize>,
}

/// A KV block: what was read. It counts itself out of the free ones.
pub(super) struct Page {
    tokens: Vec<u32>,
    free: Arc<AtomicUsize>,
}

impl Page {
    fn new(tokens: Vec<u32>, free: &Arc<AtomicUsize>) -> Self {
        free.fetch_sub(1, Ordering::Relaxed);
        let free = Arc::clone(free);
        Self { tokens, free }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self::new(self.tokens.clone(), &self.free)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Alphabet {
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            blocks,
            free: Arc::new(AtomicUsize::new(blocks)),
            config: ModelConfig {
                vocab: 257,
                context_tokens: 1000,
                bos: None,
                eos: vec![END],
            },
            bytes: (0..=255).collect(),
            read: AtomicUsize::new(0),
            short: AtomicUsize::new(0),
        }
    }

    /// Finds no blocks in so many steps from now on, whatever was planned.
    pub(super) fn run_short(&self, steps: usize) {
        self.short.store(steps, Ordering::Relaxed);
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
    const BLOCK_TOKENS: usize = BLOCK_TOKENS;
    type Block = Page;
    /// What was read so far, page by page.
    type Cache = Vec<Arc<Page>>;

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn kv_blocks(&self) -> usize {
        self.blocks
    }

    fn kv_free(&self) -> usize {
        self.free.load(Ordering::Relaxed)
    }

    fn cache_from(&self, prefix: Vec<Arc<Page>>) -> Vec<Arc<Page>> {
        assert!(prefix.iter().all(|page| page.tokens.len() == BLOCK_TOKENS));
        prefix
    }

    fn fork(&self, cache: &Vec<Arc<Page>>) -> Vec<Arc<Page>> {
        cache.clone()
    }

    fn blocks(cache: &Vec<Arc<Page>>) -> &[Arc<Page>] {
        cache
    }

    fn blocks_wanted(cache: &Vec<Arc<Page>>, tokens: usize) -> usize {
        let last = cache.last().filter(|page| page.tokens.len() < BLOCK_TOKENS);
        let room = last.map_or(0, |page| BLOCK_TOKENS - page.tokens.len());
        let copied = last.is_some_and(|page| Arc::strong_count(page) > 1);
        tokens.saturating_sub(room).div_ceil(BLOCK_TOKENS) + usize::from(copied)
    }

    fn text(&self, token: u32) -> &[u8] {
        self.bytes
            .get(token as usize)
            .map_or(&[], std::slice::from_ref)
    }

    fn forward(
        &self,
        work: &mut [Part<'_, Vec<Arc<Page>>>],
        take: &(dyn Fn(Scored<'_>) + Sync),
    ) -> Result<(), ForwardError> {
        for (chunk, part) in work.iter().enumerate() {
            assert!(!part.tokens.contains(&u32::from(PANICS)));
            if part.tokens.contains(&u32::from(BREAKS)) {
                return Err(ForwardError::NotFinite { chunk, position: 0 });
            }
        }
        let wants = |part: &Part<'_, _>| Self::blocks_wanted(part.cache, part.tokens.len());
        let (wanted, free) = (work.iter().map(wants).sum(), self.kv_free());
        let left = self.short.load(Ordering::Relaxed);
        self.short.store(left.saturating_sub(1), Ordering::Relaxed);
        if wanted > free || left > 0 {
            return Err(ForwardError::OutOfBlocks(OutOfBlocks { wanted, free }));
        }
        for (chunk, part) in work.iter_mut().enumerate() {
            part.tokens
                .iter()
                .for_each(|token| self.write(part.cache, *token));
            self.read.fetch_add(part.tokens.len(), Ordering::Relaxed);
            let read: Vec<u32> = part
                .cache
                .iter()
                .flat_map(|page| page.tokens.clone())
                .collect();
            let Some(last) = read.last().filter(|_| part.draw) else {
                continue;
            };
            let mut logits = vec![0.0; self.config.vocab];
            logits[next(*last) as usize] = match *last == u32::from(BARREN) {
                true => f32::NAN,
                false => 9.0,
            };
            take(Scored {
                chunk,
                position: read.len() - 1,
                hidden: &hidden(&read),
                logits: &logits,
            });
        }
        Ok(())
    }
}

impl Alphabet {
    fn write(&self, cache: &mut Vec<Arc<Page>>, token: u32) {
        match cache
            .last_mut()
            .filter(|page| page.tokens.len() < BLOCK_TOKENS)
        {
            Some(page) => Arc::make_mut(page).tokens.push(token),
            None => cache.push(Arc::new(Page::new(vec![token], &self.free))),
        }
    }
}

/// Small, so that short prompts fill some.
pub(super) const BLOCK_TOKENS: usize = 4;

/// A state that depends on everything that was read.
pub(super) fn hidden(read: &[u32]) -> [f32; 2] {
    let sum = (1..).zip(read).map(|(i, token)| i * token).sum::<u32>();
    [read.len() as f32, sum as f32]
}
