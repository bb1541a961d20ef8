//! Triton's `config.pbtxt`. The reader depends on nothing, so that the target takes the file and not the whole server.

#![no_main]
#![expect(dead_code, reason = "the reader's lookups that are not called here")]

use libfuzzer_sys::fuzz_target;

#[path = "../../server/src/repository/pbtxt.rs"]
mod pbtxt;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(message) = pbtxt::parse(text) {
        let batching = message.message("dynamic_batching");
        drop(batching.map(|batching| batching.numbers("preferred_batch_size")));
        drop(message.whole("max_batch_size"));
    }
});
