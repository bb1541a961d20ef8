//! Tensors as JSON lists: integers without, floats with a point, what is not finite as null.

use bytes::BytesMut;
use tokenmill_predictive::{DataType, Tensor};

use crate::body::write_json;

/// Writes the elements as lists nested by `shape`, whose product is the number of elements.
pub(super) fn write(out: &mut BytesMut, tensor: &Tensor, shape: &[usize]) {
    let data = tensor.data();
    macro_rules! numbers {
        ($number:ty) => {{
            let read = |raw: &[u8; size_of::<$number>()]| <$number>::from_le_bytes(*raw);
            let chunks = data.as_chunks::<{ size_of::<$number>() }>().0;
            list(out, shape, &mut chunks.iter().map(read));
        }};
    }
    match tensor.dtype() {
        DataType::Bool => list(out, shape, &mut data.iter().map(|&byte| byte != 0)),
        DataType::Uint8 => numbers!(u8),
        DataType::Uint16 => numbers!(u16),
        DataType::Uint32 => numbers!(u32),
        DataType::Uint64 => numbers!(u64),
        DataType::Int8 => numbers!(i8),
        DataType::Int16 => numbers!(i16),
        DataType::Int32 => numbers!(i32),
        DataType::Int64 => numbers!(i64),
        DataType::Fp32 => numbers!(f32),
        DataType::Fp64 => numbers!(f64),
        DataType::Fp16 | DataType::Bf16 => {
            let values = tensor.to_f64().unwrap_or_default();
            list(out, shape, &mut values.into_iter().map(|value| value as f32));
        }
        DataType::Bytes => {
            let strings = tensor.byte_strings().unwrap_or_default();
            let nulls = tensor.nulls();
            let text = |(index, bytes): (usize, &[u8])| {
                let null = nulls.is_some_and(|nulls| nulls[index]);
                (!null).then(|| String::from_utf8_lossy(bytes).into_owned())
            };
            list(out, shape, &mut strings.into_iter().enumerate().map(text));
        }
    }
}

/// One level of lists; a shape of no sizes is one element.
fn list<T: serde::Serialize>(
    out: &mut BytesMut,
    shape: &[usize],
    values: &mut impl Iterator<Item = T>,
) {
    let Some((&size, inner)) = shape.split_first() else {
        match values.next() {
            Some(value) => write_json(out, &value),
            None => out.extend_from_slice(b"null"),
        }
        return;
    };
    out.extend_from_slice(b"[");
    for index in 0..size {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        list(out, inner, values);
    }
    out.extend_from_slice(b"]");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_stay_apart() {
        let print = |tensor: Tensor| {
            let mut out = BytesMut::new();
            write(&mut out, &tensor, tensor.shape());
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(print(Tensor::from_values(vec![2], &[1i64, -2])), "[1,-2]");
        assert_eq!(print(Tensor::from_values(vec![1, 2], &[1.0f32, 0.1])), "[[1.0,0.1]]");
        let odd = [f64::NAN, f64::INFINITY, 1e300, -0.0];
        assert_eq!(print(Tensor::from_values(vec![2, 2], &odd)), "[[null,null],[1e+300,-0.0]]");
        assert_eq!(print(Tensor::from_values(vec![2], &[true, false])), "[true,false]");
        let texts = Tensor::from_texts(vec![2], &["a\"b", ""]).with_nulls(vec![false, true]);
        assert_eq!(print(texts), "[\"a\\\"b\",null]");
        assert_eq!(print(Tensor::from_values::<f32>(vec![2, 0], &[])), "[[],[]]");
        assert_eq!(print(Tensor::from_values(vec![], &[3u8])), "3");
    }
}
