//! Walking several paths at once: for few rows, and for trees too large to evaluate whole.
//!
//! A node is a key and a link (column in the low bits, left child in the high ones; the right child is behind the left
//! one); a leaf links to itself, so a step needs no branch. One step waits for a node and then for a key, about ten
//! cycles; [`CHAINS`] independent paths (rows of a tree, or trees of a row) fill them. Nodes of a tree lie breadth
//! first: the levels that every row sees share cache lines.

use super::columns::{Columns, Key, Reader, threshold_key};
use super::reference::Reference;
use super::sink::Sink;
use super::{Child, Tree};

/// Paths in flight.
const CHAINS: usize = 8;
/// Bytes of keys in one pass over the trees: they stay in the second-level cache beside a tree.
const KEY_BYTES: usize = 256 << 10;

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
    /// Number of the leaf at each node that is one.
    leaf: Vec<u32>,
    roots: Vec<usize>,
    shift: u32,
    columns: usize,
}

impl<K: Key, L: Link> Walk<K, L> {
    /// `None` when a link has too few bits.
    pub(super) fn new(forest: &Reference, columns: &Columns) -> Option<Self> {
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
        };
        let mut of_split = columns.of_split.as_slice();
        for tree in &forest.trees {
            let (own, rest) = of_split.split_at(tree.splits.len());
            walk.push(tree, own);
            of_split = rest;
        }
        Some(walk)
    }

    fn push(&mut self, tree: &Tree, columns: &[u32]) {
        let first = self.nodes.len();
        self.roots.push(first);
        let mut queue = vec![if tree.splits.is_empty() { Child::Leaf(0) } else { Child::Node(0) }];
        let mut next = 0;
        while next < queue.len() {
            let (key, child, column, leaf) = match queue[next] {
                Child::Leaf(leaf) => (K::RIGHT, first + next, 0, leaf),
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
        let block = (KEY_BYTES / (width * size_of::<K>())).clamp(64, 2048).min(rows.max(1));
        let mut keys = vec![K::LEFT; block * width];
        let mut ids = vec![0; block];
        for start in (0..rows).step_by(block) {
            let count = block.min(rows - start);
            for (row, keys) in keys.chunks_exact_mut(width).take(count).enumerate() {
                for (key, column) in keys.iter_mut().zip(&columns.list) {
                    *key = column.key(reader.value(first + start + row, column.feature as usize));
                }
            }
            if count < CHAINS {
                (0..count).for_each(|row| {
                    let keys = &keys[row * width..(row + 1) * width];
                    self.trees(keys, &mut |tree, leaf| sink.one(tree, first + start + row, leaf));
                });
                continue;
            }
            for (tree, &root) in self.roots.iter().enumerate() {
                self.rows(root, &keys, &mut ids[..count]);
                sink.take(tree, first + start, &ids[..count]);
            }
        }
    }

    /// The leaves of one row in all trees.
    #[inline(always)]
    fn trees(&self, keys: &[K], each: &mut impl FnMut(usize, u32)) {
        assert!(keys.len() >= self.columns, "a key for each column");
        for (group, roots) in self.roots.chunks(CHAINS).enumerate() {
            let at = std::array::from_fn(|chain| roots[chain.min(roots.len() - 1)]);
            let ends = self.walk(at, keys, [0; CHAINS]);
            for (chain, &end) in ends.iter().enumerate().take(roots.len()) {
                each(group * CHAINS + chain, self.leaf[end]);
            }
        }
    }

    /// The leaves of several rows in one tree.
    fn rows(&self, root: usize, keys: &[K], ids: &mut [u32]) {
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
    fn walk(&self, mut at: [usize; CHAINS], keys: &[K], rows: [usize; CHAINS]) -> [usize; CHAINS] {
        loop {
            let mut moved = 0;
            for step in 0..STEPS {
                for (at, row) in at.iter_mut().zip(rows) {
                    // SAFETY: roots and links are positions of nodes: `push` makes no others.
                    let node = unsafe { self.nodes.get_unchecked(*at) };
                    let column = node.link.column(self.shift);
                    // SAFETY: columns of links are below `self.columns`, and `keys` has as many behind `row`.
                    let key = unsafe { *keys.get_unchecked(row + column) };
                    let next = node.link.child(self.shift) + usize::from(key > node.key);
                    if step == STEPS - 1 {
                        moved |= *at ^ next;
                    }
                    *at = next;
                }
            }
            if moved == 0 {
                return at;
            }
        }
    }
}

/// Steps between two looks at whether all paths have ended.
const STEPS: usize = 4;
