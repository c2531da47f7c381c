//! Many sequences in one step, as the engine runs them: some read their
//! prompt, some decode, and some come to a sudden end.

use models::exact::{Chunk, ExactModel, KvCache, Want};

use super::compare::Comparison;

/// What happens to neighbours on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// Nothing: every sequence comes to its end.
    None,
    /// Some are dropped half-way, and never finish.
    Cancel,
    /// Some lose their keys, and compute them again.
    Preempt,
}

/// A sequence on its way through a window.
struct Running {
    window: usize,
    cache: KvCache,
    /// Where it is dropped or preempted, if it is.
    fate: Option<usize>,
}

/// Sizes of chunks: single tokens (decode), and parts of a prompt.
const SIZES: [usize; 7] = [1, 5, 1, 33, 1, 70, 2];

/// Runs the windows, `count` at a time. Windows are repeated until there are
/// enough; with cancellations, each comes once more for one that was dropped.
pub fn side_by_side(
    model: &ExactModel,
    windows: &[Vec<u32>],
    count: usize,
    events: Events,
    seen: &mut Comparison,
) -> anyhow::Result<()> {
    let mut waiting = waiting(windows, count, events).into_iter();
    let mut slots: Vec<Option<Running>> = (0..count).map(|_| None).collect();
    for step in 0.. {
        for slot in &mut slots {
            if slot.is_none()
                && let Some((window, fate)) = waiting.next()
            {
                let cache = model.new_cache();
                *slot = Some(Running {
                    window,
                    cache,
                    fate,
                });
            }
        }
        if slots.iter().all(Option::is_none) {
            return Ok(());
        }
        advance(model, windows, &mut slots, step, seen)?;
        for slot in &mut slots {
            settle(model, windows, slot, events);
        }
        // Sequences change places, and so do their rows.
        slots.rotate_left(1);
    }
    unreachable!("steps don't end")
}

/// The windows in order, each with its fate.
fn waiting(windows: &[Vec<u32>], count: usize, events: Events) -> Vec<(usize, Option<usize>)> {
    let runs = usize::max(windows.len(), count);
    let mut all = Vec::new();
    for run in 0..runs {
        let window = run % windows.len();
        let fate = windows[window].len() * (1 + run % 3) / 4;
        match events {
            Events::None => all.push((window, None)),
            Events::Cancel => all.extend([(window, Some(fate)), (window, None)]),
            Events::Preempt => all.push((window, (run % 2 == 0).then_some(fate))),
        }
    }
    all
}

/// One step of all sequences.
fn advance(
    model: &ExactModel,
    windows: &[Vec<u32>],
    slots: &mut [Option<Running>],
    step: usize,
    seen: &mut Comparison,
) -> anyhow::Result<()> {
    let mut work = Vec::new();
    let mut places = Vec::new();
    for (slot, running) in slots.iter_mut().enumerate() {
        let Some(Running { window, cache, .. }) = running else {
            continue;
        };
        let rest = &windows[*window][cache.len()..];
        let size = SIZES[(step + 3 * slot) % SIZES.len()];
        places.push(*window);
        work.push(Chunk {
            tokens: &rest[..usize::min(size, rest.len())],
            cache,
            logits: Want::All,
        });
    }
    model.forward_each(&mut work, &mut |row| {
        seen.see(places[row.chunk], row.position, row.hidden, row.logits);
    })?;
    Ok(())
}

/// Ends, drops or preempts a sequence whose time has come.
fn settle(model: &ExactModel, windows: &[Vec<u32>], slot: &mut Option<Running>, events: Events) {
    let Some(running) = slot else { return };
    let at = running.cache.len();
    if at == windows[running.window].len() {
        *slot = None;
    } else if running.fate.is_some_and(|fate| at >= fate) {
        match events {
            Events::Cancel => *slot = None,
            Events::Preempt | Events::None => {
                running.cache = model.new_cache();
                running.fate = None;
            }
        }
    }
}
