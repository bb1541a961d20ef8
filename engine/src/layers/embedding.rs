//! Token embedding and output head.

use std::sync::Arc;

use crate::layers::{Linear, Weight, WeightLoader};
use crate::load::LoadError;
use crate::ops::{Act, Ids, OpError, Ops, Rows};

/// Lookup table `[vocab, hidden]`.
#[derive(Debug)]
pub struct Embedding {
    table: Arc<Weight>,
    scale: f32,
}

impl Embedding {
    /// Reads `name.weight`.
    ///
    /// # Errors
    /// When the tensor is absent or has another shape.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        entries: usize,
        width: usize,
    ) -> Result<Self, LoadError> {
        Ok(Self { table: loader.weight(&format!("{name}.weight"), entries, width)?, scale: 1.0 })
    }

    /// Multiplies every row by `scale` (Gemma).
    pub fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    /// Rows of the step's tokens or positions: `[tokens, hidden]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, ops: &mut dyn Ops, ids: Ids) -> Result<Act, OpError> {
        let out = ops.alloc(Rows::Tokens, self.table.cols);
        ops.embed(&self.table, ids, self.scale, out)?;
        Ok(out)
    }
}

/// Projection to the vocabulary.
#[derive(Debug)]
pub struct Head {
    linear: Linear,
}

impl Head {
    /// Reads `name.weight`, or shares the embedding's matrix when `tied` or when it is absent.
    ///
    /// # Errors
    /// When the tensor has another shape.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        tied: bool,
        embedding: &Embedding,
    ) -> Result<Self, LoadError> {
        let table = &embedding.table;
        let tensor = format!("{name}.weight");
        let weight = if tied {
            loader.ignore(&[&tensor]);
            Arc::clone(table)
        } else {
            loader.weight(&tensor, table.rows, table.cols)?
        };
        Ok(Self { linear: Linear { parts: vec![(weight, None)] } })
    }

    /// `x: [outputs, hidden]` to logits `[outputs, vocab]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, ops: &mut dyn Ops, x: Act) -> Result<Act, OpError> {
        let out = ops.alloc(Rows::Outputs, self.linear.outputs());
        ops.linear(&self.linear, x, out)?;
        Ok(out)
    }
}
