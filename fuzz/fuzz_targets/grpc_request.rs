//! Messages `ModelInferRequest`: raw and typed contents become tensors whose bytes are those that datatype and shape say.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokenmill::kserve::grpc::read_request;

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = read_request(bytes) else { return };
    for input in &request.inputs {
        let (tensor, elements) = (&input.tensor, input.tensor.shape().iter().product::<usize>());
        assert_eq!(tensor.elements(), elements);
        match tensor.dtype().element_bytes() {
            Some(size) => assert_eq!(tensor.data().len(), elements * size),
            None => assert_eq!(tensor.byte_strings().map(|texts| texts.len()), Some(elements)),
        }
    }
    drop(request.deadline(None));
});
