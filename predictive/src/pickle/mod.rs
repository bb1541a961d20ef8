//! Pickles and joblib files as plain data. Nothing in them is executed.
//!
//! [`read`] runs the opcodes of protocols 0 to 5 over an arena of nodes ([`Pickle`]). A class or function is a symbol from
//! a fixed table; calling one builds data or keeps the call as an inert [`Object`], and every name outside the table
//! refuses the file. Compressed files are unpacked as they are read, never as a whole.
//!
//! Memory is at most four times the file plus 64 MiB, whatever the file says: each allocation is charged to a budget before
//! it is made, and a compressed file may not unpack to more than that either.

mod arena;
mod calls;
mod classes;
mod containers;
mod input;
mod machine;
mod numpy;
mod text;
mod value;
mod xz;

use crate::error::Fault;
pub(crate) use value::{Id, Name, Node, Objects, Records};
pub use value::{Object, Pickle, Value};

/// Reads a pickle or a joblib file, compressed or not.
///
/// # Errors
/// When the bytes are no pickle, hold a global that models do not need (named), or ask for more memory than four times
/// their length plus 64 MiB.
pub fn read(bytes: &[u8]) -> Result<Pickle, Fault> {
    let container = containers::open(bytes)?;
    machine::Machine::new(container, bytes.len()).read()
}

/// Whether the first bytes of a file are those of a pickle of protocol 2 or newer, or of a container of one.
pub(crate) fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..]) || containers::is_compressed(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_small() {
        // A vocabulary of a million words has two nodes a word.
        assert!(size_of::<Node>() <= 32);
    }
}
