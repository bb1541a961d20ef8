//! What a pickle holds, as plain data: an arena of nodes and typed views over it.
//!
//! Nothing in a pickle is ever executed: a class is a name, an object is its class, arguments and state. Nodes refer to
//! each other by index, so shared references cost nothing and a cycle can be met only by a reader that follows one: views
//! never recurse, and readers of nested data go through [`Value::list`] and [`Value::object`] with a depth of their own.

use std::cell::Cell;
use std::sync::Arc;

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::pickle::Object;

/// Index of a node.
pub(crate) type Id = u32;

/// One value.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// An integer beyond that, in decimal: random states and the like.
    Big(Arc<str>),
    /// A float.
    Float(f64),
    /// A text; lone surrogates are replaced.
    Text(Arc<str>),
    /// Bytes or a byte array.
    Bytes(Arc<[u8]>),
    /// A list, tuple, set or frozen set.
    List(Vec<Id>),
    /// A dictionary, in order.
    Dict(Vec<(Id, Id)>),
    /// A class or function by name: a symbol, never called.
    Global(Arc<Name>),
    /// A dense array of numbers or texts.
    Array(Arc<Array>),
    /// An array whose elements are values.
    Objects(Arc<Objects>),
    /// A structured array (tree nodes): records of `size` bytes with named little-endian fields.
    Records(Arc<Records>),
    /// An object: its class's module and name, constructor arguments, state.
    Object { class: Arc<Name>, arguments: Id, state: Id },
}

/// The name of a class or function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    /// Its module.
    pub(crate) module: Arc<str>,
    /// Its name in the module.
    pub(crate) name: Arc<str>,
}

/// An array of values.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// Sizes, outermost first.
    pub(crate) shape: Vec<usize>,
    /// The values, row major.
    pub(crate) items: Vec<Id>,
}

/// A structured numpy array.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Records {
    /// Number of records.
    pub(crate) count: usize,
    /// Bytes of one record.
    pub(crate) size: usize,
    /// Name, byte offset and numpy type (`i8`, `f8`, `u1`, ...; little-endian) of each field.
    pub(crate) fields: Vec<(Arc<str>, usize, Arc<str>)>,
    /// `count * size` bytes.
    pub(crate) data: Vec<u8>,
}

impl Records {
    /// A field of every record as `f64`; integers up to 2^53 are exact.
    ///
    /// # Errors
    /// When there is no such field, or its type is no number.
    pub(crate) fn numbers(&self, field: &str) -> Result<Vec<f64>, Fault> {
        let found = self.fields.iter().find(|(name, ..)| &**name == field);
        let Some((_, offset, dtype)) = found else {
            return Err(Fault::corrupt(field, "the records have no such field"));
        };
        let read: fn(&[u8]) -> Option<f64> = match &**dtype {
            "b1" | "u1" => |raw| raw.first().map(|&byte| f64::from(byte)),
            "i1" => |raw| raw.first().map(|&byte| f64::from(byte as i8)),
            "i2" => |raw| Some(f64::from(i16::from_le_bytes(*raw.first_chunk()?))),
            "u2" => |raw| Some(f64::from(u16::from_le_bytes(*raw.first_chunk()?))),
            "i4" => |raw| Some(f64::from(i32::from_le_bytes(*raw.first_chunk()?))),
            "u4" => |raw| Some(f64::from(u32::from_le_bytes(*raw.first_chunk()?))),
            "i8" => |raw| Some(i64::from_le_bytes(*raw.first_chunk()?) as f64),
            "u8" => |raw| Some(u64::from_le_bytes(*raw.first_chunk()?) as f64),
            "f4" => |raw| Some(f64::from(f32::from_le_bytes(*raw.first_chunk()?))),
            "f8" => |raw| Some(f64::from_le_bytes(*raw.first_chunk()?)),
            other => {
                let reason = format!("a field of type {other} is not a number");
                return Err(Fault::corrupt(field, reason));
            }
        };
        let short = || Fault::corrupt(field, "the field lies outside its record");
        let record = |record: &[u8]| record.get(*offset..).and_then(read).ok_or_else(short);
        self.data.chunks_exact(self.size.max(1)).map(record).collect()
    }
}

/// A whole pickle.
#[derive(Clone, Debug)]
pub struct Pickle {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Id,
    /// Bytes that may still be made of the values. A file may refer to one value a million times, and what is made of it
    /// would be there a million times.
    pub(crate) left: Cell<usize>,
}

impl Pickle {
    /// Whether an object of one of these classes is in it, anywhere.
    pub(crate) fn holds(&self, classes: &[&str]) -> bool {
        self.nodes.iter().any(|node| match node {
            Node::Object { class, .. } => classes.contains(&&*class.name),
            _ => false,
        })
    }

    /// The value that the pickle holds.
    pub fn root(&self) -> Value<'_> {
        Value { pickle: self, id: self.root }
    }
}

/// A view of one value.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pickle: &'a Pickle,
    id: Id,
}

impl<'a> Value<'a> {
    pub(crate) fn node(self) -> &'a Node {
        &self.pickle.nodes[self.id as usize]
    }

    fn at(self, id: Id) -> Value<'a> {
        Value { pickle: self.pickle, id }
    }

    /// Takes what is made of a value from what the file pays for; whether it did.
    pub(crate) fn pays(self, bytes: usize) -> bool {
        let left = self.pickle.left.get().checked_sub(bytes);
        self.pickle.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Identity within the pickle: equal for shared references.
    pub fn id(self) -> u32 {
        self.id
    }

    /// What it is, for messages: `None`, `float`, `list of 3`, `LogisticRegression`, `array [2, 4] FP64`.
    pub fn describe(self) -> String {
        match self.node() {
            Node::None => "None".into(),
            Node::Bool(value) => if *value { "True" } else { "False" }.into(),
            Node::Int(value) => value.to_string(),
            Node::Big(digits) => digits.to_string(),
            Node::Float(value) => value.to_string(),
            Node::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            Node::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Node::List(items) => format!("list of {}", items.len()),
            Node::Dict(entries) => format!("dictionary of {}", entries.len()),
            Node::Global(global) => format!("{}.{}", global.module, global.name),
            Node::Array(array) => format!("array {:?} {}", array.shape(), array.dtype().name()),
            Node::Objects(objects) => format!("object array {:?}", objects.shape),
            Node::Records(records) => format!("{} records", records.count),
            Node::Object { class, .. } => class.name.to_string(),
        }
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// A number: float, integer, truth value, or an array of one element.
    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            Node::Bool(value) => Some(f64::from(u8::from(*value))),
            Node::Array(array) if array.len() == 1 => array.to_f64()?.first().copied(),
            _ => None,
        }
    }

    /// An integer: integer, truth value, or an array of one integer.
    pub fn as_i64(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            Node::Bool(value) => Some(i64::from(*value)),
            Node::Array(array) => match array.values() {
                Values::Int(values) if values.len() == 1 => values.first().copied(),
                _ => None,
            },
            _ => None,
        }
    }

    /// A count or index.
    pub fn as_usize(self) -> Option<usize> {
        self.as_i64().and_then(|value| usize::try_from(value).ok())
    }

    /// A truth value, also as a number or a numpy scalar.
    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => self.as_i64().map(|value| value != 0),
        }
    }

    /// A text, also a numpy text scalar.
    pub fn as_str(self) -> Option<&'a str> {
        match self.node() {
            Node::Text(text) => self.pays(text.len()).then_some(text),
            Node::Array(array) => match array.values() {
                Values::Text(values) if values.len() == 1 => values.first().map(AsRef::as_ref),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self.node() {
            Node::Bytes(bytes) => self.pays(bytes.len()).then_some(bytes),
            _ => None,
        }
    }

    /// A class or function name: module and name.
    pub fn as_global(self) -> Option<(&'a str, &'a str)> {
        match self.node() {
            Node::Global(global) => Some((&global.module, &global.name)),
            _ => None,
        }
    }

    /// The items of a list, tuple, set or object array (flat).
    pub fn as_list(self) -> Option<Vec<Value<'a>>> {
        let items = match self.node() {
            Node::List(items) => items,
            Node::Objects(objects) => &objects.items,
            _ => return None,
        };
        let all = || items.iter().map(|&item| self.at(item)).collect();
        self.pays(items.len() * size_of::<Id>()).then(all)
    }

    /// Shape of an array of numbers, texts or objects; a list's length.
    pub fn shape(self) -> Option<Vec<usize>> {
        match self.node() {
            Node::Array(array) => Some(array.shape().to_vec()),
            Node::Objects(objects) => Some(objects.shape.clone()),
            Node::List(items) => Some(vec![items.len()]),
            _ => None,
        }
    }

    /// The entries of a dictionary, in order.
    pub fn as_dict(self) -> Option<Vec<(Value<'a>, Value<'a>)>> {
        match self.node() {
            Node::Dict(entries) => {
                let all =
                    || entries.iter().map(|&(key, value)| (self.at(key), self.at(value))).collect();
                self.pays(entries.len() * 2 * size_of::<Id>()).then(all)
            }
            _ => None,
        }
    }

    /// The value of a text key of a dictionary.
    pub fn key(self, name: &str) -> Option<Value<'a>> {
        match self.node() {
            Node::Dict(entries) => {
                let is =
                    |key: Id| matches!(self.at(key).node(), Node::Text(text) if &**text == name);
                if !self.pays(entries.len()) {
                    return None;
                }
                let found = entries.iter().rev().find(|(key, _)| is(*key));
                found.map(|&(_, value)| self.at(value))
            }
            _ => None,
        }
    }

    /// A dense array of numbers or texts.
    pub fn as_array(self) -> Option<&'a Array> {
        match self.node() {
            Node::Array(array) => self.pays(array.len() * size_of::<f64>()).then_some(array),
            _ => None,
        }
    }

    pub(crate) fn as_records(self) -> Option<&'a Records> {
        match self.node() {
            Node::Records(records) => self.pays(records.data.len()).then_some(records),
            _ => None,
        }
    }

    /// An object.
    pub fn as_object(self) -> Option<Object<'a>> {
        match self.node() {
            Node::Object { class, arguments, state } => Some(Object {
                module: &class.module,
                class: &class.name,
                arguments: self.at(*arguments),
                state: self.at(*state),
                value: self,
            }),
            _ => None,
        }
    }
}
