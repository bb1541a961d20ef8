//! Speed of attention: decodes beside a plain read of as many bytes, and a prefill.
//!
//! `cargo run --release -p tokenmill-kernels --example attention -- [threads] [context]`. Shapes are those of
//! SmolLM2-135M and of an 8B Llama. A decode goes through the caches of so many layers that together they exceed the
//! processor's caches; times are the best of the repetitions.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tokenmill_kernels::attention::{
    AttentionScratch, AttentionSeq, AttentionSpec, KvCache, KvType, paged_attention, write_kv,
};
use tokenmill_kernels::pool::{ThreadPool, part_range};
use tokenmill_kernels::rows::Rows;

/// Together the caches of the layers take at least this: several times the last-level cache.
const FOOTPRINT: usize = 128 << 20;

const BLOCK_SIZE: usize = 16;
const PREFILL: usize = 512;

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let pool = ThreadPool::new(args.next().unwrap_or(1));
    let context = args.next().unwrap_or(2048).max(PREFILL);
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (32, 8, 128)] {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let spec = AttentionSpec { heads, kv_heads, head_dim, scale, window: None, softcap: None };
        for dtype in [KvType::F32, KvType::F16, KvType::Bf16] {
            measure(&pool, &spec, dtype, context);
        }
    }
}

fn measure(pool: &ThreadPool, spec: &AttentionSpec, dtype: KvType, context: usize) {
    let layers = layers(pool, spec, dtype, context);
    let bytes: usize = layers.iter().map(KvCache::bytes).sum();
    let mut scratch = AttentionScratch::with_capacity(spec, pool.threads(), PREFILL, 1);
    let table: Vec<u32> = (0..context.div_ceil(BLOCK_SIZE) as u32).collect();
    let mut run = |cache: &KvCache, position: usize, query_len: usize| {
        let width = spec.heads * spec.head_dim;
        let (q, mut out) = (vec![0.3; query_len * width], vec![0.0; query_len * width]);
        let seq = AttentionSeq {
            query_start: 0,
            query_len: query_len as u32,
            position: position as u32,
            table_start: 0,
            table_len: table.len() as u32,
        };
        let q = Rows::contiguous(&q, width);
        paged_attention(pool, spec, q, cache, &[seq], &table, &mut scratch, &mut out);
        black_box(out);
    };
    let decode = best(10, || layers.iter().for_each(|cache| run(cache, context - 1, 1)));
    let hot = best(100, || run(&layers[0], context - 1, 1));
    let prefill = best(10, || run(&layers[0], 0, PREFILL));
    let words = vec![1u64; bytes / 8];
    let read = best(10, || read(pool, &words));
    let operations = 4 * spec.heads * spec.head_dim * PREFILL * (PREFILL + 1) / 2;
    let gigabytes = |bytes: usize, time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    println!(
        "{}/{} heads of {}, {dtype:?}, {} threads, {} layers at {context}: read {:.1} GB/s, decode {:.1} GB/s ({:.1} us \
         a layer), in cache {:.1} GB/s ({hot:.1?}), prefill of {PREFILL} {prefill:.2?} a layer ({:.0} GFLOP/s)",
        spec.heads,
        spec.kv_heads,
        spec.head_dim,
        pool.threads(),
        layers.len(),
        gigabytes(bytes, read),
        gigabytes(bytes, decode),
        decode.as_secs_f64() * 1e6 / layers.len() as f64,
        gigabytes(layers[0].bytes(), hot),
        operations as f64 / prefill.as_secs_f64() / 1e9,
    );
}

/// Filled caches of as many layers as make up the footprint.
fn layers(pool: &ThreadPool, spec: &AttentionSpec, dtype: KvType, context: usize) -> Vec<KvCache> {
    let width = spec.kv_heads * spec.head_dim;
    let data: Vec<f32> =
        (0..context * width).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    let (rows, slots) = (Rows::contiguous(&data, width), (0..context as u32).collect::<Vec<_>>());
    let blocks = context.div_ceil(BLOCK_SIZE);
    let size = KvCache::bytes_for(dtype, blocks, BLOCK_SIZE, spec.kv_heads, spec.head_dim);
    let size = size.expect("a cache that fits the address space");
    (0..FOOTPRINT.div_ceil(size))
        .map(|_| {
            let mut cache = KvCache::new(dtype, blocks, BLOCK_SIZE, spec.kv_heads, spec.head_dim);
            write_kv(pool, &mut cache, rows, rows, &slots);
            cache
        })
        .collect()
}

/// Reads every word, split over the threads.
fn read(pool: &ThreadPool, words: &[u64]) {
    let parts = pool.threads();
    pool.run(parts, &|part| {
        let range = part_range(words.len(), parts, part);
        black_box(words[range].iter().fold(0, |sum: u64, &word| sum.wrapping_add(word)));
    });
}

fn best(repetitions: usize, mut run: impl FnMut()) -> Duration {
    run();
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..repetitions).map(time).min().unwrap_or_default()
}
