//! Weights of the two norms.

use crate::layers::WeightLoader;
use crate::load::LoadError;

/// `x / sqrt(mean(x^2) + eps) * (weight + offset)` (arXiv:1910.07467).
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// `[width]`
    pub weight: Vec<f32>,
    /// Added to the mean square.
    pub eps: f32,
    /// Added to the weight: 1 in Gemma's checkpoints, 0 elsewhere.
    pub offset: f32,
}

impl RmsNorm {
    /// Reads `name.weight` of `width` values.
    ///
    /// # Errors
    /// When the tensor is absent or has another shape.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        width: usize,
        eps: f32,
    ) -> Result<Self, LoadError> {
        Ok(Self { weight: loader.vector(&format!("{name}.weight"), width)?, eps, offset: 0.0 })
    }

    /// Number of values normalised together.
    pub fn width(&self) -> usize {
        self.weight.len()
    }
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` (arXiv:1607.06450).
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// `[width]`
    pub weight: Vec<f32>,
    /// `[width]`
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Reads `name.weight` and `name.bias` of `width` values.
    ///
    /// # Errors
    /// When a tensor is absent or has another shape.
    pub fn load(
        loader: &mut WeightLoader<'_>,
        name: &str,
        width: usize,
        eps: f32,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            weight: loader.vector(&format!("{name}.weight"), width)?,
            bias: loader.vector(&format!("{name}.bias"), width)?,
            eps,
        })
    }
}
