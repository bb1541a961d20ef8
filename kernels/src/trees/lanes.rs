//! Trees evaluated whole, 64 rows to a vector: for batches, where trees have at most 256 leaves.
//!
//! A node is one comparison of bytes ([`super::ranks`]) and one choice between the results of its children, for 64 rows
//! at once: a tree is evaluated from its leaves to its root without a branch and without a gather, and what arrives at
//! the root is the number of the leaf. All nodes cost less so than those on the paths of 64 rows, which would wait for
//! memory twice each.

use super::columns::{Columns, Reader};
use super::jumps::{Follow, Jump, Jumps};
use super::places::{MAX_DEPTH, Places};
use super::ranks::{Block, Fill, FillRows, LANES, Line, RankKey, Ranks, count, fill, fill_rows};
use super::reference::Reference;
use super::sink::Sink;
use super::{Child, Tree, x86};
use crate::isa::{Isa, Variant};

/// Leaves of a tree: their numbers are bytes.
const MAX_LEAVES: usize = 256;
/// Columns, each with a vector of ranks for each block: the second-level cache holds them.
const MAX_COLUMNS: usize = 8192;
/// Blocks of rows that pass a stretch of trees before the next stretch.
const MAX_BLOCKS: usize = 8;
/// Bytes of ranks of those blocks.
const RANK_BYTES: usize = 256 << 10;
/// Bytes of nodes of a stretch of trees.
const NODE_BYTES: usize = 256 << 10;

/// A node: `ranks[column] > rank` chooses the right slot. Slots are the leaves' places, then results of nodes. Columns
/// and slots are offsets in bytes, where each has one line. The nodes of a tree are breadth first: from the last to the
/// first, no node waits for the one just before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) column: u32,
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) rank: u8,
}

/// Evaluates a tree: `ranks` is `[columns, halves]`, `slots` `[leaves and nodes, halves]` with the nodes of the tree
/// from slot `nodes_from` on. Both hold all that the nodes name.
pub(super) type Decide = unsafe fn(&[Node], &[Line], &mut [Line], usize);

#[inline(always)]
pub(super) fn decide<const HALVES: usize>(
    nodes: &[Node],
    ranks: &[Line],
    slots: &mut [Line],
    nodes_from: usize,
) {
    for (index, node) in nodes.iter().enumerate().rev() {
        for half in 0..HALVES {
            let line = |offset: u32| offset as usize / LANES * HALVES + half;
            let rank = &ranks[line(node.column)].0;
            let (left, right) = (slots[line(node.left)].0, slots[line(node.right)].0);
            let out = &mut slots[(nodes_from + index) * HALVES + half].0;
            for lane in 0..LANES {
                out[lane] = if rank[lane] > node.rank { right[lane] } else { left[lane] };
            }
        }
    }
}

/// A node of a completed tree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CompleteNode {
    /// Offset of the column in the ranks of one vector of rows, in bytes.
    pub(super) offset: u32,
    /// As in [`Node`].
    pub(super) rank: u8,
}

/// Evaluates a completed tree: nodes in the order of a heap, `ranks` as for [`Decide`], one line of places for each half
/// out.
pub(super) type DecideComplete = unsafe fn(&[CompleteNode], &[Line], &mut [Line]);

/// Adds number `position` of the leaves `ids`, each of `width` numbers, to the sums. `ids` are leaves of `values`.
pub(super) type Add<S> = unsafe fn(&mut [S], &[S], &[u32], usize, usize);

#[inline(always)]
pub(super) fn add<S: Copy + std::ops::AddAssign>(
    sums: &mut [S],
    values: &[S],
    ids: &[u32],
    width: usize,
    position: usize,
) {
    for (sum, &id) in sums.iter_mut().zip(ids) {
        *sum += values[id as usize * width + position];
    }
}

/// The inner loops of an instruction set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    pub(super) fill_i32: Fill<i32>,
    pub(super) fill_i64: Fill<i64>,
    pub(super) fill_rows_i32: FillRows<i32>,
    pub(super) fill_rows_i64: FillRows<i64>,
    pub(super) decide: [Decide; 2],
    /// For one and two halves and each depth from one on, where there is something faster than [`Decide`].
    pub(super) complete: Option<[[DecideComplete; MAX_DEPTH as usize]; 2]>,
    /// Where few rows are faster with [`super::jumps`].
    pub(super) follow: Option<Follow>,
    pub(super) add_f32: Add<f32>,
    pub(super) add_f64: Add<f64>,
}

/// Inner loops of each instruction set; the last that this machine supports are used.
pub(super) static KERNELS: &[Variant<Kernels>] = &[
    Variant {
        name: "portable",
        isa: Isa::Scalar,
        run: Kernels {
            fill_i32: |feature, reader, block, ranks| fill(feature, reader, block, ranks, count),
            fill_i64: |feature, reader, block, ranks| fill(feature, reader, block, ranks, count),
            fill_rows_i32: |features, reader, rows, width, out| {
                fill_rows(features, reader, rows, width, out, count);
            },
            fill_rows_i64: |features, reader, rows, width, out| {
                fill_rows(features, reader, rows, width, out, count);
            },
            decide: [decide::<1>, decide::<2>],
            complete: None,
            follow: None,
            add_f32: add,
            add_f64: add,
        },
    },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx2", isa: Isa::Avx2, run: x86::AVX2 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512", isa: Isa::Avx512, run: x86::AVX512 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "avx512-vbmi", isa: Isa::Avx512Vbmi, run: x86::AVX512_VBMI },
];

/// A forest laid out for evaluating trees whole.
#[derive(Clone, Debug)]
pub(super) struct Lanes<K> {
    pub(super) ranks: Ranks<K>,
    nodes: Vec<Node>,
    complete: Vec<CompleteNode>,
    trees: Vec<LaneTree>,
    /// Slots of leaves' numbers, before the slots of nodes.
    leaves: usize,
    /// Slots of nodes.
    splits: usize,
    /// The same trees for few rows.
    pub(super) jumps: Option<Jumps>,
}

#[derive(Clone, Copy, Debug)]
struct LaneTree {
    start: usize,
    end: usize,
    root: usize,
    /// Where its completed nodes start, and its depth; deep trees and single leaves have none.
    complete: Option<(usize, u32)>,
}

impl<K: RankKey> Lanes<K> {
    /// `None` when a tree has too many leaves, or all together too many columns.
    pub(super) fn new(forest: &Reference, columns: &Columns, places: &[Places]) -> Option<Self> {
        let splits = forest.trees.iter().map(|tree| tree.splits.len()).max()?;
        if splits >= MAX_LEAVES || columns.list.len() > MAX_COLUMNS {
            return None;
        }
        let mut lanes = Lanes {
            ranks: Ranks::new(forest, columns),
            nodes: Vec::with_capacity(columns.of_split.len()),
            complete: Vec::new(),
            trees: Vec::with_capacity(forest.trees.len()),
            leaves: places.iter().map(|places| places.count).max()?,
            splits,
            jumps: None,
        };
        let mut of_split = columns.of_split.as_slice();
        for (tree, places) in forest.trees.iter().zip(places) {
            let (own, rest) = of_split.split_at(tree.splits.len());
            lanes.push(tree, columns, places, own);
            of_split = rest;
        }
        lanes.jumps = Jumps::new(&lanes);
        (lanes.ranks.columns() <= MAX_COLUMNS).then_some(lanes)
    }

    fn push(&mut self, tree: &Tree, columns: &Columns, places: &Places, of_split: &[u32]) {
        let start = self.nodes.len();
        let order = breadth_first(tree);
        let mut position = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &index)| position[index] = place);
        let slot = |child| match child {
            Child::Leaf(leaf) => places.of(leaf) as usize,
            Child::Node(node) => self.leaves + position[node as usize],
        };
        for &index in &order {
            let split = &tree.splits[index];
            let (target, rank) = self.ranks.of_split(split, columns, of_split[index]);
            self.nodes.push(Node {
                column: offset(target),
                left: offset(slot(split.left)),
                right: offset(slot(split.right)),
                rank,
            });
        }
        let root = if tree.splits.is_empty() { 0 } else { self.leaves };
        let depth = places.depth.filter(|&depth| depth > 0);
        let complete = depth.map(|depth| {
            let places = order.iter().map(|&index| places.of_node[index]);
            (self.complete(places, start, depth), depth)
        });
        self.trees.push(LaneTree { start, end: self.nodes.len(), root, complete });
    }

    /// Adds the nodes from `start` on as those of a completed tree, at their places. What has no node goes left.
    fn complete(&mut self, places: impl Iterator<Item = u32>, start: usize, depth: u32) -> usize {
        let first = self.complete.len();
        let never = CompleteNode { offset: 0, rank: u8::MAX };
        self.complete.resize(first + (1 << depth) - 1, never);
        for (place, node) in places.zip(&self.nodes[start..]) {
            let offset = node.column;
            self.complete[first + place as usize] = CompleteNode { offset, rank: node.rank };
        }
        first
    }

    /// Number of trees.
    pub(super) fn trees(&self) -> usize {
        self.trees.len()
    }

    /// The nodes of a tree, completed where it is, each behind its parent.
    pub(super) fn jumps(&self, tree: usize) -> Vec<Jump> {
        let LaneTree { start, end, complete, .. } = self.trees[tree];
        let Some((first, depth)) = complete else {
            let child = |offset: u32| {
                let slot = offset as usize / LANES;
                match slot.checked_sub(self.leaves) {
                    Some(node) => Child::Node(node as u32),
                    None => Child::Leaf(slot as u32),
                }
            };
            let jump = |node: &Node| {
                let children = [node.left, node.right].map(child);
                Jump { column: node.column as usize / LANES, rank: node.rank, children }
            };
            return self.nodes[start..end].iter().map(jump).collect();
        };
        let inner = (1 << depth) - 1;
        let jump = |(index, node): (usize, &CompleteNode)| {
            let child = |child: usize| match child.checked_sub(inner) {
                None => Child::Node(child as u32),
                Some(place) => Child::Leaf(place as u32),
            };
            let children = [1, 2].map(|right| child(2 * index + right));
            Jump { column: node.offset as usize / LANES, rank: node.rank, children }
        };
        self.complete[first..first + inner].iter().enumerate().map(jump).collect()
    }

    /// Takes `rows` rows from `first` on through all trees.
    pub(super) fn run(
        &self,
        kernels: &Kernels,
        reader: Reader<'_>,
        first: usize,
        rows: usize,
        sink: &mut impl Sink,
    ) {
        let halves = if rows <= LANES { 1 } else { 2 };
        let size = halves * LANES;
        let stride = (self.ranks.columns() * halves).max(1);
        let blocks = (RANK_BYTES / (stride * LANES)).clamp(1, MAX_BLOCKS).min(rows.div_ceil(size));
        let mut ranks = vec![Line([0; LANES]); blocks * stride];
        let mut slots = Vec::with_capacity((self.leaves + self.splits) * halves);
        slots.extend((0..self.leaves * halves).map(|slot| Line([(slot / halves) as u8; LANES])));
        slots.resize((self.leaves + self.splits) * halves, Line([0; LANES]));
        for start in (0..rows).step_by(blocks * size) {
            let block = |number: usize| {
                let from = start + number * size;
                (from < rows).then(|| Block {
                    first: first + from,
                    count: size.min(rows - from),
                    halves,
                })
            };
            let all: Vec<Block> = (0..blocks).map_while(block).collect();
            for (block, ranks) in all.iter().zip(ranks.chunks_exact_mut(stride)) {
                self.ranks.fill(kernels, reader, *block, ranks);
            }
            for trees in self.stretches() {
                for (block, ranks) in all.iter().zip(ranks.chunks_exact(stride)) {
                    self.decide(kernels, trees.clone(), *block, ranks, &mut slots, sink);
                }
            }
        }
    }

    fn decide(
        &self,
        kernels: &Kernels,
        trees: std::ops::Range<usize>,
        block: Block,
        ranks: &[Line],
        slots: &mut [Line],
        sink: &mut impl Sink,
    ) {
        let (halves, decide) = (block.halves, kernels.decide[block.halves - 1]);
        let mut ids = [0u32; 2 * LANES];
        for tree in trees {
            let LaneTree { start, end, root, complete } = self.trees[tree];
            if let (Some((first, depth)), Some(decide)) = (complete, &kernels.complete) {
                let nodes = &self.complete[first..first + (1 << depth) - 1];
                let out = &mut slots[root * halves..][..halves];
                // SAFETY: kernels are chosen by what the machine supports; columns are below `self.ranks.columns()`, which is
                // the size of `ranks` in units of `halves` lines.
                unsafe { decide[halves - 1][depth as usize - 1](nodes, ranks, out) };
            } else {
                // SAFETY: as above; slots are below `self.leaves + self.splits`, which is the size of `slots`.
                unsafe { decide(&self.nodes[start..end], ranks, slots, self.leaves) };
            }
            let lines = &slots[root * halves..][..halves];
            for (ids, line) in ids.chunks_exact_mut(LANES).zip(lines) {
                ids.iter_mut().zip(line.0).for_each(|(id, leaf)| *id = leaf.into());
            }
            sink.take(tree, block.first, &ids[..block.count]);
        }
    }

    /// Ranges of trees whose nodes stay in a cache.
    fn stretches(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let bytes = |tree: &LaneTree| tree.start * size_of::<Node>() / NODE_BYTES;
        let mut from = 0;
        self.trees.chunk_by(move |a, b| bytes(a) == bytes(b)).map(move |stretch| {
            from += stretch.len();
            from - stretch.len()..from
        })
    }
}

/// The offset of a line in bytes: of columns and slots there are few.
fn offset(line: usize) -> u32 {
    (line * LANES) as u32
}

/// Numbers of the splits of a tree, level by level.
fn breadth_first(tree: &Tree) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tree.splits.len().min(1)).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        for child in [tree.splits[index].left, tree.splits[index].right] {
            if let Child::Node(node) = child {
                order.push(node as usize);
            }
        }
        next += 1;
    }
    order
}
