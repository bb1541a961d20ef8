//! The binary layout of XGBoost up to 3.0: little-endian structures one after the other.

use super::bytes::Bytes;
use super::schema::{Raw, RawNode, RawTree};
use super::source::inside;
use crate::error::Fault;

/// Bytes of the learner's parameters at the head of a file without magic.
const LEARNER: usize = 136;

/// What a node's feature holds when the node is deleted.
const DELETED: u32 = u32::MAX;

/// Whether bytes without magic can be a model: plausible parameters, then the name of an objective.
pub(super) fn is_plausible(head: &[u8]) -> bool {
    let mut reader = Bytes::new(head.strip_prefix(b"binf").unwrap_or(head));
    let Ok(_) = reader.take(LEARNER) else { return false };
    let Ok(length) = reader.u64() else { return false };
    let Ok(length @ 3..=64) = usize::try_from(length) else { return false };
    let name = reader.take(length).unwrap_or_default();
    let is_name =
        |byte: &u8| byte.is_ascii_lowercase() || matches!(byte, b':' | b'_' | b'0'..=b'9');
    name.len() == length && name.contains(&b':') && name.iter().all(is_name)
}

/// Reads a file, with magic or without.
pub(super) fn read(bytes: &[u8]) -> Result<Raw, Fault> {
    let mut reader = Bytes::new(bytes.strip_prefix(b"binf").unwrap_or(bytes));
    let mut raw = Raw::default();
    let (has_attributes, has_metrics) = reader.learner(&mut raw)?;
    raw.objective = reader.name().map_err(|fault| inside("objective", fault))?;
    raw.booster.name = reader.name().map_err(|fault| inside("booster", fault))?;
    match raw.booster.name.as_str() {
        "gblinear" => {
            reader.take(LEARNER)?;
            raw.booster.weights = reader.vector()?;
        }
        "gbtree" => reader.trees(&mut raw)?,
        "dart" => {
            reader.trees(&mut raw)?;
            raw.booster.weight_drop = reader.vector()?;
        }
        // The booster is checked, and named, with those of the other containers.
        _ => return Ok(raw),
    }
    if has_attributes {
        for _ in 0..reader.u64()? {
            let key = reader.blob()?;
            let value = reader.blob()?;
            if key == b"best_iteration" {
                raw.best_iteration = Some(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    if has_metrics {
        for _ in 0..reader.u64()? {
            reader.blob()?;
        }
    }
    reader.padding()?;
    Ok(raw)
}

impl<'a> Bytes<'a> {
    fn word(&mut self) -> Result<[u8; 4], Fault> {
        let raw = self.take(4)?;
        Ok([raw[0], raw[1], raw[2], raw[3]])
    }

    fn i32(&mut self) -> Result<i32, Fault> {
        self.word().map(i32::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.word().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        let (low, high) = (self.u32()?, self.u32()?);
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    /// A count that is stored as a signed integer.
    fn count(&mut self, what: &str) -> Result<usize, Fault> {
        let count = self.i32()?;
        usize::try_from(count).map_err(|_| self.wrong(format!("{what} is {count}")))
    }

    fn blob(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u64()?;
        let length = usize::try_from(length).map_err(|_| self.wrong("a length beyond memory"))?;
        self.take(length)
    }

    fn name(&mut self) -> Result<String, Fault> {
        let bytes = self.blob()?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| self.wrong("a text is not UTF-8"))
    }

    fn vector(&mut self) -> Result<Vec<f32>, Fault> {
        let count = self.u64()?;
        let count = usize::try_from(count).map_err(|_| self.wrong("a count beyond memory"))?;
        let raw = self.elements(count, 4)?;
        Ok(raw.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }

    /// The parameters; whether attributes and metrics follow the booster.
    fn learner(&mut self, raw: &mut Raw) -> Result<(bool, bool), Fault> {
        let end = self.at + LEARNER;
        let score = f32::from_le_bytes(self.word()?);
        if !score.is_finite() {
            return Err(Fault::corrupt("base_score", format!("{score} is not finite")));
        }
        raw.base_score = vec![score];
        raw.num_feature = self.u32()? as usize;
        raw.num_class = self.count("num_class")?;
        let (has_attributes, has_metrics) = (self.i32()? != 0, self.i32()? != 0);
        let (major, minor) = (self.u32()?, self.u32()?);
        raw.num_target = self.u32()? as usize;
        raw.version = (major > 0).then_some([major, minor, 0]);
        raw.base_is_margin = major == 0;
        let rest = end - self.at;
        self.take(rest)?;
        Ok((has_attributes, has_metrics))
    }

    fn trees(&mut self, raw: &mut Raw) -> Result<(), Fault> {
        let end = self.at + 160;
        let trees = self.count("num_trees")?;
        raw.booster.num_parallel_tree = self.count("num_parallel_tree")?;
        let rest = end - self.at;
        self.take(rest)?;
        for index in 0..trees {
            let tree = self.tree().map_err(|fault| inside(&format!("trees[{index}]"), fault))?;
            raw.booster.trees.push(tree);
        }
        let info = self.elements(trees, 4)?.as_chunks::<4>().0;
        raw.booster.tree_info = info.iter().map(|word| i32::from_le_bytes(*word)).collect();
        Ok(())
    }

    fn tree(&mut self) -> Result<RawTree, Fault> {
        let end = self.at + 148;
        self.i32()?;
        let nodes = self.count("num_nodes")?;
        let rest = end - self.at;
        self.take(rest)?;
        if nodes == 0 {
            return Err(self.wrong("a tree without nodes"));
        }
        let records = self.elements(nodes, 20)?;
        self.elements(nodes, 16)?;
        let node = |record: &[u8; 20]| {
            let words = record.as_chunks::<4>().0;
            let index = u32::from_le_bytes(words[3]);
            RawNode {
                left: i32::from_le_bytes(words[1]),
                right: i32::from_le_bytes(words[2]),
                feature: if index == DELETED { DELETED } else { index & 0x7fff_ffff },
                condition: f32::from_le_bytes(words[4]),
                default_left: (index >> 31) as u8,
                split_type: 0,
            }
        };
        let nodes = records.as_chunks::<20>().0.iter().map(node).collect();
        Ok(RawTree { nodes, extras: None })
    }
}
