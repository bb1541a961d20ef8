//! Walking several paths at once: for few rows, and for trees too large to evaluate whole.
//!
//! A node is a key and a link (column in the low bits, left child in the high ones; the right child is behind the left
//! one); a leaf links to itself, so a step needs no branch. One step waits for a node and then for a key, about ten
//! cycles in the first-level cache; eight independent paths (rows of a tree, or trees of a row) fill them, and sixteen
//! where the forest is larger than the caches. A pair of siblings shares a cache line with
//! the pairs below it, so that a path fetches a line every second level; pairs lie breadth first.

use std::collections::VecDeque;
use std::hint::select_unpredictable;

use super::columns::{Columns, Key, Reader, threshold_key};
use super::places::Places;
use super::reference::Reference;
use super::sink::Sink;
use super::{Child, Tree};

/// Paths in flight.
const CHAINS: usize = 8;
/// Paths in flight of a forest of more than [`LARGE`] bytes, each of whose steps may wait for memory.
const LARGE_CHAINS: usize = 16;
/// The size of a second-level cache.
const LARGE: usize = 1 << 20;
/// Rows from which most nodes of a large tree are visited: it is fetched as a whole, in order, before them.
const FETCH_ROWS: usize = 256;
/// Bytes of keys in one pass over the trees: they stay in the second-level cache beside a tree.
const KEY_BYTES: usize = 384 << 10;

/// Column and child in one number, whose low `SHIFT` bits are the column.
pub(super) trait Link: Copy + Send + Sync + std::fmt::Debug {
    /// Bits of the number.
    const BITS: u32;
    fn pack<const SHIFT: u32>(child: usize, column: u32) -> Self;
    fn child<const SHIFT: u32>(self) -> usize;
    fn column<const SHIFT: u32>(self) -> usize;
}

macro_rules! link {
    ($type:ty) => {
        impl Link for $type {
            const BITS: u32 = <$type>::BITS;

            fn pack<const SHIFT: u32>(child: usize, column: u32) -> Self {
                (child as $type) << SHIFT | <$type>::from(column)
            }

            #[inline(always)]
            fn child<const SHIFT: u32>(self) -> usize {
                (self >> SHIFT) as usize
            }

            #[inline(always)]
            fn column<const SHIFT: u32>(self) -> usize {
                (self & !(<$type>::MAX << SHIFT)) as usize
            }
        }
    };
}
link!(u32);
link!(u64);

#[derive(Clone, Copy, Debug)]
struct Node<K, L> {
    key: K,
    link: L,
}

/// Nodes of a line: of the narrow layouts, one of a cache.
const LINE: usize = 8;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct NodeLine<K, L>([Node<K, L>; LINE]);

/// A forest laid out for walking. Links lead to nodes, their columns are below `columns`.
#[derive(Clone, Debug)]
pub(super) struct Walk<K, L, const SHIFT: u32> {
    nodes: Vec<NodeLine<K, L>>,
    /// Nodes so far, those between lines included.
    len: usize,
    /// Of each tree, and that of a leaf for paths with nothing left to do.
    roots: Vec<usize>,
    columns: usize,
    /// Levels of the deepest tree, where all are shallow.
    levels: Option<u32>,
}

impl<K: Key, L: Link, const SHIFT: u32> Walk<K, L, SHIFT> {
    /// `None` when a link has too few bits.
    pub(super) fn new(forest: &Reference, columns: &Columns, places: &[Places]) -> Option<Self> {
        let nodes: usize = forest.trees.iter().map(|tree| 2 * tree.splits.len() + 1).sum();
        // Lines are at least half full.
        let fits = |count: usize, bits: u32| count <= 1 << bits;
        if !fits(columns.list.len() + 1, SHIFT)
            || !fits(2 * nodes + LINE * forest.trees.len(), L::BITS - SHIFT)
        {
            return None;
        }
        let mut walk = Walk {
            nodes: Vec::with_capacity(nodes / LINE),
            len: 0,
            roots: Vec::with_capacity(forest.trees.len()),
            columns: columns.list.len(),
            levels: places.iter().try_fold(0, |levels, tree| Some(tree.depth?.max(levels))),
        };
        let mut of_split = columns.of_split.as_slice();
        for (tree, places) in forest.trees.iter().zip(places) {
            let (own, rest) = of_split.split_at(tree.splits.len());
            walk.push(tree, own, places);
            of_split = rest;
        }
        walk.align();
        walk.roots.push(walk.len);
        walk.add_node(K::LEFT, walk.columns as u32);
        Some(walk)
    }

    fn push(&mut self, tree: &Tree, columns: &[u32], places: &Places) {
        self.align();
        self.roots.push(self.len);
        let root = if tree.splits.is_empty() { Child::Leaf(0) } else { Child::Node(0) };
        // Pairs of siblings to be placed, and the node above them.
        let mut pairs: VecDeque<(usize, u32)> =
            self.add(root, tree, columns, places).into_iter().collect();
        while let Some(pair) = pairs.pop_front() {
            // A pair and the pairs below it lie in one line.
            let split = &tree.splits[pair.1 as usize];
            let inner = [split.left, split.right]
                .iter()
                .filter(|child| matches!(child, Child::Node(_)))
                .count();
            if self.len % LINE + 2 * (1 + inner) > LINE {
                self.align();
            }
            for below in self.add_pair(pair, tree, columns, places).into_iter().flatten() {
                pairs.extend(self.add_pair(below, tree, columns, places).into_iter().flatten());
            }
        }
    }

    /// Adds the children of a node at some place; returns those of them that have children, with their places.
    fn add_pair(
        &mut self,
        (parent, index): (usize, u32),
        tree: &Tree,
        columns: &[u32],
        places: &Places,
    ) -> [Option<(usize, u32)>; 2] {
        let split = &tree.splits[index as usize];
        let link = L::pack::<SHIFT>(self.len, columns[index as usize]);
        self.nodes[parent / LINE].0[parent % LINE].link = link;
        [split.left, split.right].map(|child| self.add(child, tree, columns, places))
    }

    /// Adds a node, or a leaf, which links to itself; returns a node with its place, as its link is not yet known.
    fn add(
        &mut self,
        child: Child,
        tree: &Tree,
        columns: &[u32],
        places: &Places,
    ) -> Option<(usize, u32)> {
        match child {
            Child::Leaf(leaf) => {
                self.add_node(K::of_place(places.of(leaf)), self.columns as u32);
                None
            }
            Child::Node(index) => {
                let key = threshold_key(&tree.splits[index as usize]);
                Some((self.add_node(key, columns[index as usize]), index))
            }
        }
    }

    /// Adds a node that links to itself; returns its place.
    fn add_node(&mut self, key: K, column: u32) -> usize {
        let place = self.len;
        let node = Node { key, link: L::pack::<SHIFT>(place, column) };
        if place.is_multiple_of(LINE) {
            self.nodes.push(NodeLine([node; LINE]));
        }
        self.nodes[place / LINE].0[place % LINE] = node;
        self.len += 1;
        place
    }

    /// The next node starts a line.
    fn align(&mut self) {
        self.len = self.len.next_multiple_of(LINE);
    }

    /// Walks `rows` rows through all trees.
    pub(super) fn run(
        &self,
        columns: &Columns,
        reader: Reader<'_>,
        first: usize,
        rows: usize,
        sink: &mut impl Sink,
    ) {
        let width = self.columns + 1;
        let block = (KEY_BYTES / (width * size_of::<K>())).clamp(64, 4096).min(rows.max(1));
        let mut keys = vec![K::LEFT; block * width];
        let mut ids = vec![0; block];
        let mut places = vec![[0]; self.roots.len()];
        for start in (0..rows).step_by(block) {
            let count = block.min(rows - start);
            for (row, keys) in keys.chunks_exact_mut(width).take(count).enumerate() {
                for (key, column) in keys.iter_mut().zip(&columns.list) {
                    *key = column.key(reader.value(first + start + row, column.feature as usize));
                }
            }
            let large = size_of_val(&self.nodes[..]) > LARGE;
            if count < if large { LARGE_CHAINS } else { CHAINS } {
                for row in 0..count {
                    let keys = &keys[row * width..(row + 1) * width];
                    if large {
                        self.trees::<LARGE_CHAINS>(keys, &mut places);
                    } else {
                        self.trees::<CHAINS>(keys, &mut places);
                    }
                    sink.stretch(0, first + start + row, 1, &places[..self.count()]);
                }
                continue;
            }
            for tree in 0..self.count() {
                if large && count >= FETCH_ROWS {
                    self.fetch(tree);
                }
                if large {
                    self.rows::<LARGE_CHAINS>(tree, &keys, &mut ids[..count]);
                } else {
                    self.rows::<CHAINS>(tree, &keys, &mut ids[..count]);
                }
                sink.take(tree, first + start, &ids[..count]);
            }
        }
    }

    /// Number of trees.
    fn count(&self) -> usize {
        self.roots.len() - 1
    }

    /// The places of the leaves of one row in all trees. Paths differ in length: where one ends, that of the next tree
    /// starts.
    fn trees<const CHAINS: usize>(&self, keys: &[K], places: &mut [[u32; 1]]) {
        assert!(keys.len() > self.columns, "a key for each column, and one for leaves");
        let count = self.count();
        let mut trees: [usize; CHAINS] = std::array::from_fn(|chain| chain.min(count));
        let mut at = trees.map(|tree| self.roots[tree]);
        let mut next = CHAINS.min(count);
        while trees.iter().fold(count, |first, &tree| first.min(tree)) < count {
            for _ in 0..STEPS {
                self.step(&mut at, keys, [0; CHAINS]);
            }
            for (at, tree) in at.iter_mut().zip(&mut trees) {
                let node = self.node(*at);
                places[*tree] = [node.key.place()];
                let ended = node.link.child::<SHIFT>() == *at;
                *tree = select_unpredictable(ended, next, *tree);
                *at = select_unpredictable(ended, self.roots[next], *at);
                next = (next + usize::from(ended)).min(count);
            }
        }
    }

    /// Brings a tree into the caches in the order of its addresses, which is much faster than in the order of paths.
    fn fetch(&self, tree: usize) {
        let end = self.roots.get(tree + 1).copied().unwrap_or(self.len);
        let lines = self.nodes[self.roots[tree] / LINE..end.div_ceil(LINE)].iter();
        let nodes = lines.flat_map(|line| line.0.iter().step_by(64 / size_of::<Node<K, L>>()));
        let links = nodes.map(|node| node.link.child::<SHIFT>()).fold(0, |all, link| all ^ link);
        std::hint::black_box(links);
    }

    /// The leaves of several rows in one tree.
    fn rows<const CHAINS: usize>(&self, tree: usize, keys: &[K], ids: &mut [u32]) {
        let root = self.roots[tree];
        let width = self.columns + 1;
        assert!(keys.len() >= ids.len() * width, "a key for each row and column");
        for (group, ids) in ids.chunks_mut(CHAINS).enumerate() {
            let rows =
                std::array::from_fn(|chain| (group * CHAINS + chain.min(ids.len() - 1)) * width);
            let places = self.walk([root; CHAINS], keys, rows);
            ids.copy_from_slice(&places[..ids.len()]);
        }
    }

    /// The places of the leaves that paths from `at` lead to. `rows` are the positions of the paths' keys; from each on,
    /// `keys` holds one for each column and that of leaves, and `at` are nodes: callers see to that.
    #[inline(always)]
    fn walk<const CHAINS: usize>(
        &self,
        mut at: [usize; CHAINS],
        keys: &[K],
        rows: [usize; CHAINS],
    ) -> [u32; CHAINS] {
        if let Some(levels) = self.levels {
            (0..levels).for_each(|_| {
                self.step(&mut at, keys, rows);
            });
        } else {
            while {
                (1..STEPS).for_each(|_| {
                    self.step(&mut at, keys, rows);
                });
                self.step(&mut at, keys, rows)
            } {}
        }
        at.map(|at| self.node(at).key.place())
    }

    /// The node at a position that is a root or that a link names.
    #[inline(always)]
    fn node(&self, at: usize) -> &Node<K, L> {
        // SAFETY: roots and links are positions of nodes: `push` makes no others, and callers have no others.
        unsafe { &*self.nodes.as_ptr().cast::<Node<K, L>>().add(at) }
    }

    /// Follows each path to the next node; whether any was not at its end. Parameters as for `walk`.
    #[inline(always)]
    fn step<const CHAINS: usize>(
        &self,
        at: &mut [usize; CHAINS],
        keys: &[K],
        rows: [usize; CHAINS],
    ) -> bool {
        let mut moved = 0;
        for (at, row) in at.iter_mut().zip(rows) {
            let node = self.node(*at);
            let column = node.link.column::<SHIFT>();
            // SAFETY: columns of links are at most `self.columns`, and `keys` has that many and one behind `row`.
            let key = unsafe { *keys.get_unchecked(row + column) };
            let next = node.link.child::<SHIFT>() + usize::from(key > node.key);
            moved |= *at ^ next;
            *at = next;
        }
        moved != 0
    }
}

/// Steps between two looks at whether all paths have ended.
const STEPS: usize = 4;
