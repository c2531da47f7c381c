//! How an operation's work is cut into items, and handed to the team.

use std::ops::Range;
use std::sync::Mutex;

use super::Row;
use crate::exact::activations::Activations;
use crate::exact::grid::Grid;
use crate::exact::level::Level;
use crate::exact::linear::multiply_group;
use crate::exact::packed::{LANES, Packed};
use crate::exact::team::Team;
use crate::exact::{attention, linear};

/// One worker's memory.
pub struct Scratch {
    /// For linear layers.
    pub linear: linear::Scratch,
    /// For attention.
    pub attention: attention::Scratch,
}

/// Query rows that walk a head's keys together.
const ATTENTION_ROWS: usize = 8;

/// Some matrices times rows `range` of `x`, into the first rows of `out`.
#[allow(clippy::too_many_arguments, reason = "plain borrows of a workspace")]
pub fn multiply(
    team: &mut Team,
    level: Level,
    scratch: &[Mutex<Scratch>],
    parts: &[(&Packed, usize)],
    x: &Activations,
    range: Range<usize>,
    out: &Grid<f32>,
    add: bool,
) {
    if range.is_empty() {
        return;
    }
    let groups: usize = parts.iter().map(|(matrix, _)| matrix.groups()).sum();
    // Few rows: items of some groups, so that taking them costs little.
    let grain = match range.len() {
        0..=7 => usize::max(1, groups / (8 * team.threads())),
        _ => 1,
    };
    team.run(groups.div_ceil(grain), &|item, worker| {
        let mut scratch = lock(&scratch[worker]);
        for index in item * grain..usize::min((item + 1) * grain, groups) {
            let (matrix, group, column) = locate(parts, index);
            let first = column + group * LANES;
            let width = usize::min(LANES, matrix.outputs() - group * LANES);
            let take = |row: usize, sums: &[f32; LANES]| {
                // SAFETY: these columns are this item's.
                let cells = unsafe { out.part(row - range.start, first..first + width) };
                // A whole group is a register, not a loop.
                if let Some(cells) = cells.first_chunk_mut::<LANES>() {
                    let (old, sums) = (*cells, *sums);
                    *cells = match add {
                        true => std::array::from_fn(|lane| old[lane] + sums[lane]),
                        false => sums,
                    };
                } else if add {
                    cells.iter_mut().zip(sums).for_each(|(x, y)| *x += y);
                } else {
                    cells.copy_from_slice(&sums[..width]);
                }
            };
            multiply_group(
                level,
                matrix,
                group,
                x,
                range.clone(),
                &mut scratch.linear,
                take,
            );
        }
    });
}

/// The matrix that the `index`-th group of all matrices belongs to, the group
/// in it, and the matrix's column.
fn locate<'a>(parts: &[(&'a Packed, usize)], mut index: usize) -> (&'a Packed, usize, usize) {
    for (matrix, column) in parts {
        if index < matrix.groups() {
            return (matrix, index, *column);
        }
        index -= matrix.groups();
    }
    unreachable!("an item is a group of one of the matrices")
}

/// Runs `job(row, worker)` for every row; a few aren't worth waking the team.
pub fn each_row(team: &mut Team, rows: usize, job: &(dyn Fn(usize, usize) + Sync)) {
    const TOGETHER: usize = 4;
    if rows <= TOGETHER {
        (0..rows).for_each(|row| job(row, 0));
        return;
    }
    team.run(rows.div_ceil(TOGETHER), &|item, worker| {
        let end = usize::min((item + 1) * TOGETHER, rows);
        (item * TOGETHER..end).for_each(|row| job(row, worker));
    });
}

/// Runs of consecutive positions of one chunk, at most [`ATTENTION_ROWS`] long.
pub fn spans(rows: &[Row]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match spans.last_mut() {
            Some(span)
                if span.len() < ATTENTION_ROWS
                    && rows[span.start].chunk == row.chunk
                    && rows[span.start].position + span.len() == row.position =>
            {
                span.end = index + 1;
            }
            _ => spans.push(index..index + 1),
        }
    }
    spans
}

/// A worker's own memory; never waited for, since workers don't share it.
pub fn lock(scratch: &Mutex<Scratch>) -> std::sync::MutexGuard<'_, Scratch> {
    scratch
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
