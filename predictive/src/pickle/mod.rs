//! Pickles and joblib files as plain data. Nothing in them is executed.
//!
//! [`read`] runs the opcodes of protocols 0 to 5 over an arena of nodes ([`Pickle`]). A class or function is a symbol from
//! a fixed table; calling one builds data or keeps the call as an inert [`Object`], and every name outside the table
//! refuses the file. Compressed files are unpacked as they are read, never as a whole.
//!
//! Memory is at most four times the file plus 64 MiB, whatever the file says: each allocation is charged to a budget before
//! it is made. A compressed file counts as what it unpacks to, which is found out first and without keeping anything; one
//! that unpacks to more than 128 times itself and 64 MiB is no model.

mod arena;
mod calls;
mod classes;
mod containers;
mod input;
mod machine;
mod numpy;
mod object;
mod text;
mod value;
mod xz;

use crate::error::Fault;
use arena::Arena;
use input::Input;
pub use object::Object;
pub(crate) use value::{Id, Name, Node, Objects, Records};
pub use value::{Pickle, Value};

/// How many times its own length a compressed file may unpack to. Forests of scikit-learn reach 4 to 18, those of 200 classes
/// 38 to 77.
const RATIO: usize = 128;
/// Memory that a file of any size may take.
const FLOOR: usize = 64 << 20;

/// Reads a pickle or a joblib file, compressed or not.
///
/// # Errors
/// When the bytes are no pickle, hold a global that models do not need (named), unpack to many times their length, or ask
/// for more memory than four times what they unpack to plus 64 MiB.
pub fn read(bytes: &[u8]) -> Result<Pickle, Fault> {
    let unpacked = unpacked(bytes)?;
    // A small file that unpacks to more than a model does counts as itself.
    let counted = if unpacked / RATIO <= bytes.len() { unpacked } else { bytes.len() };
    let limit = counted.saturating_mul(4).saturating_add(FLOOR);
    let input = Input::new(containers::open(bytes, unpacked)?, limit);
    machine::Machine::new(input, Arena::new(limit, bytes.len())).read()
}

/// The length of what is in a container, within bounds.
fn unpacked(bytes: &[u8]) -> Result<usize, Fault> {
    if !containers::is_compressed(bytes) {
        return Ok(bytes.len());
    }
    // What the decoder refers back to, together with the file, is within the bounds of memory.
    let window = bytes.len().saturating_mul(3).saturating_add(FLOOR / 8 * 7);
    Input::new(containers::open(bytes, window)?, bytes.len().saturating_mul(RATIO).max(FLOOR))
        .length()
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
