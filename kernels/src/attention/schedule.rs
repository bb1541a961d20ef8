//! Cuts a step into units, runs them on the pool and merges partial results.
//!
//! A job is the queries of one tile of tokens under one key head. Jobs are shared out over threads; when they are few
//! and look far back (a decode of one long sequence), their splits are shared out instead. Both ways give the same
//! bits, because the splits and the order of merging are fixed by position.

use std::ops::Range;

use super::{
    AttentionSeq, AttentionSpec, KvCache, Partial, PartialAttention, SCORE_STRIDE, SPLIT, Stretch,
    Unit,
};
use crate::pool::{SharedMut, ThreadPool};
use crate::rows::Rows;

/// Packed queries of a job, unless one token's group is larger: with 64 values per head, the queries, sums and
/// scores of 32 rows and one tile of keys and values fill about a first-level cache.
const MAX_ROWS: usize = 32;

/// Multiplications below which a step stays on the calling thread: some microseconds, of which a fork and a join
/// would save half and take one or two.
const PARALLEL_WORK: usize = 128 * 1024;

/// Splits of one step that may be kept apart for merging; beyond, jobs run their splits one after the other.
const MAX_APART: usize = 1024;

/// Operands of one call.
pub(super) struct Step<'a> {
    pub(super) spec: &'a AttentionSpec,
    pub(super) q: Rows<'a>,
    pub(super) cache: &'a KvCache,
    pub(super) seqs: &'a [AttentionSeq],
    pub(super) block_tables: &'a [u32],
}

/// Consecutive queries of one sequence.
#[derive(Clone, Copy, Debug)]
struct Tile {
    seq: usize,
    /// Row of the first query in `q`.
    first_row: usize,
    tokens: usize,
    /// Position of the first query.
    position: usize,
    /// Splits that hold a visible key.
    first_split: usize,
    splits: usize,
    /// Splits of the tiles before.
    splits_before: usize,
}

/// Working memory of [`paged_attention`](super::paged_attention), reused from step to step.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    tiles: Vec<Tile>,
    /// One [`Worker`] per thread.
    workers: Vec<f32>,
    /// Partial results kept apart: `[split of a job, rows * (width + 2)]`.
    apart: Vec<f32>,
}

impl AttentionScratch {
    /// Memory for steps of up to `max_tokens` queries in up to `max_sequences` sequences: nothing grows later.
    /// Layers of several shapes can share a scratch made for the largest.
    pub fn with_capacity(
        spec: &AttentionSpec,
        threads: usize,
        max_tokens: usize,
        max_sequences: usize,
    ) -> Self {
        let sizes = Sizes::new(spec);
        Self {
            tiles: Vec::with_capacity(max_tokens / sizes.tokens_per_tile + max_sequences),
            workers: vec![0.0; threads * sizes.worker()],
            apart: vec![0.0; if threads > 1 { MAX_APART * sizes.decode_state() } else { 0 }],
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.tiles.capacity() * size_of::<Tile>()
            + (self.workers.len() + self.apart.len()) * size_of::<f32>()
    }
}

/// Lengths in floats.
#[derive(Clone, Copy)]
struct Sizes {
    group: usize,
    tokens_per_tile: usize,
    /// Largest number of packed queries.
    rows: usize,
    /// Row of packed queries and sums: `head_dim` padded to whole vectors.
    width: usize,
}

impl Sizes {
    fn new(spec: &AttentionSpec) -> Self {
        let group = spec.group();
        let tokens_per_tile = (MAX_ROWS / group).max(1);
        let width = spec.head_dim.next_multiple_of(16);
        Self { group, tokens_per_tile, rows: group * tokens_per_tile, width }
    }

    /// A partial result of `rows` rows: sums, maxima and totals.
    fn state(&self, rows: usize) -> usize {
        rows * (self.width + 2)
    }

    /// The partial result of one token.
    fn decode_state(&self) -> usize {
        self.state(self.group)
    }

    /// Packed queries, scores, factors, the partial result of a split and the merged one.
    fn worker(&self) -> usize {
        self.rows * (self.width + SCORE_STRIDE + 1) + 2 * self.state(self.rows)
    }
}

/// A thread's part of the scratch.
struct Worker<'a> {
    q: &'a mut [f32],
    scores: &'a mut [f32],
    rescale: &'a mut [f32],
    split: &'a mut [f32],
    merged: &'a mut [f32],
}

impl<'a> Worker<'a> {
    fn new(sizes: &Sizes, memory: &'a mut [f32]) -> Self {
        let (q, memory) = memory.split_at_mut(sizes.rows * sizes.width);
        let (scores, memory) = memory.split_at_mut(sizes.rows * SCORE_STRIDE);
        let (rescale, memory) = memory.split_at_mut(sizes.rows);
        let (split, merged) = memory.split_at_mut(sizes.state(sizes.rows));
        Self { q, scores, rescale, split, merged }
    }
}

/// A partial result taken apart: largest scores, sums, sums of values.
fn parts(state: &mut [f32], rows: usize) -> (&mut [f32], &mut [f32], &mut [f32]) {
    let (max, rest) = state.split_at_mut(rows);
    let (sum, out) = rest.split_at_mut(rows);
    (max, sum, out)
}

/// What a thread reads after a split.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    /// End of the positions of the same sequence.
    end: usize,
    /// The job that comes after it.
    next: Option<&'a (Tile, usize)>,
}

/// Everything that is the same for all jobs of a step.
struct Context<'a> {
    run: PartialAttention,
    step: &'a Step<'a>,
    sizes: Sizes,
    tiles: &'a [Tile],
    /// Whether the work is worth a fork and a join.
    parallel: bool,
    out: SharedMut<'a, f32>,
}

pub(super) fn run(
    pool: &ThreadPool,
    run: PartialAttention,
    step: &Step<'_>,
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let sizes = Sizes::new(step.spec);
    let work = plan(step, &sizes, &mut scratch.tiles);
    let Some(last) = scratch.tiles.last() else { return };
    let jobs = scratch.tiles.len() * step.spec.kv_heads;
    let splits = (last.splits_before + last.splits) * step.spec.kv_heads;
    let parallel = work >= PARALLEL_WORK;
    let threads = if parallel { pool.threads() } else { 1 };
    let largest = scratch.tiles.iter().map(|tile| tile.tokens).max().unwrap_or(0) * sizes.group;
    let apart = threads > 1 && jobs < 4 * threads && splits > jobs && {
        splits * sizes.state(largest) <= MAX_APART * sizes.decode_state()
    };
    grow(&mut scratch.workers, threads * sizes.worker());
    let (tiles, out) = (&scratch.tiles, SharedMut::new(out));
    let context = Context { run, step, sizes, tiles, parallel, out };
    if apart {
        let stride = sizes.state(largest);
        grow(&mut scratch.apart, splits * stride);
        context.run_splits(pool, splits, stride, &mut scratch.workers, &mut scratch.apart);
    } else {
        context.run_jobs(pool, jobs, &mut scratch.workers);
    }
}

fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// Lists the tiles and returns the multiplications of all scores.
fn plan(step: &Step<'_>, sizes: &Sizes, tiles: &mut Vec<Tile>) -> usize {
    tiles.clear();
    let (mut splits_before, mut work) = (0, 0usize);
    for (index, seq) in step.seqs.iter().enumerate() {
        let query_len = seq.query_len as usize;
        for first in (0..query_len).step_by(sizes.tokens_per_tile) {
            let tokens = sizes.tokens_per_tile.min(query_len - first);
            let position = seq.position as usize + first;
            let visible = step.spec.visible(position).start..position + tokens;
            let first_split = visible.start / SPLIT;
            let splits = visible.end.div_ceil(SPLIT) - first_split;
            let first_row = seq.query_start as usize + first;
            tiles.push(Tile {
                seq: index,
                first_row,
                tokens,
                position,
                first_split,
                splits,
                splits_before,
            });
            splits_before += splits;
            work = work.saturating_add(tokens * visible.len() * step.spec.heads * sizes.width);
        }
    }
    work
}

impl Context<'_> {
    /// Each job runs its splits in order and writes its rows of `out`.
    fn run_jobs(&self, pool: &ThreadPool, jobs: usize, workers: &mut [f32]) {
        self.share_out(pool, jobs, workers, &|job, worker| {
            let (tile, head) = self.job(job);
            let next = (job + 1 < jobs).then(|| self.job(job + 1));
            let ahead = Ahead { end: tile.position + tile.tokens, next: next.as_ref() };
            let rows = tile.tokens * self.sizes.group;
            self.pack(&tile, head, worker.q);
            let state = self.sizes.state(rows);
            clear(&mut worker.merged[..state], rows);
            for split in 0..tile.splits {
                self.run_split((&tile, head), split, ahead, worker);
                merge(&mut worker.merged[..state], &mut worker.split[..state], rows);
            }
            self.write(&tile, head, &mut worker.merged[..state]);
        });
    }

    /// Every split of every job on its own, then the merges.
    fn run_splits(
        &self,
        pool: &ThreadPool,
        splits: usize,
        stride: usize,
        workers: &mut [f32],
        apart: &mut [f32],
    ) {
        let heads = self.step.spec.kv_heads;
        let shared = SharedMut::new(apart);
        self.share_out(pool, splits, workers, &|index, worker| {
            let (split_of_all, head) = (index / heads, index % heads);
            let after = self.tiles.partition_point(|tile| tile.splits_before <= split_of_all);
            let tile = self.tiles[after - 1];
            let state = self.sizes.state(tile.tokens * self.sizes.group);
            self.pack(&tile, head, worker.q);
            let split = split_of_all - tile.splits_before;
            // The next split is probably another thread's.
            let end = (tile.first_split + split + 1) * SPLIT;
            let ahead = Ahead { end: end.min(tile.position + tile.tokens), next: None };
            self.run_split((&tile, head), split, ahead, worker);
            // SAFETY: each index has a place of its own, and is handed out once.
            let place = unsafe { shared.slice(index * stride..index * stride + state) };
            place.copy_from_slice(&worker.split[..state]);
        });
        let jobs = self.tiles.len() * heads;
        self.share_out(pool, jobs, workers, &|job, worker| {
            let (tile, head) = self.job(job);
            let rows = tile.tokens * self.sizes.group;
            let state = self.sizes.state(rows);
            clear(&mut worker.merged[..state], rows);
            for split in tile.splits_before..tile.splits_before + tile.splits {
                let start = (split * heads + head) * stride;
                // SAFETY: each split belongs to one job, and is handed out once.
                let part = unsafe { shared.slice(start..start + state) };
                merge(&mut worker.merged[..state], part, rows);
            }
            self.write(&tile, head, &mut worker.merged[..state]);
        });
    }

    /// Calls `body(index, worker)` for `0..count`; each thread has one worker.
    fn share_out(
        &self,
        pool: &ThreadPool,
        count: usize,
        workers: &mut [f32],
        body: &(dyn Fn(usize, &mut Worker<'_>) + Sync),
    ) {
        let size = self.sizes.worker();
        let workers = SharedMut::new(workers);
        let one = |thread: usize, index: usize| {
            // SAFETY: each thread has a range of its own, and runs one part at a time.
            let memory = unsafe { workers.slice(thread * size..(thread + 1) * size) };
            body(index, &mut Worker::new(&self.sizes, memory));
        };
        if self.parallel {
            pool.run_on(count, &one);
        } else {
            (0..count).for_each(|index| one(0, index));
        }
    }

    fn job(&self, job: usize) -> (Tile, usize) {
        let heads = self.step.spec.kv_heads;
        (self.tiles[job / heads], job % heads)
    }

    /// Columns of the group's heads in a row of `q` or `out`.
    fn columns(&self, kv_head: usize) -> Range<usize> {
        let group = self.sizes.group * self.step.spec.head_dim;
        kv_head * group..(kv_head + 1) * group
    }

    /// Copies the tile's queries under a key head into rows `[token, head of the group]`, scaled and padded with 0.
    fn pack(&self, tile: &Tile, kv_head: usize, q: &mut [f32]) {
        let spec = self.step.spec;
        let mut rows = q.chunks_exact_mut(self.sizes.width);
        for token in 0..tile.tokens {
            let from = &self.step.q.row(tile.first_row + token)[self.columns(kv_head)];
            for (from, to) in from.chunks_exact(spec.head_dim).zip(&mut rows) {
                let (values, padding) = to.split_at_mut(spec.head_dim);
                values.iter_mut().zip(from).for_each(|(to, from)| *to = from * spec.scale);
                padding.fill(0.0);
            }
        }
    }

    /// The blocks of a tile's sequence.
    fn table(&self, tile: &Tile) -> &[u32] {
        let seq = &self.step.seqs[tile.seq];
        &self.step.block_tables[seq.table_start as usize..][..seq.table_len as usize]
    }

    /// Computes a split of the keys of a job.
    fn run_split(
        &self,
        (tile, kv_head): (&Tile, usize),
        split: usize,
        ahead: Ahead<'_>,
        worker: &mut Worker<'_>,
    ) {
        let rows = tile.tokens * self.sizes.group;
        let start = (tile.first_split + split) * SPLIT;
        let unit = Unit {
            spec: self.step.spec,
            cache: self.step.cache,
            table: self.table(tile),
            kv_head,
            position: tile.position,
            rows,
            split: start..start + SPLIT,
            end: ahead.end,
            next: ahead.next.map(|(tile, kv_head)| Stretch {
                table: self.table(tile),
                kv_head: *kv_head,
                positions: self.step.spec.visible(tile.position).start..tile.position + tile.tokens,
            }),
        };
        let (max, sum, out) = parts(&mut worker.split[..self.sizes.state(rows)], rows);
        let (scores, rescale) = (&mut *worker.scores, &mut *worker.rescale);
        (self.run)(&unit, &mut Partial { q: worker.q, scores, rescale, max, sum, out });
    }

    /// Divides the sums of values by the sums of weights.
    fn write(&self, tile: &Tile, kv_head: usize, state: &mut [f32]) {
        let spec = self.step.spec;
        let (_, sum, values) = parts(state, tile.tokens * self.sizes.group);
        let mut rows = values.chunks_exact(self.sizes.width).zip(sum);
        for token in 0..tile.tokens {
            let row = (tile.first_row + token) * spec.heads * spec.head_dim;
            let columns = self.columns(kv_head);
            // SAFETY: a tile's rows belong to no other tile (checked at the entry), a head's columns to no other head.
            let out = unsafe { self.out.slice(row + columns.start..row + columns.end) };
            for (out, (values, sum)) in out.chunks_exact_mut(spec.head_dim).zip(&mut rows) {
                let factor = 1.0 / *sum;
                out.iter_mut().zip(values).for_each(|(out, value)| *out = value * factor);
            }
        }
    }
}

/// The partial result of no keys.
fn clear(state: &mut [f32], rows: usize) {
    state.fill(0.0);
    parts(state, rows).0.fill(f32::NEG_INFINITY);
}

/// Adds the next split's partial result.
fn merge(into: &mut [f32], part: &mut [f32], rows: usize) {
    let width = into.len() / rows - 2;
    let (into_max, into_sum, into_out) = parts(into, rows);
    let (max, sum, out) = parts(part, rows);
    for row in 0..rows {
        if max[row] == f32::NEG_INFINITY && sum[row] == 0.0 {
            continue;
        }
        let larger = into_max[row].max(max[row]);
        let (a, b) = ((into_max[row] - larger).exp(), (max[row] - larger).exp());
        into_max[row] = larger;
        into_sum[row] = into_sum[row] * a + sum[row] * b;
        let rows = into_out[row * width..][..width].iter_mut().zip(&out[row * width..]);
        rows.for_each(|(into, value)| *into = *into * a + value * b);
    }
}
