//! The opcodes: a stack, marks and a memo over the arena.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Fault;
use crate::pickle::arena::{Arena, FALSE, NONE, TRUE};
use crate::pickle::calls::Draft;
use crate::pickle::classes::{self, Symbol};
use crate::pickle::input::Input;
use crate::pickle::{Id, Name, Node, Pickle, text};

/// How deep pickles may be nested in each other: joblib puts one into a file for each array of objects.
const MAX_DEPTH: usize = 8;
/// Bytes of the longest integer that is kept: states of random generators have 16.
const MAX_INTEGER: usize = 256;
/// Bytes of the longest name of a module or class.
const MAX_NAME: usize = 512;
/// A place of the memo that nothing was put into.
const UNSET: Id = Id::MAX;

/// A file being read.
pub(super) struct Machine<'a> {
    pub(super) input: Input<'a>,
    pub(super) arena: Arena,
    /// Values that a later BUILD completes.
    pub(super) drafts: HashMap<Id, Draft>,
    /// What the nodes of globals stand for.
    pub(super) symbols: HashMap<Id, Symbol>,
    /// Nodes of globals, by module and name.
    globals: HashMap<Arc<Name>, Id>,
    /// Offset of the current opcode.
    at: usize,
    /// Bytes of the decoder's window that are charged.
    window: usize,
    depth: usize,
}

/// The stack of one pickle; nested pickles have their own.
#[derive(Default)]
pub(super) struct Stack {
    items: Vec<Id>,
    marks: Vec<usize>,
    memo: Vec<Id>,
}

impl<'a> Machine<'a> {
    /// A machine that reads `input` into `arena`.
    pub(super) fn new(input: Input<'a>, arena: Arena) -> Self {
        Self {
            input,
            arena,
            drafts: HashMap::new(),
            symbols: HashMap::new(),
            globals: HashMap::new(),
            at: 0,
            window: 0,
            depth: 0,
        }
    }

    /// Reads the pickle.
    pub(super) fn read(mut self) -> Result<Pickle, Fault> {
        let root = self.run()?;
        self.input.finish()?;
        Ok(Pickle { left: Cell::new(self.arena.left()), nodes: self.arena.nodes, root })
    }

    /// Runs opcodes up to STOP and gives the value; also for a pickle within the pickle.
    pub(super) fn run(&mut self) -> Result<Id, Fault> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong(format!("pickles are nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let mut stack = Stack::default();
        loop {
            self.at = self.input.offset();
            let opcode = self.input.byte()?;
            self.charge_window()?;
            if opcode == b'.' {
                self.depth -= 1;
                return self.pop(&mut stack);
            }
            self.step(opcode, &mut stack)?;
        }
    }

    /// Charges what the decoder has kept since the last call.
    fn charge_window(&mut self) -> Result<(), Fault> {
        let window = self.input.window();
        self.arena.charge(window - self.window)?;
        self.window = window;
        Ok(())
    }

    /// A fault at the current opcode.
    pub(super) fn wrong(&self, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("byte {}", self.at), reason)
    }

    fn step(&mut self, opcode: u8, stack: &mut Stack) -> Result<(), Fault> {
        if let Some(id) = self.literal(opcode)? {
            return self.arena.push(&mut stack.items, id);
        }
        let known = self.collect(opcode, stack)?
            || self.memo(opcode, stack)?
            || self.apply(opcode, stack)?;
        match (known, opcode) {
            (true, _) => Ok(()),
            (_, 0x80) => match self.input.byte()? {
                0..=5 => Ok(()),
                other => {
                    Err(Fault::unsupported(format!("pickle protocol {other}; 0 to 5 are read")))
                }
            },
            (_, 0x95) => self.input.array::<8>().map(drop),
            (_, opcode) => Err(self.refused(opcode)),
        }
    }

    /// Why an opcode is not run.
    fn refused(&self, opcode: u8) -> Fault {
        let name = match opcode {
            b'P' | b'Q' => "a reference to data outside the file (PERSID)",
            0x82..=0x84 => "a class of a registry outside the file (EXT)",
            0x97 | 0x98 => "a buffer outside the file (NEXT_BUFFER)",
            b'i' => "an object as Python 1 wrote it (INST)",
            b'o' => "an object as Python 1 wrote it (OBJ)",
            _ => return self.wrong(format!("no opcode has the value {opcode:#04x}; not a pickle")),
        };
        Fault::unsupported(format!("{name} at byte {}; no library writes it into a model", self.at))
    }

    /// Opcodes that push one value without looking at the stack.
    fn literal(&mut self, opcode: u8) -> Result<Option<Id>, Fault> {
        Ok(Some(match opcode {
            b'N' => NONE,
            0x88 => TRUE,
            0x89 => FALSE,
            b'K' => {
                let value = self.input.byte()?;
                self.arena.int(value.into())?
            }
            b'M' => {
                let value = u16::from_le_bytes(self.input.array()?);
                self.arena.int(value.into())?
            }
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.arena.int(value.into())?
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.arena.add(Node::Float(value))?
            }
            b'I' | b'L' | b'F' => self.number_line(opcode)?,
            0x8a | 0x8b => self.long(opcode)?,
            b'S' | b'V' => self.text_line(opcode)?,
            b'T' | b'U' | b'X' | 0x8c | 0x8d => self.counted_text(opcode)?,
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(opcode)?;
                let bytes = self.read_bytes(length)?;
                self.bytes(bytes)?
            }
            _ => return Ok(None),
        }))
    }

    /// Adds bytes that are charged already.
    pub(super) fn bytes(&mut self, bytes: Vec<u8>) -> Result<Id, Fault> {
        // The copy into shared memory and the bytes exist side by side for a moment.
        self.arena.charge(bytes.len())?;
        let length = bytes.len();
        let id = self.arena.add(Node::Bytes(bytes.into()))?;
        self.arena.refund(length);
        Ok(id)
    }

    /// Reads and charges bytes.
    pub(super) fn read_bytes(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        self.arena.charge(length.saturating_add(32))?;
        let bytes = self.input.bytes(length)?;
        self.charge_window()?;
        Ok(bytes)
    }

    /// The length that stands before texts and bytes.
    fn length(&mut self, opcode: u8) -> Result<usize, Fault> {
        let length = match opcode {
            b'U' | b'C' | 0x8c => u64::from(self.input.byte()?),
            0x8d | 0x8e | 0x96 => u64::from_le_bytes(self.input.array()?),
            b'T' => {
                let length = i32::from_le_bytes(self.input.array()?);
                u64::try_from(length).map_err(|_| self.wrong("a negative length"))?
            }
            _ => u64::from(u32::from_le_bytes(self.input.array()?)),
        };
        usize::try_from(length).map_err(|_| self.wrong(format!("a length of {length} bytes")))
    }

    fn counted_text(&mut self, opcode: u8) -> Result<Id, Fault> {
        let length = self.length(opcode)?;
        let bytes = self.read_bytes(length)?;
        let text = match opcode {
            b'T' | b'U' => text::latin1(&bytes),
            _ => text::utf8(bytes),
        };
        let id = self.arena.text(&text);
        self.arena.refund(length + 32);
        id
    }

    fn text_line(&mut self, opcode: u8) -> Result<Id, Fault> {
        // A line is read before it can be charged: its limit keeps it within the slack.
        let line = self.input.line(1 << 20)?;
        let text = match opcode {
            b'S' => text::quoted(&line),
            _ => text::raw_unicode_escape(&line),
        };
        let text = text.ok_or_else(|| self.wrong("a text with a wrong escape or quote"))?;
        self.arena.text(&text)
    }

    fn number_line(&mut self, opcode: u8) -> Result<Id, Fault> {
        let line = text::utf8(self.input.line(4 * MAX_INTEGER)?);
        let wrong = || self.wrong(format!("{line:?} is not a number"));
        if opcode == b'F' {
            let value = line.trim().parse().map_err(|_| wrong())?;
            return self.arena.add(Node::Float(value));
        }
        match (opcode, line.as_str()) {
            (b'I', "00") => return Ok(FALSE),
            (b'I', "01") => return Ok(TRUE),
            _ => {}
        }
        let digits = line.trim().trim_end_matches('L');
        if let Ok(value) = digits.parse::<i64>() {
            return self.arena.int(value);
        }
        let magnitude = digits.strip_prefix('-').unwrap_or(digits);
        if magnitude.is_empty() || !magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        self.arena.charge(digits.len() + 32)?;
        self.arena.add(Node::Big(digits.into()))
    }

    fn long(&mut self, opcode: u8) -> Result<Id, Fault> {
        let length = match opcode {
            0x8a => usize::from(self.input.byte()?),
            _ => u32::from_le_bytes(self.input.array()?) as usize,
        };
        if length > MAX_INTEGER {
            let reason = format!("an integer of {length} bytes; at most {MAX_INTEGER} are read");
            return Err(self.wrong(reason));
        }
        let bytes = self.input.bytes(length)?;
        if length > 8 {
            let decimal = text::decimal(&bytes);
            return match decimal.parse() {
                Ok(value) => self.arena.int(value),
                Err(_) => {
                    self.arena.charge(decimal.len() + 32)?;
                    self.arena.add(Node::Big(decimal.into()))
                }
            };
        }
        let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
        let mut wide = [sign; 8];
        wide[..length].copy_from_slice(&bytes);
        self.arena.int(i64::from_le_bytes(wide))
    }

    /// Opcodes that make and fill collections.
    fn collect(&mut self, opcode: u8, stack: &mut Stack) -> Result<bool, Fault> {
        match opcode {
            b'(' => self.arena.push(&mut stack.marks, stack.items.len())?,
            b'0' if stack.marks.last() == Some(&stack.items.len()) => {
                stack.marks.pop();
            }
            b'0' => drop(self.pop(stack)?),
            b'1' => drop(self.above_mark(stack)?),
            b'2' => {
                let top = self.top(stack)?;
                self.arena.push(&mut stack.items, top)?;
            }
            b')' | b']' | 0x8f => self.push(stack, Node::List(Vec::new()))?,
            b'}' => self.push(stack, Node::Dict(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let items = self.above_mark(stack)?;
                self.arena.charge(4 * items.len() + 16)?;
                self.push(stack, Node::List(items))?;
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let items = (0..count).map(|_| self.pop(stack)).collect::<Result<Vec<_>, _>>()?;
                self.arena.charge(32)?;
                self.push(stack, Node::List(items.into_iter().rev().collect()))?;
            }
            b'd' => {
                let items = self.above_mark(stack)?;
                self.push(stack, Node::Dict(Vec::new()))?;
                self.set_items(stack, &items)?;
            }
            b'a' => {
                let item = self.pop(stack)?;
                self.extend(stack, &[item])?;
            }
            b'e' | 0x90 => {
                let items = self.above_mark(stack)?;
                self.extend(stack, &items)?;
            }
            b's' => {
                let (value, key) = (self.pop(stack)?, self.pop(stack)?);
                self.set_items(stack, &[key, value])?;
            }
            b'u' => {
                let items = self.above_mark(stack)?;
                self.set_items(stack, &items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn push(&mut self, stack: &mut Stack, node: Node) -> Result<(), Fault> {
        let id = self.arena.add(node)?;
        self.arena.push(&mut stack.items, id)
    }

    fn top(&self, stack: &Stack) -> Result<Id, Fault> {
        let bottom = stack.marks.last().copied().unwrap_or(0);
        match stack.items.last() {
            Some(&id) if stack.items.len() > bottom => Ok(id),
            _ => Err(self.wrong("an opcode needs a value, the stack has none")),
        }
    }

    fn pop(&self, stack: &mut Stack) -> Result<Id, Fault> {
        let id = self.top(stack)?;
        stack.items.pop();
        Ok(id)
    }

    fn above_mark(&self, stack: &mut Stack) -> Result<Vec<Id>, Fault> {
        match stack.marks.pop() {
            Some(mark) => Ok(stack.items.split_off(mark)),
            None => Err(self.wrong("an opcode needs a mark, the stack has none")),
        }
    }

    /// Appends to the list on top of the stack.
    fn extend(&mut self, stack: &Stack, more: &[Id]) -> Result<(), Fault> {
        let top = self.top(stack)?;
        self.arena.charge(8 * more.len())?;
        match self.arena.node_mut(top) {
            Node::List(items) => {
                items.extend_from_slice(more);
                Ok(())
            }
            _ => Err(self.wrong(format!("appends to {}", self.arena.describe(top)))),
        }
    }

    /// Adds keys and values, one after the other, to the dictionary on top of the stack.
    fn set_items(&mut self, stack: &Stack, more: &[Id]) -> Result<(), Fault> {
        let top = self.top(stack)?;
        let (pairs, rest) = more.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.wrong("a key without a value"));
        }
        self.arena.charge(16 * pairs.len())?;
        match self.arena.node_mut(top) {
            Node::Dict(entries) => {
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            _ => Err(self.wrong(format!("sets items of {}", self.arena.describe(top)))),
        }
    }

    /// Opcodes of the memo.
    fn memo(&mut self, opcode: u8, stack: &mut Stack) -> Result<bool, Fault> {
        let index = match opcode {
            0x94 => stack.memo.len(),
            b'q' | b'h' => usize::from(self.input.byte()?),
            b'r' | b'j' => u32::from_le_bytes(self.input.array()?) as usize,
            b'p' | b'g' => {
                let line = self.input.line(20)?;
                let number = std::str::from_utf8(&line).ok().and_then(|line| line.parse().ok());
                number.ok_or_else(|| self.wrong("an index of the memo is not a number"))?
            }
            _ => return Ok(false),
        };
        if matches!(opcode, b'h' | b'j' | b'g') {
            let found = stack.memo.get(index).copied().filter(|&id| id != UNSET);
            let id = found.ok_or_else(|| self.wrong(format!("the memo has no entry {index}")))?;
            self.arena.push(&mut stack.items, id)?;
            return Ok(true);
        }
        let id = self.top(stack)?;
        // Writers number entries one by one, so an index past the bytes read so far is an attack on memory.
        if index > self.at {
            return Err(self.wrong(format!("entry {index} of the memo skips entries")));
        }
        while stack.memo.len() <= index {
            self.arena.push(&mut stack.memo, UNSET)?;
        }
        stack.memo[index] = id;
        Ok(true)
    }

    /// Opcodes that name globals and apply them.
    fn apply(&mut self, opcode: u8, stack: &mut Stack) -> Result<bool, Fault> {
        match opcode {
            b'c' | b'i' => {
                let module = text::utf8(self.input.line(MAX_NAME)?);
                let name = text::utf8(self.input.line(MAX_NAME)?);
                let id = self.global(&module, &name)?;
                if opcode == b'i' {
                    return Err(self.refused(opcode));
                }
                self.arena.push(&mut stack.items, id)?;
            }
            0x93 => {
                let (name, module) = (self.pop(stack)?, self.pop(stack)?);
                let text = |id| {
                    let text = self.arena.as_text(id).filter(|text| text.len() <= MAX_NAME);
                    text.map(str::to_owned)
                        .ok_or_else(|| self.wrong("the name of a global is no text"))
                };
                let (module, name) = (text(module)?, text(name)?);
                let id = self.global(&module, &name)?;
                self.arena.push(&mut stack.items, id)?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop(stack)?, self.pop(stack)?);
                let id = self.call(callable, arguments)?;
                self.arena.push(&mut stack.items, id)?;
            }
            0x92 => {
                let keywords = self.pop(stack)?;
                let (arguments, class) = (self.pop(stack)?, self.pop(stack)?);
                if !matches!(self.arena.node(keywords), Node::Dict(entries) if entries.is_empty()) {
                    return Err(self.wrong("an object is made with keyword arguments"));
                }
                let id = self.call(class, arguments)?;
                self.arena.push(&mut stack.items, id)?;
            }
            b'b' => {
                let state = self.pop(stack)?;
                let target = self.pop(stack)?;
                let id = self.build(target, state)?;
                self.arena.push(&mut stack.items, id)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The node of a global; its name must be in the table.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<Id, Fault> {
        let (module, name) = classes::modern(module, name);
        let key = Arc::new(Name { module: module.into(), name: name.into() });
        if let Some(&id) = self.globals.get(&key) {
            return Ok(id);
        }
        let symbol =
            classes::symbol(module, name).ok_or_else(|| classes::refusal(module, name, self.at))?;
        self.arena.charge(module.len() + name.len() + 256)?;
        let id = self.arena.add(Node::Global(Arc::clone(&key)))?;
        self.symbols.insert(id, symbol);
        self.globals.insert(key, id);
        Ok(id)
    }
}
