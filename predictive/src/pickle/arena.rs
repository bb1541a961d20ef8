//! The nodes of a pickle and the memory they may take.

use crate::error::Fault;
use crate::pickle::{Id, Node};

/// The part of the limit for what is not charged: buffers, the states of decoders, tables of symbols.
const SLACK: usize = 8 << 20;
/// Length up to which a vector grows without being charged for it first.
const FIRST: usize = 16;

/// Ids of nodes that are the same in every pickle.
pub(super) const NONE: Id = 0;
/// `False`.
pub(super) const FALSE: Id = 1;
/// `True`.
pub(super) const TRUE: Id = 2;
/// The integer 0; the integers up to 255 follow.
const ZERO: Id = 3;

/// Nodes, and a budget that every allocation on behalf of the file is charged to.
pub(super) struct Arena {
    pub(super) nodes: Vec<Node>,
    left: usize,
    limit: usize,
}

impl Arena {
    /// An empty arena within `limit` bytes, of which the file's `length` are taken.
    pub(super) fn new(limit: usize, length: usize) -> Self {
        let mut nodes = vec![Node::None, Node::Bool(false), Node::Bool(true)];
        nodes.extend((0..256).map(Node::Int));
        Self { nodes, left: limit - length - SLACK, limit }
    }

    /// Bytes that reading the file may take.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are left for what is made of the nodes.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Takes `bytes` from the budget.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Fault::unsupported(format!(
                "needs more memory than {} bytes, four times the file plus 64 MiB, while being read; if it is a model, \
                 save it without compression",
                self.limit
            ))),
        }
    }

    /// Gives back what was charged for a buffer that is gone.
    pub(super) fn refund(&mut self, bytes: usize) {
        self.left += bytes;
    }

    /// Adds a node.
    pub(super) fn add(&mut self, node: Node) -> Result<Id, Fault> {
        let mut nodes = std::mem::take(&mut self.nodes);
        let added = self.push(&mut nodes, node);
        self.nodes = nodes;
        added?;
        Id::try_from(self.nodes.len() - 1)
            .map_err(|_| Fault::unsupported("the file has more than 4 billion values"))
    }

    /// Adds an integer.
    pub(super) fn int(&mut self, value: i64) -> Result<Id, Fault> {
        match u8::try_from(value) {
            Ok(small) => Ok(ZERO + Id::from(small)),
            Err(_) => self.add(Node::Int(value)),
        }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &str) -> Result<Id, Fault> {
        self.charge(text.len() + 32)?;
        self.add(Node::Text(text.into()))
    }

    /// Pushes to a vector that belongs to the file, and charges its growth.
    pub(super) fn push<T>(&mut self, vector: &mut Vec<T>, item: T) -> Result<(), Fault> {
        if vector.len() == vector.capacity() {
            let more = (vector.len() / 2).max(FIRST);
            self.charge(more.saturating_mul(size_of::<T>()))?;
            vector.reserve_exact(more);
        }
        vector.push(item);
        Ok(())
    }

    /// A node.
    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// A node to be changed.
    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The items of a list or tuple.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value of a key of a dictionary.
    pub(super) fn key(&self, id: Id, name: &str) -> Option<Id> {
        let Node::Dict(entries) = self.node(id) else { return None };
        let is = |key: Id| matches!(self.node(key), Node::Text(text) if &**text == name);
        entries.iter().rev().find(|(key, _)| is(*key)).map(|&(_, value)| value)
    }

    /// A text.
    pub(super) fn as_text(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer.
    pub(super) fn as_int(&self, id: Id) -> Option<i64> {
        match self.node(id) {
            Node::Int(value) => Some(*value),
            Node::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// What a node is, for messages.
    pub(super) fn describe(&self, id: Id) -> &'static str {
        match self.node(id) {
            Node::None => "None",
            Node::Bool(_) => "a truth value",
            Node::Int(_) | Node::Big(_) => "an integer",
            Node::Float(_) => "a float",
            Node::Text(_) => "a text",
            Node::Bytes(_) => "bytes",
            Node::List(_) => "a list",
            Node::Dict(_) => "a dictionary",
            Node::Global(_) => "a class or function",
            Node::Array(_) | Node::Objects(_) | Node::Records(_) => "an array",
            Node::Object { .. } => "an object",
        }
    }
}
