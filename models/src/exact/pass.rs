//! One pass of up to [`PASS_ROWS`](super::model::PASS_ROWS) rows through all
//! layers (spec 6).
//!
//! The machine that computes the model's definition (`crate::decoder`) exactly:
//! each operation of the spec is run for all rows by the whole team. Rows touch
//! each other only in attention, through keys and values written before.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::activations::{Activations, quantise};
use super::architecture::{Config, Gate, Pairing};
use super::attention::{self, Queries, attend};
use super::elementary::{f32_to_f16, sin_cos_f64};
use super::grid::Grid;
use super::kv::KvTable;
use super::level::Level;
use super::linear;
use super::memory::Floats;
use super::model::{ExactModel, PASS_ROWS, Scored};
use super::packed::Packed;
use super::rows;
use super::team::Team;
use crate::decoder::{self, Machine};

mod spread;

use spread::{Scratch, each_row, lock, multiply, spans};

/// One token at one position of one of the step's chunks.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Index of the chunk.
    pub chunk: usize,
    /// Position in its sequence.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Whether its hidden state and logits are wanted.
    pub wanted: bool,
}

/// Memory for a pass, kept from one to the next.
pub struct Workspace {
    level: Level,
    hidden: usize,
    /// The residual stream.
    stream: Floats,
    /// Output of a sub-layer that is normed before it joins the stream.
    branch: Floats,
    normed: Activations,
    /// Queries, keys and values, side by side.
    qkv: Floats,
    attended: Activations,
    /// Gate and up, side by side.
    gate_up: Floats,
    gated: Activations,
    logits: Floats,
    /// Cosines and sines of each row, for each rotary embedding.
    angles: Vec<Vec<f32>>,
    scratch: Vec<Mutex<Scratch>>,
}

/// Rows whose logits are computed together.
const LOGIT_ROWS: usize = 32;
impl Workspace {
    /// Memory for passes of a model.
    pub fn new(config: &Config, vocab: usize, level: Level, threads: usize) -> Self {
        let rows = PASS_ROWS;
        let (query, kv) = (config.query_width(), config.kv_width());
        let scratch = || {
            Mutex::new(Scratch {
                linear: linear::Scratch::new(rows),
                attention: attention::Scratch::default(),
            })
        };
        let angles = config.ropes.iter();
        Self {
            level,
            hidden: config.hidden,
            stream: Floats::zeroed(rows * config.hidden),
            branch: Floats::zeroed(rows * config.hidden),
            normed: Activations::new(rows, config.hidden),
            qkv: Floats::zeroed(rows * (query + 2 * kv)),
            attended: Activations::new(rows, query),
            gate_up: Floats::zeroed(rows * 2 * config.ffn),
            gated: Activations::new(rows, config.ffn),
            logits: Floats::zeroed(LOGIT_ROWS * vocab),
            angles: angles
                .map(|rope| vec![0.0; rows * 2 * rope.frequencies.len()])
                .collect(),
            scratch: (0..threads).map(|_| scratch()).collect(),
        }
    }

    /// Computes `rows` and shows the wanted ones to `take`; the error is a row
    /// that isn't finite.
    pub fn run(
        &mut self,
        model: &ExactModel,
        team: &mut Team,
        rows: &[Row],
        tables: &[KvTable],
        take: &mut Take,
    ) -> Result<(), Row> {
        let mut pass = Pass {
            model,
            team,
            tables,
            work: self,
            rows: rows.to_vec(),
            y: Register::Normed,
            take,
        };
        decoder::run(&mut pass, &model.weights)
    }
}

struct Pass<'a, 't> {
    model: &'a ExactModel,
    team: &'a mut Team,
    tables: &'a [KvTable<'a>],
    work: &'a mut Workspace,
    /// The rows that are still computed.
    rows: Vec<Row>,
    /// Where the last operation left its result.
    y: Register,
    take: &'a mut Take<'t>,
}

/// Who sees the rows that are wanted.
pub enum Take<'a> {
    /// One thread, one row after the other.
    InOrder(&'a mut dyn FnMut(Scored)),
    /// The team, several rows at a time.
    Anywhere(&'a (dyn Fn(Scored) + Sync)),
}

/// What a linear layer reads.
#[derive(Clone, Copy)]
enum Register {
    Normed,
    Attended,
    Gated,
}

impl Machine for Pass<'_, '_> {
    type Matrix = Packed;
    type Vector = Vec<f32>;
    /// A row that isn't finite.
    type Error = Row;

    fn embed(&mut self, embedding: &Packed) -> Result<(), Row> {
        let (level, hidden) = (self.work.level, self.work.hidden);
        let scale = self.model.config.embedding_scale;
        let stream = self.work.stream.chunks_exact_mut(hidden);
        for (row, stream) in self.rows.iter().zip(stream) {
            embedding.dequantise_row(row.token as usize, stream);
            if let Some(scale) = scale {
                rows::scale(level, stream, scale);
            }
        }
        self.turn();
        Ok(())
    }

    /// Norms the stream and quantises it for the next linear layer.
    fn norm(&mut self, weight: &Vec<f32>) -> Result<(), Row> {
        let Workspace {
            level,
            hidden,
            stream,
            normed,
            ..
        } = &mut *self.work;
        let (level, hidden, epsilon) = (*level, *hidden, self.model.config.epsilon);
        let (floats, blocks) = normed.parts_mut();
        let (floats, blocks) = (Grid::new(floats, hidden), Grid::new(blocks, hidden / 32));
        each_row(self.team, self.rows.len(), &|row, _| {
            // SAFETY: each row is one item's.
            let (floats, blocks) = unsafe { (floats.row(row), blocks.row(row)) };
            let stream = &stream[row * hidden..][..hidden];
            rows::rms_norm(level, stream, weight, epsilon, floats);
            quantise(level, floats, blocks);
        });
        self.y = Register::Normed;
        Ok(())
    }

    fn project(&mut self, [query, key, value]: [&Packed; 3]) -> Result<(), Row> {
        let parts = [
            (query, 0),
            (key, query.outputs()),
            (value, query.outputs() + key.outputs()),
        ];
        self.linear(Target::Qkv, &parts);
        Ok(())
    }

    fn place(
        &mut self,
        index: usize,
        query_norm: Option<&Vec<f32>>,
        key_norm: Option<&Vec<f32>>,
    ) -> Result<(), Row> {
        let config = &self.model.config;
        let (dim, level) = (config.head_dim, self.work.level);
        let (query, kv) = (config.query_width(), config.kv_width());
        let rope = config.layers[index].rope;
        let angles = &self.work.angles[rope];
        let pairing = config.ropes[rope].pairing;
        let pairs = config.ropes[rope].frequencies.len();
        let rotate = |head: &mut [f32], row: usize| {
            let (cos, sin) = angles[row * 2 * pairs..][..2 * pairs].split_at(pairs);
            match pairing {
                Pairing::Adjacent => rows::rotate_adjacent(level, head, cos, sin),
                Pairing::Halves => rows::rotate_halves(level, head, cos, sin),
            }
        };
        let grid = Grid::new(&mut self.work.qkv, query + 2 * kv);
        let (tables, rows) = (self.tables, &self.rows);
        each_row(self.team, rows.len(), &|row, _| {
            // SAFETY: each row is one item's.
            let (queries, rest) = unsafe { grid.row(row) }.split_at_mut(query);
            for head in queries.chunks_exact_mut(dim) {
                if let Some(weight) = query_norm {
                    rows::rms_norm_in_place(level, head, weight, config.epsilon);
                }
                rotate(head, row);
                rows::scale(level, head, config.attention_scale);
            }
            let (keys, values) = rest.split_at_mut(kv);
            let heads = keys.chunks_exact_mut(dim).zip(values.chunks_exact(dim));
            for (head, (key, value)) in heads.enumerate() {
                if let Some(weight) = key_norm {
                    rows::rms_norm_in_place(level, key, weight, config.epsilon);
                }
                rotate(key, row);
                let table = &tables[rows[row].chunk];
                let key = key.iter().map(|x| f32_to_f16(*x));
                let value = value.iter().map(|x| f32_to_f16(*x));
                // SAFETY: `Chunk`s reserve their positions, a position is one
                // row of one chunk, and attention reads after this run.
                unsafe { table.write(rows[row].position, index, head, key, value) };
            }
        });
        Ok(())
    }

    /// Moves the wanted rows' queries and stream to the front. NaN and infinity
    /// never leave the stream, so one look at it, now, finds the others' too.
    fn narrow(&mut self) -> Result<(), Row> {
        let config = &self.model.config;
        let width = config.query_width() + 2 * config.kv_width();
        let hidden = self.work.hidden;
        let stream = self.work.stream.chunks_exact(hidden);
        let mut streams = self.rows.iter().zip(stream);
        if let Some((row, _)) = streams.find(|(_, x)| !rows::all_finite(x)) {
            return Err(*row);
        }
        let wanted = (0..self.rows.len()).filter(|row| self.rows[*row].wanted);
        for (to, from) in wanted.enumerate().filter(|(to, from)| to != from) {
            let qkv = from * width..from * width + config.query_width();
            self.work.qkv.copy_within(qkv, to * width);
            let stream = from * hidden..(from + 1) * hidden;
            self.work.stream.copy_within(stream, to * hidden);
        }
        self.rows.retain(|row| row.wanted);
        Ok(())
    }

    fn attention(&mut self, index: usize) -> Result<(), Row> {
        let rows = &self.rows;
        let config = &self.model.config;
        let (dim, level) = (config.head_dim, self.work.level);
        let query = config.query_width();
        let width = query + 2 * config.kv_width();
        let per_head = query / config.kv_heads;
        let spans = spans(rows);
        let qkv = &self.work.qkv;
        let (floats, blocks) = self.work.attended.parts_mut();
        let floats = Grid::new(floats, query);
        let (tables, scratch) = (self.tables, &self.work.scratch);
        self.team
            .run(spans.len() * config.kv_heads, &|item, worker| {
                // Late rows see most, so they go first.
                let span = spans[spans.len() - 1 - item / config.kv_heads].clone();
                let head = item % config.kv_heads;
                let columns = head * per_head..(head + 1) * per_head;
                let queries: Vec<&[f32]> = span
                    .clone()
                    .map(|row| &qkv[row * width..][columns.clone()])
                    .collect();
                let mut out: Vec<&mut [f32]> = span
                    .clone()
                    // SAFETY: rows of a span and columns of a head are one item's.
                    .map(|row| unsafe { floats.part(row, columns.clone()) })
                    .collect();
                let queries = Queries {
                    rows: &queries,
                    position: rows[span.start].position,
                    window: config.layers[index].window,
                    cap: config.attention_cap,
                    head_dim: dim,
                };
                let table = &tables[rows[span.start].chunk];
                let mut scratch = lock(&scratch[worker]);
                let scratch = &mut scratch.attention;
                attend(level, &queries, table, index, head, scratch, &mut out);
            });
        let blocks = Grid::new(blocks, query / 32);
        each_row(self.team, rows.len(), &|row, _| {
            // SAFETY: each row is one item's, and attention is over.
            let (floats, blocks) = unsafe { (floats.row(row), blocks.row(row)) };
            quantise(level, floats, blocks);
        });
        self.y = Register::Attended;
        Ok(())
    }

    fn gate(&mut self, gate: &Packed, up: &Packed) -> Result<(), Row> {
        self.linear(Target::GateUp, &[(gate, 0), (up, gate.outputs())]);
        let config = &self.model.config;
        let (level, ffn, gate) = (self.work.level, config.ffn, config.gate);
        let gate_up = &self.work.gate_up;
        let (floats, blocks) = self.work.gated.parts_mut();
        let (floats, blocks) = (Grid::new(floats, ffn), Grid::new(blocks, ffn / 32));
        each_row(self.team, self.rows.len(), &|row, _| {
            // SAFETY: each row is one item's.
            let (floats, blocks) = unsafe { (floats.row(row), blocks.row(row)) };
            let (gates, ups) = gate_up[row * 2 * ffn..][..2 * ffn].split_at(ffn);
            match gate {
                Gate::Silu => rows::swiglu(level, gates, ups, floats),
                Gate::Gelu => rows::geglu(level, gates, ups, floats),
            }
            quantise(level, floats, blocks);
        });
        self.y = Register::Gated;
        Ok(())
    }

    fn join(&mut self, matrix: &Packed, norm: Option<&Vec<f32>>) -> Result<(), Row> {
        let Some(norm) = norm else {
            self.linear(Target::Stream, &[(matrix, 0)]);
            return Ok(());
        };
        self.linear(Target::Branch, &[(matrix, 0)]);
        let (level, hidden) = (self.work.level, self.work.hidden);
        let epsilon = self.model.config.epsilon;
        let stream = Grid::new(&mut self.work.stream, hidden);
        let branch = Grid::new(&mut self.work.branch, hidden);
        each_row(self.team, self.rows.len(), &|row, _| {
            // SAFETY: each row is one item's.
            let (stream, branch) = unsafe { (stream.row(row), branch.row(row)) };
            rows::rms_norm_in_place(level, branch, norm, epsilon);
            rows::add(level, stream, branch);
        });
        Ok(())
    }

    fn head(&mut self, matrix: &Packed) -> Result<(), Row> {
        let rows = &self.rows;
        let work = &mut *self.work;
        let vocab = matrix.outputs();
        let cap = self.model.config.logit_cap;
        let parts = [(matrix, 0)];
        for first in (0..rows.len()).step_by(LOGIT_ROWS) {
            let range = first..usize::min(first + LOGIT_ROWS, rows.len());
            let logits = Grid::new(&mut work.logits, vocab);
            multiply(
                self.team,
                work.level,
                &work.scratch,
                &parts,
                &work.normed,
                range.clone(),
                &logits,
                false,
            );
            let normed = &work.normed;
            let scored = |index: usize| {
                // SAFETY: each row is looked at once, and `multiply` is done.
                let logits = unsafe { logits.row(index) };
                if let Some(cap) = cap {
                    rows::soft_cap(work.level, logits, cap);
                }
                let row = &rows[first + index];
                let hidden = normed.floats(first + index);
                let finite = rows::all_finite(hidden) && rows::all_finite(logits);
                finite.then_some(Scored {
                    chunk: row.chunk,
                    position: row.position,
                    hidden,
                    logits,
                })
            };
            match &mut *self.take {
                Take::InOrder(take) => {
                    for index in 0..range.len() {
                        take(scored(index).ok_or(rows[first + index])?);
                    }
                }
                Take::Anywhere(take) => {
                    let bad = AtomicUsize::new(usize::MAX);
                    self.team.run(range.len(), &|index, _| match scored(index) {
                        Some(scored) => take(scored),
                        None => _ = bad.fetch_min(index, Ordering::Relaxed),
                    });
                    if let Some(row) = rows[range].get(bad.into_inner()) {
                        return Err(*row);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    /// Cosines and sines of the rows' positions (spec 5.3).
    fn turn(&mut self) {
        let rows = &self.rows;
        for (rope, angles) in self.model.config.ropes.iter().zip(&mut self.work.angles) {
            let pairs = rope.frequencies.len();
            let grid = Grid::new(angles, 2 * pairs);
            each_row(self.team, rows.len(), &|row, _| {
                // SAFETY: each row is one item's.
                let (cosines, sines) = unsafe { grid.row(row) }.split_at_mut(pairs);
                let outs = cosines.iter_mut().zip(sines);
                for (frequency, (cosine, sine)) in rope.frequencies.iter().zip(outs) {
                    let (s, c) = sin_cos_f64(rows[row].position as f64 * frequency);
                    (*cosine, *sine) = (c as f32, s as f32);
                }
            });
        }
    }

    /// Linear layers of y; each writes from its column on.
    fn linear(&mut self, target: Target, parts: &[(&Packed, usize)]) {
        let config = &self.model.config;
        let work = &mut *self.work;
        let x = match self.y {
            Register::Normed => &work.normed,
            Register::Attended => &work.attended,
            Register::Gated => &work.gated,
        };
        let (cells, columns, add) = match target {
            Target::Qkv => {
                let width = config.query_width() + 2 * config.kv_width();
                (&mut work.qkv, width, false)
            }
            Target::GateUp => (&mut work.gate_up, 2 * config.ffn, false),
            Target::Stream => (&mut work.stream, config.hidden, true),
            Target::Branch => (&mut work.branch, config.hidden, false),
        };
        let out = Grid::new(cells, columns);
        multiply(
            self.team,
            work.level,
            &work.scratch,
            parts,
            x,
            0..self.rows.len(),
            &out,
            add,
        );
    }
}

/// Where a linear layer's outputs go.
enum Target {
    Qkv,
    GateUp,
    /// Added to what is there.
    Stream,
    Branch,
}
