//! Bodies of the binary tensor extension: two bytes say how much of the rest is JSON, as the header does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill::kserve::v2_binary::parse;
use tokenmill_predictive::{DataType, Signature, TensorSpec};

fuzz_target!(|bytes: &[u8]| {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return };
    let spec = TensorSpec {
        name: "x".to_owned(),
        dtype: DataType::Fp32,
        shape: vec![None, Some(4)],
    };
    let signature = Signature { inputs: vec![spec], ..Signature::default() };
    let length = usize::from(u16::from_le_bytes(*length));
    let Ok(request) = parse("model", &signature, body.to_vec().into(), length) else { return };
    for input in &request.inputs {
        let (tensor, elements) = (&input.tensor, input.tensor.shape().iter().product::<usize>());
        assert_eq!(tensor.elements(), elements);
        match tensor.dtype().element_bytes() {
            Some(size) => assert_eq!(tensor.data().len(), elements * size),
            None => assert_eq!(tensor.byte_strings().map(|texts| texts.len()), Some(elements)),
        }
        drop((tensor.to_f64(), tensor.to_f32()));
    }
    drop(request.deadline(None));
});
