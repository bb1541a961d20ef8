//! What the memory gives: a plain read of a footprint by the threads that compute.

use std::hint::black_box;
use std::time::Instant;

use tokenmill_engine::load::ThreadPool;

/// Bytes per second of the fastest of `repetitions` reads of `bytes` bytes, split over the pool.
///
/// The footprint is that of the weights a decode step reads, so that a last-level cache helps the
/// read exactly as much as it helps the step.
pub fn read(pool: &ThreadPool, bytes: usize, repetitions: usize) -> f64 {
    let words = vec![1u64; bytes.div_ceil(8)];
    let share = words.len().div_ceil(pool.threads());
    let mut best = f64::INFINITY;
    for _ in 0..repetitions {
        let start = Instant::now();
        pool.run(pool.threads(), &|part| {
            let end = words.len().min((part + 1) * share);
            let mut sums = [0u64; 32];
            for chunk in words[(part * share).min(end)..end].chunks_exact(32) {
                sums.iter_mut().zip(chunk).for_each(|(sum, word)| *sum ^= word);
            }
            black_box(sums);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    bytes as f64 / best
}
