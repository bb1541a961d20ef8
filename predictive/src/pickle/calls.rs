//! What calling a symbol builds, and what a state does to it.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::Fault;
use crate::pickle::arena::NONE;
use crate::pickle::classes::Symbol;
use crate::pickle::machine::Machine;
use crate::pickle::numpy::{self, Decoded, Dtype};
use crate::pickle::{Id, Name, Node, Objects, text};

/// Most arguments of the functions that are evaluated.
const MAX_ARGUMENTS: usize = 8;

/// What a BUILD completes.
#[derive(Clone)]
pub(super) enum Draft {
    /// An element type.
    Dtype(Rc<Dtype>),
    /// An array that waits for its state.
    NdArray,
    /// A masked array that waits for its state.
    Masked,
    /// A joblib array that waits for its state, after which its bytes stand.
    Joblib,
}

impl Machine<'_> {
    /// Calls a global: builds data, or keeps the call as an object.
    pub(super) fn call(&mut self, callable: Id, arguments: Id) -> Result<Id, Fault> {
        let (Some(symbol), Node::Global(global)) =
            (self.symbols.get(&callable).copied(), self.arena.node(callable))
        else {
            return Err(self.wrong(format!("calls {}", self.arena.describe(callable))));
        };
        let global = Arc::clone(global);
        let Name { module, name } = &*global;
        let Some(items) = self.arena.items(arguments) else {
            let found = self.arena.describe(arguments);
            return Err(self.wrong(format!("{name} is called with {found}, not with a tuple")));
        };
        if symbol == Symbol::Inert {
            return self.object(&global, arguments);
        }
        if items.len() > MAX_ARGUMENTS {
            return Err(self.wrong(format!("{name} is called with {} arguments", items.len())));
        }
        let items = items.to_vec();
        match symbol {
            Symbol::Reconstruct => match items.first().and_then(|class| self.symbols.get(class)) {
                Some(Symbol::NdArray) => self.draft(Node::None, Draft::NdArray),
                _ => Err(self.wrong("an array of a class that is not numpy.ndarray")),
            },
            Symbol::MaskedReconstruct => self.draft(Node::None, Draft::Masked),
            Symbol::JoblibArray => self.draft(Node::None, Draft::Joblib),
            Symbol::Dtype => self.dtype(arguments, &items),
            Symbol::Scalar => self.scalar(&items),
            Symbol::FromBuffer => self.frombuffer(&items),
            Symbol::Ufunc => match items.iter().map(|&item| self.arena.as_text(item)).next_back() {
                Some(Some(ufunc)) => {
                    let ufunc = ufunc.to_owned();
                    self.global("numpy", &ufunc)
                }
                _ => Err(self.wrong("a ufunc without its name")),
            },
            Symbol::Encode | Symbol::Bytes => self.encode(name, &items),
            Symbol::Sequence => self.sequence(&items),
            Symbol::Mapping => self.mapping(items.first().copied()),
            Symbol::DefaultDict => self.mapping(items.get(1).copied()),
            Symbol::Reconstructor => self.reconstruct(&items),
            Symbol::Inert | Symbol::Token | Symbol::NdArray => {
                Err(self.wrong(format!("{module}.{name} is called; models only refer to it")))
            }
        }
    }

    /// An inert object. Functions that restore a class give that class.
    fn object(&mut self, global: &Arc<Name>, arguments: Id) -> Result<Id, Fault> {
        let first = self.arena.items(arguments).and_then(|items| items.first().copied());
        let class = match (&*global.name, first.map(|first| self.arena.node(first))) {
            ("newObj", Some(Node::Global(class))) => Arc::clone(class),
            (name, _) => match name.strip_prefix("__pyx_unpickle_") {
                Some(class) => {
                    self.arena.charge(class.len() + 128)?;
                    Arc::new(Name { module: Arc::clone(&global.module), name: class.into() })
                }
                None => Arc::clone(global),
            },
        };
        self.arena.add(Node::Object { class, arguments, state: NONE })
    }

    fn draft(&mut self, node: Node, draft: Draft) -> Result<Id, Fault> {
        self.arena.charge(64)?;
        let id = self.arena.add(node)?;
        self.drafts.insert(id, draft);
        Ok(id)
    }

    /// Bytes, or the bytes of a text in Latin-1.
    fn raw(&mut self, id: Id) -> Result<Arc<[u8]>, Fault> {
        let text = match self.arena.node(id) {
            Node::Bytes(bytes) => return Ok(Arc::clone(bytes)),
            Node::Text(text) => Arc::clone(text),
            _ => return Err(self.wrong(format!("{} stands for bytes", self.arena.describe(id)))),
        };
        self.arena.charge(2 * text.len())?;
        let bytes = text::to_latin1(&text).map(Arc::from);
        self.arena.refund(2 * text.len());
        bytes.ok_or_else(|| {
            self.wrong("a text that stands for bytes has a character beyond Latin-1")
        })
    }

    /// `_codecs.encode(text, "latin1")`, `bytes(...)`, `bytearray(...)`.
    fn encode(&mut self, name: &str, items: &[Id]) -> Result<Id, Fault> {
        let encoding = |id: Id| self.arena.as_text(id).map(str::to_ascii_lowercase);
        let bytes = match *items {
            [] => Arc::from([]),
            [value] if matches!(self.arena.node(value), Node::Bytes(_)) => self.raw(value)?,
            [value, with] if encoding(with).is_some_and(|name| is_latin1(&name)) => {
                self.raw(value)?
            }
            _ => {
                return Err(
                    self.wrong(format!("{name} is called with other than a text and latin1"))
                );
            }
        };
        self.arena.charge(bytes.len() + 32)?;
        self.arena.add(Node::Bytes(bytes))
    }

    fn sequence(&mut self, items: &[Id]) -> Result<Id, Fault> {
        let from = match items {
            [] => Some(0),
            [from, ..] => self.arena.items(*from).map(<[Id]>::len),
        };
        let length =
            from.ok_or_else(|| self.wrong("a list is made of something else than a list"))?;
        self.arena.charge(4 * length + 16)?;
        let from = items.first().and_then(|&from| self.arena.items(from));
        let copy = from.unwrap_or_default().to_vec();
        self.arena.add(Node::List(copy))
    }

    /// A dictionary of another, of a list of pairs, or of nothing.
    fn mapping(&mut self, from: Option<Id>) -> Result<Id, Fault> {
        let length = match from.map(|from| self.arena.node(from)) {
            None => 0,
            Some(Node::Dict(entries)) => entries.len(),
            Some(Node::List(pairs)) => pairs.len(),
            Some(_) => return Err(self.wrong("a dictionary is made of something else than pairs")),
        };
        self.arena.charge(8 * length + 16)?;
        let pair = |&id: &Id| match self.arena.items(id) {
            Some(&[key, value]) => Ok((key, value)),
            _ => Err(self.wrong("a dictionary is made of something else than pairs")),
        };
        let entries = match from.map(|from| self.arena.node(from)) {
            Some(Node::Dict(entries)) => entries.clone(),
            Some(Node::List(pairs)) => pairs.iter().map(pair).collect::<Result<_, _>>()?,
            _ => Vec::new(),
        };
        self.arena.add(Node::Dict(entries))
    }

    /// `copyreg._reconstructor(class, base, state)`, as protocols 0 and 1 write objects.
    fn reconstruct(&mut self, items: &[Id]) -> Result<Id, Fault> {
        let &[class, _, state] = items else {
            return Err(self.wrong("_reconstructor needs a class, a base and a state"));
        };
        let empty = self.arena.add(Node::List(Vec::new()))?;
        match self.symbols.get(&class) {
            Some(Symbol::Mapping | Symbol::Sequence) if state != NONE => {
                self.arena.charge(32)?;
                let arguments = self.arena.add(Node::List(vec![state]))?;
                self.call(class, arguments)
            }
            _ => self.call(class, empty),
        }
    }

    fn numpy_class(&mut self, name: &str) -> Result<Arc<Name>, Fault> {
        self.arena.charge(name.len() + 128)?;
        Ok(Arc::new(Name { module: "numpy".into(), name: name.into() }))
    }

    fn dtype(&mut self, arguments: Id, items: &[Id]) -> Result<Id, Fault> {
        let code = items.first().and_then(|&code| self.arena.as_text(code));
        let dtype = match code {
            Some(code) => Dtype::parse(code).map_err(|reason| self.wrong(reason))?,
            None => return Err(self.wrong("an element type without its code")),
        };
        let class = self.numpy_class("dtype")?;
        let node = Node::Object { class, arguments, state: NONE };
        self.draft(node, Draft::Dtype(Rc::new(dtype)))
    }

    /// The element type that a node stands for.
    pub(super) fn dtype_of(&self, id: Id) -> Result<Rc<Dtype>, Fault> {
        match self.drafts.get(&id) {
            Some(Draft::Dtype(dtype)) => Ok(Rc::clone(dtype)),
            _ => Err(self.wrong(format!("{} stands for an element type", self.arena.describe(id)))),
        }
    }

    /// The sizes of an array.
    pub(super) fn shape(&self, id: Id) -> Result<Vec<usize>, Fault> {
        let size = |&id: &Id| self.arena.as_int(id).and_then(|size| usize::try_from(size).ok());
        let items = match self.arena.items(id) {
            Some(items) => items,
            None => std::slice::from_ref(&id),
        };
        if items.len() > numpy::MAX_DIMENSIONS {
            return Err(self.wrong(format!("an array of {} dimensions", items.len())));
        }
        let shape: Option<Vec<usize>> = items.iter().map(size).collect();
        let shape = shape.ok_or_else(|| self.wrong("a size of an array is no count"))?;
        // Also where a size is 0: readers multiply the others.
        let product =
            shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size.max(1)));
        match product {
            Some(product) if product <= self.arena.limit() => Ok(shape),
            _ => Err(self.wrong(format!("an array of shape {shape:?} is larger than the file"))),
        }
    }

    fn scalar(&mut self, items: &[Id]) -> Result<Id, Fault> {
        let &[dtype, data] = items else {
            return Err(self.wrong("a scalar needs its type and its bytes"));
        };
        let dtype = self.dtype_of(dtype)?;
        if dtype.is_object() {
            return Ok(data);
        }
        let raw = self.raw(data)?;
        match self.decode(&dtype, &[1], false, &raw)? {
            Decoded::Values(kind, values) => match numpy::first(kind, &values) {
                Some(node) => self.arena.add(node),
                None => Err(self.wrong("a scalar without a value")),
            },
            other => self.decoded(&[], other),
        }
    }

    fn frombuffer(&mut self, items: &[Id]) -> Result<Id, Fault> {
        let &[data, dtype, shape, order] = items else {
            return Err(self.wrong("an array needs its bytes, type, shape and order"));
        };
        let (dtype, shape) = (self.dtype_of(dtype)?, self.shape(shape)?);
        let fortran = self.arena.as_text(order) == Some("F");
        let raw = self.raw(data)?;
        let decoded = self.decode(&dtype, &shape, fortran, &raw)?;
        self.decoded(&shape, decoded)
    }

    /// Decodes the bytes of an array and charges what that takes.
    pub(super) fn decode(
        &mut self,
        dtype: &Dtype,
        shape: &[usize],
        fortran: bool,
        raw: &[u8],
    ) -> Result<Decoded, Fault> {
        let count: usize = shape.iter().product();
        let expected = count.checked_mul(dtype.size());
        if expected != Some(raw.len()) {
            let code = dtype.code();
            return Err(self.wrong(format!(
                "an array of shape {shape:?} and type {code} has {} bytes",
                raw.len()
            )));
        }
        let bytes = dtype.decoded_size(count);
        let reorder = fortran && shape.len() > 1;
        self.arena.charge(bytes.saturating_add(64))?;
        if reorder {
            self.arena.charge(bytes)?;
        }
        let decoded = dtype.decode(shape, fortran, raw).map_err(|reason| self.wrong(reason))?;
        if reorder {
            self.arena.refund(bytes);
        }
        Ok(decoded)
    }

    /// Adds a decoded array.
    pub(super) fn decoded(&mut self, shape: &[usize], decoded: Decoded) -> Result<Id, Fault> {
        let node = self.decoded_node(shape, decoded)?;
        self.arena.add(node)
    }

    fn decoded_node(&mut self, shape: &[usize], decoded: Decoded) -> Result<Node, Fault> {
        Ok(match decoded {
            Decoded::Values(dtype, values) => {
                Node::Array(Arc::new(crate::Array::new(dtype, shape.to_vec(), values)))
            }
            Decoded::Records(records) => Node::Records(Arc::new(records)),
            Decoded::Opaque(code) => {
                let class = self.numpy_class(&format!("ndarray of {code}"))?;
                Node::Object { class, arguments: NONE, state: NONE }
            }
        })
    }

    /// Gives a value its state.
    pub(super) fn build(&mut self, target: Id, state: Id) -> Result<Id, Fault> {
        match self.drafts.get(&target).cloned() {
            Some(Draft::Dtype(dtype)) => {
                let dtype = self.dtype_state(&dtype, state)?;
                self.drafts.insert(target, Draft::Dtype(Rc::new(dtype)));
                return Ok(target);
            }
            Some(Draft::NdArray) => {
                *self.arena.node_mut(target) = self.array_state(state)?;
                self.drafts.remove(&target);
                return Ok(target);
            }
            Some(Draft::Masked) => {
                *self.arena.node_mut(target) = self.masked_state(state)?;
                self.drafts.remove(&target);
                return Ok(target);
            }
            Some(Draft::Joblib) => return self.joblib_array(state),
            None => {}
        }
        let merged = self.merged(state)?;
        match self.arena.node_mut(target) {
            Node::Object { state, .. } => *state = merged,
            // The state of a Bunch repeats its items or is empty; its class ignores it.
            Node::Dict(_) => {}
            _ => {
                let found = self.arena.describe(target);
                return Err(self.wrong(format!("gives a state to {found}")));
            }
        }
        Ok(target)
    }

    /// One dictionary of a state that is a dictionary and one of slots; other states as they are.
    fn merged(&mut self, state: Id) -> Result<Id, Fault> {
        let Some(&[first, slots]) = self.arena.items(state) else { return Ok(state) };
        let (count, more) = match (self.arena.node(first), self.arena.node(slots)) {
            (Node::None, Node::Dict(_)) => return Ok(slots),
            (Node::Dict(entries), Node::Dict(more)) => (entries.len(), more.len()),
            _ => return Ok(state),
        };
        self.arena.charge(8 * (count + more) + 32)?;
        let mut merged = Vec::with_capacity(count + more);
        for id in [first, slots] {
            if let Node::Dict(entries) = self.arena.node(id) {
                merged.extend_from_slice(entries);
            }
        }
        self.arena.add(Node::Dict(merged))
    }

    /// `(version, byte order, subarray, names, fields, item size, alignment, flags)`.
    fn dtype_state(&self, dtype: &Dtype, state: Id) -> Result<Dtype, Fault> {
        let items = self.arena.items(state).filter(|items| items.len() >= 7);
        let Some(&[_, order, subarray, names, fields, size, ..]) = items else {
            return Err(self.wrong("the state of an element type has 8 items"));
        };
        let order = match self.arena.node(order) {
            Node::Text(order) => order.bytes().next(),
            Node::Bytes(order) => order.first().copied(),
            _ => None,
        };
        let mut dtype = dtype.clone();
        dtype.set_order(order);
        if subarray != NONE {
            dtype.set_opaque();
            return Ok(dtype);
        }
        let Some(names) = self.arena.items(names) else { return Ok(dtype) };
        if names.len() > numpy::MAX_FIELDS {
            return Err(self.wrong(format!("records of {} fields", names.len())));
        }
        let size = self.arena.as_int(size).and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| self.wrong("the size of a record is no count"))?;
        let field = |&name: &Id| {
            let name = self.arena.as_text(name)?;
            let entry = self.arena.items(self.arena.key(fields, name)?)?;
            let &[dtype, offset, ..] = entry else { return None };
            let offset = usize::try_from(self.arena.as_int(offset)?).ok()?;
            Some((Arc::from(name), offset, self.dtype_of(dtype).ok()?))
        };
        let fields: Option<Vec<_>> = names.iter().map(field).collect();
        let fields =
            fields.ok_or_else(|| self.wrong("a field of a record lacks type or offset"))?;
        dtype.set_fields(size, fields).map_err(|reason| self.wrong(reason))?;
        Ok(dtype)
    }

    /// `(version, shape, dtype, Fortran order, data)`; the version is absent in old files.
    fn array_state(&mut self, state: Id) -> Result<Node, Fault> {
        let (shape, dtype, fortran, data) = match self.arena.items(state) {
            Some(&[_, shape, dtype, fortran, data] | &[shape, dtype, fortran, data]) => {
                (shape, dtype, fortran, data)
            }
            _ => return Err(self.wrong("the state of an array has 5 items")),
        };
        let (shape, dtype) = (self.shape(shape)?, self.dtype_of(dtype)?);
        if !dtype.is_object() {
            let fortran = self.arena.as_int(fortran).is_some_and(|fortran| fortran != 0);
            let raw = self.raw(data)?;
            let decoded = self.decode(&dtype, &shape, fortran, &raw)?;
            return self.decoded_node(&shape, decoded);
        }
        let count: usize = shape.iter().product();
        match self.arena.items(data).map(<[Id]>::len) {
            Some(length) if length == count => {}
            _ => {
                let reason = format!("an array of {count} objects has another number of them");
                return Err(self.wrong(reason));
            }
        }
        self.arena.charge(4 * count + 64)?;
        // In row-major order whatever the flag says: numpy iterates objects so.
        let items = self.arena.items(data).unwrap_or_default().to_vec();
        Ok(Node::Objects(Arc::new(Objects { shape, items })))
    }

    /// `(version, shape, dtype, Fortran order, data, mask, fill value)`.
    fn masked_state(&mut self, state: Id) -> Result<Node, Fault> {
        let Some(&[_, shape, dtype, fortran, data, mask, _]) = self.arena.items(state) else {
            return Err(self.wrong("the state of a masked array has 7 items"));
        };
        self.arena.charge(256)?;
        let plain = self.arena.add(Node::List(vec![NONE, shape, dtype, fortran, data]))?;
        let data = self.array_state(plain)?;
        let data = self.arena.add(data)?;
        let shape = self.shape(shape)?;
        let raw = self.raw(mask)?;
        let fortran = self.arena.as_int(fortran).is_some_and(|fortran| fortran != 0);
        let truth = Dtype::parse("b1").map_err(|reason| self.wrong(reason))?;
        let mask = self.decode(&truth, &shape, fortran, &raw)?;
        let mask = self.decoded(&shape, mask)?;
        let (data_key, mask_key) = (self.arena.text("data")?, self.arena.text("mask")?);
        let state = self.arena.add(Node::Dict(vec![(data_key, data), (mask_key, mask)]))?;
        let class = self.numpy_class("MaskedArray")?;
        Ok(Node::Object { class, arguments: NONE, state })
    }

    /// An array whose bytes, or whose own pickle, follow the state of joblib's wrapper.
    fn joblib_array(&mut self, state: Id) -> Result<Id, Fault> {
        let field = |name: &str| {
            let found = self.arena.key(state, name);
            found.ok_or_else(|| self.wrong(format!("an array of joblib has no {name}")))
        };
        let (subclass, dtype, shape) = (field("subclass")?, field("dtype")?, field("shape")?);
        let fortran = self.arena.as_text(field("order")?) == Some("F");
        let aligned = self.arena.key(state, "numpy_array_alignment_bytes");
        let aligned = aligned.is_some_and(|bytes| bytes != NONE);
        if self.symbols.get(&subclass) != Some(&Symbol::NdArray) {
            let found = self.arena.node(subclass);
            let name = if let Node::Global(global) = found { &global.name } else { "no class" };
            return Err(
                self.wrong(format!("an array of joblib of the class {name}; ndarray is read"))
            );
        }
        let (dtype, shape) = (self.dtype_of(dtype)?, self.shape(shape)?);
        if dtype.has_objects() {
            let id = self.run()?;
            return match self.arena.node(id) {
                Node::Objects(_) | Node::Object { .. } => Ok(id),
                _ => Err(self.wrong("the pickle of an array of objects holds something else")),
            };
        }
        if aligned {
            let padding = usize::from(self.input.byte()?);
            self.input.bytes(padding)?;
        }
        let count: usize = shape.iter().product();
        let Some(length) = count.checked_mul(dtype.size()) else {
            return Err(self.wrong(format!("an array of shape {shape:?} cannot be addressed")));
        };
        let raw = self.read_bytes(length)?;
        let decoded = self.decode(&dtype, &shape, fortran, &raw)?;
        self.arena.refund(length);
        self.decoded(&shape, decoded)
    }
}

/// Whether a codec is Latin-1 (its name in lower case).
fn is_latin1(name: &str) -> bool {
    matches!(name, "latin1" | "latin-1" | "latin_1" | "iso-8859-1" | "iso8859-1")
}
