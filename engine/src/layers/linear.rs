//! Packed weight matrices and how they are read from a checkpoint.
//!
//! A [`Linear`] may have several parts that share one input (q, k, v; gate, up): they run in one
//! fork-join and write side by side into one packed row. Weights are packed once, at load, into the
//! layout the kernels read; in a plan-only load ([`WeightLoader::plan`]) only shapes are kept.

use std::sync::Arc;

use half::{bf16, f16};
use tokenmill_kernels::matrix::{PackedMatrix, WeightType};

use crate::load::LoadError;
use crate::weights::{LoadReport, StoredType, TensorView, Weights, dequantize};

/// One matrix `[rows (outputs), cols (inputs)]`.
#[derive(Debug)]
pub struct Weight {
    /// Storage type after loading.
    pub dtype: WeightType,
    /// Output features, or table entries.
    pub rows: usize,
    /// Input features, or width of an entry.
    pub cols: usize,
    /// Absent in a plan-only load.
    pub packed: Option<PackedMatrix>,
}

impl Weight {
    /// The packed matrix.
    ///
    /// # Panics
    /// In a plan-only load: nothing may compute with it.
    pub fn matrix(&self) -> &PackedMatrix {
        self.packed.as_ref().expect("weights of a plan-only load are never computed with")
    }

    /// Bytes of the packed form.
    pub fn bytes(&self) -> u64 {
        PackedMatrix::packed_bytes(self.dtype, self.rows, self.cols) as u64
    }
}

/// A product with a packed matrix, or with several that share the input.
#[derive(Debug)]
pub struct Linear {
    /// The matrices and their biases, in the order of their output columns.
    pub parts: Vec<(Arc<Weight>, Option<Vec<f32>>)>,
}

impl Linear {
    /// Input features.
    pub fn inputs(&self) -> usize {
        self.parts[0].0.cols
    }

    /// Output features of all parts.
    pub fn outputs(&self) -> usize {
        self.parts.iter().map(|(weight, _)| weight.rows).sum()
    }
}

/// Names one part of a [`Linear`].
#[derive(Clone, Copy, Debug)]
pub struct LinearSpec<'a> {
    /// Tensor name without `.weight`.
    pub name: &'a str,
    /// Output features.
    pub outputs: usize,
    /// Whether `name.bias` is read.
    pub bias: bool,
}

/// Type that float weights are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatType {
    /// As stored.
    #[default]
    Stored,
    /// 32 bits; quantised weights are dequantised.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

/// Reads tensors for model files and packs them.
pub struct WeightLoader<'a> {
    weights: Weights<'a>,
    float: FloatType,
    pack: bool,
    progress: &'a mut dyn FnMut(u64),
    parameters: u64,
    packed_bytes: u64,
}

impl<'a> WeightLoader<'a> {
    /// Reads and packs; `progress` gets the stored bytes of each matrix read.
    pub fn new(weights: Weights<'a>, float: FloatType, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { weights, float, pack: true, progress, parameters: 0, packed_bytes: 0 }
    }

    /// Keeps shapes only: nothing of the weights' contents is read but vectors.
    pub fn plan(weights: Weights<'a>, float: FloatType, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { weights, float, pack: false, progress, parameters: 0, packed_bytes: 0 }
    }

    /// Which tensors were not read.
    pub fn report(&self) -> LoadReport {
        self.weights.report()
    }

    /// Values read so far.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Bytes that what was read so far takes in memory.
    pub fn packed_bytes(&self) -> u64 {
        self.packed_bytes
    }

    /// Whether a tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// Whether the checkpoint is a GGUF file, whose converter changes some tensors.
    pub fn is_gguf(&self) -> bool {
        self.weights.is_gguf()
    }

    /// Tensors that carry nothing the model needs, by the end of their names.
    pub fn ignore(&mut self, suffixes: &[&str]) {
        self.weights.ignore(suffixes);
    }

    /// A vector of `len` values as `f32`.
    ///
    /// # Errors
    /// When it is absent or has another shape.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.parameters += len as u64;
        self.packed_bytes += 4 * len as u64;
        self.weights.vector(name, len)
    }

    /// A matrix `[rows, cols]`.
    ///
    /// # Errors
    /// When it is absent, has another shape, or a type that cannot be computed with.
    pub fn weight(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Arc<Weight>, LoadError> {
        let view = self.weights.matrix(name, rows, cols)?;
        let dtype = kept_type(&view, self.float)?;
        let stored_bytes = view.bytes.len() as u64;
        let packed = if self.pack { Some(pack(&view, dtype, rows, cols)?) } else { None };
        (self.progress)(stored_bytes);
        let weight = Weight { dtype, rows, cols, packed };
        self.parameters += (rows * cols) as u64;
        self.packed_bytes += weight.bytes();
        Ok(Arc::new(weight))
    }

    /// A matrix stored `[cols, rows]` (GPT-2's Conv1D), transposed while packing.
    ///
    /// # Errors
    /// As [`Self::weight`]; quantised tensors cannot be transposed.
    pub fn transposed_weight(
        &mut self,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Arc<Weight>, LoadError> {
        let view = self.weights.matrix(name, cols, rows)?;
        let dtype = kept_type(&view, self.float)?;
        let size = view.dtype.float_size().ok_or_else(|| LoadError::UnsupportedType {
            tensor: name.to_owned(),
            dtype: view.dtype.name().to_owned(),
            supported: "F32, F16, BF16 (a Conv1D weight is transposed)".to_owned(),
        })?;
        let stored_bytes = view.bytes.len() as u64;
        let packed = if self.pack {
            let mut bytes = Vec::with_capacity(view.bytes.len());
            for row in 0..rows {
                for col in 0..cols {
                    let at = (col * rows + row) * size;
                    bytes.extend_from_slice(&view.bytes[at..at + size]);
                }
            }
            let turned = TensorView { bytes: &bytes, shape: vec![rows, cols], ..view };
            Some(pack(&turned, dtype, rows, cols)?)
        } else {
            None
        };
        (self.progress)(stored_bytes);
        let weight = Weight { dtype, rows, cols, packed };
        self.parameters += (rows * cols) as u64;
        self.packed_bytes += weight.bytes();
        Ok(Arc::new(weight))
    }

    /// A product whose parts share the input of `inputs` features.
    ///
    /// # Errors
    /// As [`Self::weight`].
    pub fn linear(&mut self, parts: &[LinearSpec<'_>], inputs: usize) -> Result<Linear, LoadError> {
        let parts = parts
            .iter()
            .map(|part| {
                let weight = self.weight(&format!("{}.weight", part.name), part.outputs, inputs)?;
                let bias = match part.bias {
                    true => Some(self.vector(&format!("{}.bias", part.name), part.outputs)?),
                    false => None,
                };
                Ok((weight, bias))
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        Ok(Linear { parts })
    }
}

/// The type a stored tensor is packed in: floats as `float` says, quantised as it is unless `float`
/// is [`FloatType::F32`].
fn kept_type(view: &TensorView<'_>, float: FloatType) -> Result<WeightType, LoadError> {
    let stored = match view.dtype {
        StoredType::F32 => WeightType::F32,
        StoredType::F16 => WeightType::F16,
        StoredType::Bf16 => WeightType::Bf16,
        // What `float32` asks for is exact arithmetic on the stored values.
        StoredType::Q8_0 | StoredType::Q4_0 | StoredType::Q4_1 if float == FloatType::F32 => {
            return Ok(WeightType::F32);
        }
        StoredType::Q8_0 => return Ok(WeightType::Q8_0),
        StoredType::Q4_0 => return Ok(WeightType::Q4_0),
        StoredType::Q4_1 => return Ok(WeightType::Q4_1),
        other => {
            return Err(LoadError::UnsupportedType {
                tensor: view.name.to_owned(),
                dtype: other.name().to_owned(),
                supported: "F32, F16, BF16, Q8_0, Q4_0, Q4_1".to_owned(),
            });
        }
    };
    Ok(match float {
        FloatType::Stored => stored,
        FloatType::F32 => WeightType::F32,
        FloatType::F16 => WeightType::F16,
        FloatType::Bf16 => WeightType::Bf16,
    })
}

/// Packs row by row, so that conversion and reordering need one row of memory.
fn pack(
    view: &TensorView<'_>,
    dtype: WeightType,
    rows: usize,
    cols: usize,
) -> Result<PackedMatrix, LoadError> {
    let failed = |reason: String| LoadError::Tensor { tensor: view.name.to_owned(), reason };
    let mut builder =
        PackedMatrix::builder(dtype, rows, cols).map_err(|error| failed(error.to_string()))?;
    let mut converted = Vec::new();
    for row in 0..rows {
        let stored = view.row(row);
        let bytes = convert(stored, view.dtype, dtype, &mut converted);
        builder.push_rows(bytes).map_err(|error| failed(error.to_string()))?;
    }
    builder.finish().map_err(|error| failed(error.to_string()))
}

/// One row from a stored float type to the kept one; the same bytes when the types agree.
fn convert<'b>(
    stored: &'b [u8],
    from: StoredType,
    to: WeightType,
    buffer: &'b mut Vec<u8>,
) -> &'b [u8] {
    let same = matches!(
        (from, to),
        (StoredType::F32, WeightType::F32)
            | (StoredType::F16, WeightType::F16)
            | (StoredType::Bf16, WeightType::Bf16)
            | (StoredType::Q8_0, WeightType::Q8_0)
            | (StoredType::Q4_0, WeightType::Q4_0)
            | (StoredType::Q4_1, WeightType::Q4_1)
    );
    if same {
        return stored;
    }
    buffer.clear();
    let mut push = |value: f32| match to {
        WeightType::F16 => buffer.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
        WeightType::Bf16 => buffer.extend_from_slice(&bf16::from_f32(value).to_le_bytes()),
        _ => buffer.extend_from_slice(&value.to_le_bytes()),
    };
    match from {
        StoredType::F16 => {
            stored.chunks_exact(2).for_each(|b| push(f16::from_le_bytes([b[0], b[1]]).to_f32()));
        }
        StoredType::Q8_0 | StoredType::Q4_0 | StoredType::Q4_1 => {
            let mut values = Vec::new();
            dequantize(from, stored, &mut values).expect("a row is whole blocks");
            values.into_iter().for_each(push);
        }
        StoredType::Bf16 => {
            stored.chunks_exact(2).for_each(|b| push(bf16::from_le_bytes([b[0], b[1]]).to_f32()));
        }
        _ => {
            stored.chunks_exact(4).for_each(|b| push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        }
    }
    buffer
}
