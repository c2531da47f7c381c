//! Ways to compute the same windows.

use models::exact::{Chunk, ExactModel, KvCache, POSITIONS, Want};

use super::compare::Comparison;
use super::neighbours::{Events, side_by_side};

/// One way.
pub enum Way {
    /// Each window alone, in chunks of so many tokens.
    Chunks(usize),
    /// So many windows at a time, in chunks of all sizes, each step in another
    /// order; only so many tokens of each window.
    Among(usize, usize),
    /// From blocks of keys and values that an earlier sequence left.
    Prefix,
    /// Beside sequences that end early, whose blocks others take over.
    Cancelled,
    /// With sequences whose keys are thrown away and computed again.
    Preempted,
}

impl Way {
    /// Computes the windows, and shows every row.
    pub fn run(
        &self,
        model: &ExactModel,
        windows: &[Vec<u32>],
        seen: &mut Comparison,
    ) -> anyhow::Result<()> {
        match self {
            Self::Chunks(size) => {
                for (index, tokens) in windows.iter().enumerate() {
                    let mut cache = model.new_cache();
                    append(model, &mut cache, tokens, *size, Some((index, seen)))?;
                }
                Ok(())
            }
            Self::Prefix => prefixes(model, windows, seen),
            Self::Among(count, longest) => {
                let cut = |tokens: &Vec<u32>| tokens[..usize::min(tokens.len(), *longest)].to_vec();
                let windows: Vec<_> = windows.iter().map(cut).collect();
                side_by_side(model, &windows, *count, Events::None, seen)
            }
            Self::Cancelled => side_by_side(model, windows, 6, Events::Cancel, seen),
            Self::Preempted => side_by_side(model, windows, 6, Events::Preempt, seen),
        }
    }
}

/// Appends tokens in chunks, and shows the rows, if somebody wants to see them.
fn append(
    model: &ExactModel,
    cache: &mut KvCache,
    tokens: &[u32],
    size: usize,
    mut seen: Option<(usize, &mut Comparison)>,
) -> anyhow::Result<()> {
    for tokens in tokens.chunks(size) {
        let logits = match seen {
            Some(_) => Want::All,
            None => Want::No,
        };
        let mut work = [Chunk {
            cache,
            tokens,
            logits,
        }];
        model.forward_each(&mut work, &mut |row| {
            if let Some((window, seen)) = &mut seen {
                seen.see(*window, row.position, row.hidden, row.logits);
            }
        })?;
    }
    Ok(())
}

/// Each window twice: after one block of an earlier sequence, and after half
/// of its blocks. The earlier sequence computed them in other chunks and is gone.
fn prefixes(model: &ExactModel, windows: &[Vec<u32>], seen: &mut Comparison) -> anyhow::Result<()> {
    for (index, tokens) in windows.iter().enumerate() {
        let whole = (tokens.len() - 1) / POSITIONS;
        for blocks in [1, whole / 2] {
            if blocks == 0 || blocks > whole {
                continue;
            }
            let mut earlier = model.new_cache();
            append(model, &mut earlier, tokens, 61, None)?;
            let kept = earlier.blocks()[..blocks].to_vec();
            drop(earlier);
            let mut cache = model.pool().cache_from(kept);
            let rest = &tokens[cache.len()..];
            append(model, &mut cache, rest, 49, Some((index, seen)))?;
        }
    }
    Ok(())
}
