//! Owned arrays of one element type: attributes of a file, labels, probabilities.

use std::sync::Arc;

use crate::tensor::{DataType, Tensor};

/// The elements of an [`Array`], in the width that computation wants; [`Array::dtype`] keeps the width of the library.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision (also what half precision widens to).
    F64(Vec<f64>),
    /// Integers of every width, and booleans as 0 and 1.
    Int(Vec<i64>),
    /// Texts.
    Text(Vec<Arc<str>>),
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::Int(values) => values.len(),
            Values::Text(values) => values.len(),
        }
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A dense row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    dtype: DataType,
    shape: Vec<usize>,
    values: Values,
}

impl Array {
    /// An array; `dtype` says the width that answers have (INT64, INT32, BOOL for [`Values::Int`], and so on).
    ///
    /// # Panics
    /// When the number of values is not the product of the shape: shapes of files are checked before.
    pub fn new(dtype: DataType, shape: Vec<usize>, values: Values) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "values fill the shape");
        Self { dtype, shape, values }
    }

    /// FP64.
    pub fn f64(shape: Vec<usize>, values: Vec<f64>) -> Self {
        Self::new(DataType::Fp64, shape, Values::F64(values))
    }

    /// FP32.
    pub fn f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self::new(DataType::Fp32, shape, Values::F32(values))
    }

    /// INT64.
    pub fn i64(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self::new(DataType::Int64, shape, Values::Int(values))
    }

    /// BYTES.
    pub fn text(shape: Vec<usize>, values: Vec<Arc<str>>) -> Self {
        Self::new(DataType::Bytes, shape, Values::Text(values))
    }

    /// Element type of answers.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row major.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// True without elements.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The numbers as `f64`; `None` for texts.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        match &self.values {
            Values::F32(values) => Some(values.iter().copied().map(f64::from).collect()),
            Values::F64(values) => Some(values.clone()),
            Values::Int(values) => Some(values.iter().map(|&value| value as f64).collect()),
            Values::Text(_) => None,
        }
    }

    /// The elements at `indices` of a one-dimensional array, in an array of `shape`: labels of class numbers.
    ///
    /// # Panics
    /// When an index is out of range or `shape` does not fit.
    pub fn take(&self, shape: Vec<usize>, indices: &[usize]) -> Array {
        fn pick<T: Clone>(values: &[T], indices: &[usize]) -> Vec<T> {
            indices.iter().map(|&index| values[index].clone()).collect()
        }
        let values = match &self.values {
            Values::F32(values) => Values::F32(pick(values, indices)),
            Values::F64(values) => Values::F64(pick(values, indices)),
            Values::Int(values) => Values::Int(pick(values, indices)),
            Values::Text(values) => Values::Text(pick(values, indices)),
        };
        Array::new(self.dtype, shape, values)
    }

    /// The same values under another shape of as many elements.
    ///
    /// # Panics
    /// When the numbers differ.
    pub fn reshaped(self, shape: Vec<usize>) -> Array {
        Array::new(self.dtype, shape, self.values)
    }

    /// As a protocol tensor.
    pub fn to_tensor(&self) -> Tensor {
        let shape = self.shape.clone();
        let narrow = |values: &[i64]| match self.dtype {
            DataType::Bool => tensor_of(&shape, values, |value| value != 0),
            DataType::Uint8 => tensor_of(&shape, values, |value| value as u8),
            DataType::Uint16 => tensor_of(&shape, values, |value| value as u16),
            DataType::Uint32 => tensor_of(&shape, values, |value| value as u32),
            DataType::Uint64 => tensor_of(&shape, values, |value| value as u64),
            DataType::Int8 => tensor_of(&shape, values, |value| value as i8),
            DataType::Int16 => tensor_of(&shape, values, |value| value as i16),
            DataType::Int32 => tensor_of(&shape, values, |value| value as i32),
            _ => Tensor::from_values(shape.clone(), values),
        };
        match &self.values {
            Values::F32(values) => Tensor::from_values(self.shape.clone(), values),
            Values::F64(values) => Tensor::from_values(self.shape.clone(), values),
            Values::Int(values) => narrow(values),
            Values::Text(values) => {
                let texts: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
                Tensor::from_texts(self.shape.clone(), &texts)
            }
        }
    }
}

fn tensor_of<T: crate::tensor::Element>(
    shape: &[usize],
    values: &[i64],
    narrow: impl Fn(i64) -> T,
) -> Tensor {
    let values: Vec<T> = values.iter().map(|&value| narrow(value)).collect();
    Tensor::from_values(shape.to_vec(), &values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_their_width() {
        let classes = Array::new(DataType::Int32, vec![2], Values::Int(vec![7, -1]));
        let labels = classes.take(vec![3], &[1, 0, 1]).to_tensor();
        assert_eq!(labels.dtype(), DataType::Int32);
        assert_eq!(labels.to_f64(), Some(vec![-1.0, 7.0, -1.0]));
    }
}
