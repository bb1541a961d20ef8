//! Walking several paths at once: for few rows, and for trees too large to evaluate whole.
//!
//! A node is a key and a link (column in the low bits, left child in the high ones; the right child is behind the left
//! one); a leaf links to itself, so a step needs no branch. One step waits for a node and then for a key, about ten
//! cycles in the first-level cache; eight independent paths (rows of a tree, or trees of a row) fill them, and sixteen
//! where the forest is larger than the caches. Nodes of a tree lie breadth first: the levels that every row sees share
//! cache lines.

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

/// Column and child in one number.
pub(super) trait Link: Copy + Send + Sync + std::fmt::Debug {
    /// Bits of the number.
    const BITS: u32;
    fn pack(child: usize, column: u32, shift: u32) -> Self;
    fn child(self, shift: u32) -> usize;
    fn column(self, shift: u32) -> usize;
}

macro_rules! link {
    ($type:ty) => {
        impl Link for $type {
            const BITS: u32 = <$type>::BITS;

            fn pack(child: usize, column: u32, shift: u32) -> Self {
                (child as $type) << shift | <$type>::from(column)
            }

            #[inline(always)]
            fn child(self, shift: u32) -> usize {
                (self >> shift) as usize
            }

            #[inline(always)]
            fn column(self, shift: u32) -> usize {
                (self & !(<$type>::MAX << shift)) as usize
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

/// A forest laid out for walking. Links lead to nodes, their columns are below `columns`.
#[derive(Clone, Debug)]
pub(super) struct Walk<K, L> {
    nodes: Vec<Node<K, L>>,
    /// Place of the leaf at each node that is one.
    leaf: Vec<u32>,
    roots: Vec<usize>,
    shift: u32,
    columns: usize,
    /// Levels of the deepest tree, where all are shallow.
    levels: Option<u32>,
}

impl<K: Key, L: Link> Walk<K, L> {
    /// `None` when a link has too few bits.
    pub(super) fn new(forest: &Reference, columns: &Columns, places: &[Places]) -> Option<Self> {
        let nodes: usize = forest.trees.iter().map(|tree| 2 * tree.splits.len() + 1).sum();
        let bits = |count: usize| usize::BITS - count.leading_zeros();
        let shift = bits(columns.list.len());
        if shift + bits(nodes) > L::BITS {
            return None;
        }
        let mut walk = Walk {
            nodes: Vec::with_capacity(nodes),
            leaf: Vec::with_capacity(nodes),
            roots: Vec::with_capacity(forest.trees.len()),
            shift,
            columns: columns.list.len(),
            levels: places.iter().try_fold(0, |levels, tree| Some(tree.depth?.max(levels))),
        };
        let mut of_split = columns.of_split.as_slice();
        for (tree, places) in forest.trees.iter().zip(places) {
            let (own, rest) = of_split.split_at(tree.splits.len());
            walk.push(tree, own, places);
            of_split = rest;
        }
        Some(walk)
    }

    fn push(&mut self, tree: &Tree, columns: &[u32], places: &Places) {
        let first = self.nodes.len();
        self.roots.push(first);
        let mut queue = vec![if tree.splits.is_empty() { Child::Leaf(0) } else { Child::Node(0) }];
        let mut next = 0;
        while next < queue.len() {
            let (key, child, column, leaf) = match queue[next] {
                Child::Leaf(leaf) => (K::RIGHT, first + next, 0, places.of(leaf)),
                Child::Node(index) => {
                    let split = &tree.splits[index as usize];
                    queue.extend([split.left, split.right]);
                    let child = first + queue.len() - 2;
                    (threshold_key(split), child, columns[index as usize], 0)
                }
            };
            self.nodes.push(Node { key, link: L::pack(child, column, self.shift) });
            self.leaf.push(leaf);
            next += 1;
        }
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
        let width = self.columns.max(1);
        let block = (KEY_BYTES / (width * size_of::<K>())).clamp(64, 4096).min(rows.max(1));
        let mut keys = vec![K::LEFT; block * width];
        let mut ids = vec![0; block];
        for start in (0..rows).step_by(block) {
            let count = block.min(rows - start);
            for (row, keys) in keys.chunks_exact_mut(width).take(count).enumerate() {
                for (key, column) in keys.iter_mut().zip(&columns.list) {
                    *key = column.key(reader.value(first + start + row, column.feature as usize));
                }
            }
            let large = self.nodes.len() * size_of::<Node<K, L>>() > LARGE;
            if count < CHAINS {
                for row in 0..count {
                    let keys = &keys[row * width..(row + 1) * width];
                    if large {
                        self.trees::<LARGE_CHAINS>(keys, first + start + row, sink);
                    } else {
                        self.trees::<CHAINS>(keys, first + start + row, sink);
                    }
                }
                continue;
            }
            for tree in 0..self.roots.len() {
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

    /// The leaves of one row in all trees.
    fn trees<const CHAINS: usize>(&self, keys: &[K], row: usize, sink: &mut impl Sink) {
        assert!(keys.len() >= self.columns, "a key for each column");
        for (group, roots) in self.roots.chunks(CHAINS).enumerate() {
            let at = std::array::from_fn(|chain| roots[chain.min(roots.len() - 1)]);
            let places = self.walk::<CHAINS>(at, keys, [0; CHAINS]).map(|end| [self.leaf[end]]);
            sink.stretch(group * CHAINS, row, 1, &places[..roots.len()]);
        }
    }

    /// Brings a tree into the caches in the order of its addresses, which is much faster than in the order of paths.
    fn fetch(&self, tree: usize) {
        let end = self.roots.get(tree + 1).copied().unwrap_or(self.nodes.len());
        let range = self.roots[tree]..end;
        let line = 64 / size_of::<Node<K, L>>();
        let nodes = self.nodes[range.clone()].iter().step_by(line);
        let links = nodes.map(|node| node.link.child(self.shift)).fold(0, |all, link| all ^ link);
        let leaves = self.leaf[range].iter().step_by(16).fold(0, |all, leaf| all ^ leaf);
        std::hint::black_box((links, leaves));
    }

    /// The leaves of several rows in one tree.
    fn rows<const CHAINS: usize>(&self, tree: usize, keys: &[K], ids: &mut [u32]) {
        let root = self.roots[tree];
        let width = self.columns.max(1);
        assert!(keys.len() >= ids.len() * width, "a key for each row and column");
        for (group, ids) in ids.chunks_mut(CHAINS).enumerate() {
            let rows =
                std::array::from_fn(|chain| (group * CHAINS + chain.min(ids.len() - 1)) * width);
            let ends = self.walk([root; CHAINS], keys, rows);
            ids.iter_mut().zip(ends).for_each(|(id, end)| *id = self.leaf[end]);
        }
    }

    /// Follows paths from `at` to their leaves. `rows` are the positions of the paths' keys; from each on, `keys` holds
    /// one for each column, and `at` are nodes: callers see to that.
    #[inline(always)]
    fn walk<const CHAINS: usize>(
        &self,
        mut at: [usize; CHAINS],
        keys: &[K],
        rows: [usize; CHAINS],
    ) -> [usize; CHAINS] {
        if let Some(levels) = self.levels {
            (0..levels).for_each(|_| {
                self.step(&mut at, keys, rows);
            });
            return at;
        }
        loop {
            (1..STEPS).for_each(|_| {
                self.step(&mut at, keys, rows);
            });
            if !self.step(&mut at, keys, rows) {
                return at;
            }
        }
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
            // SAFETY: roots and links are positions of nodes: `push` makes no others.
            let node = unsafe { self.nodes.get_unchecked(*at) };
            let column = node.link.column(self.shift);
            // SAFETY: columns of links are below `self.columns`, and `keys` has as many behind `row`.
            let key = unsafe { *keys.get_unchecked(row + column) };
            let next = node.link.child(self.shift) + usize::from(key > node.key);
            moved |= *at ^ next;
            *at = next;
        }
        moved != 0
    }
}

/// Steps between two looks at whether all paths have ended.
const STEPS: usize = 4;
