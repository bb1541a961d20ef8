//! Speed of the matrix products, beside a plain read of as many bytes in the same run.
//!
//! `cargo run --release -p tokenmill-kernels --example matmul -- [threads] [filter] [bound]`. Each
//! line gives the best and the median of the repetitions; `read` is the ratio to the best plain
//! read of the same bytes by the same threads. Matrices of one shape are rotated so that together
//! they exceed the caches.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tokenmill_kernels::matrix::{OutMut, PackedMatrix, Scratch, WeightType};
use tokenmill_kernels::pool::{ThreadPool, part_range};

/// Together the rotated matrices take at least this: several times the last-level cache.
const FOOTPRINT: usize = 192 << 20;

struct Case {
    dtype: WeightType,
    rows: usize,
    cols: usize,
    footprint: usize,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let filter = args.next().unwrap_or_default();
    let pool = if args.next().is_some_and(|arg| arg == "bound") {
        let pool = ThreadPool::bound(threads);
        println!("bound to processors: {}", pool.bind_caller());
        pool
    } else {
        ThreadPool::new(threads)
    };
    fork_join(&pool);
    let mut cases = Vec::new();
    for dtype in WeightType::ALL {
        cases.push(Case { dtype, rows: 4096, cols: 4096, footprint: FOOTPRINT });
    }
    for (rows, cols) in [(192, 576), (576, 576), (1536, 576), (576, 1536)] {
        cases.push(Case { dtype: WeightType::Q4_1, rows, cols, footprint: 64 << 20 });
    }
    cases.push(Case { dtype: WeightType::Q8_0, rows: 49152, cols: 576, footprint: FOOTPRINT });
    for case in cases {
        let name = format!("{} {}x{}", case.dtype.name(), case.rows, case.cols);
        if name.contains(&filter) {
            measure(&name, &case, &pool);
        }
    }
}

fn fork_join(pool: &ThreadPool) {
    let times = times(2000, |_| pool.run(pool.threads(), &|part| _ = black_box(part)));
    println!("{} threads, fork and join: best {:?}, median {:?}", pool.threads(), times.0, times.1);
}

fn measure(name: &str, case: &Case, pool: &ThreadPool) {
    let size = PackedMatrix::packed_bytes(case.dtype, case.rows, case.cols);
    let matrices: Vec<PackedMatrix> =
        (0..case.footprint.div_ceil(size)).map(|_| random(case)).collect();
    let words: Vec<Vec<u64>> = matrices.iter().map(|matrix| vec![1; matrix.bytes() / 8]).collect();
    let (read, read_median) =
        times(60.max(2 * words.len()), |i| read(pool, &words[i % words.len()]));
    let gigabytes = |time: Duration| size as f64 / time.as_secs_f64() / 1e9;
    println!("{name}: read {:.1} GB/s (median {:.1})", gigabytes(read), gigabytes(read_median));
    for tokens in [1, 2, 4, 8, 16, 32, 64, 256] {
        let x: Vec<f32> = (0..tokens * case.cols).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        let mut out = vec![0.0; tokens * case.rows];
        let mut scratch = Scratch::with_capacity(tokens, case.cols);
        let repetitions = if tokens <= 2 { 60.max(2 * matrices.len()) } else { 12 };
        let (best, median) = times(repetitions, |i| {
            let out = OutMut::dense(&mut out, case.rows);
            let matrix = &matrices[i % matrices.len()];
            matrix.matmul(pool, black_box(&x), tokens, &mut scratch, None, out);
        });
        let operations = (2 * tokens * case.rows * case.cols) as f64;
        println!(
            "  M={tokens:<4} {best:>10.1?} (median {median:.1?}) {:>7.1} GFLOP/s {:>6.1} GB/s, {:.2} of read",
            operations / best.as_secs_f64() / 1e9,
            gigabytes(best),
            read.as_secs_f64() / best.as_secs_f64(),
        );
    }
}

/// Best and median time of `body`.
fn times(repetitions: usize, mut body: impl FnMut(usize)) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..repetitions)
        .map(|i| {
            let start = Instant::now();
            body(i);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[0], times[times.len() / 2])
}

fn read(pool: &ThreadPool, words: &[u64]) {
    let parts = pool.threads();
    pool.run(parts, &|part| {
        let mut sums = [0u64; 32];
        for chunk in words[part_range(words.len(), parts, part)].as_chunks::<32>().0 {
            sums.iter_mut().zip(chunk).for_each(|(sum, word)| *sum |= word);
        }
        black_box(sums);
    });
}

fn random(case: &Case) -> PackedMatrix {
    let blocks = case.cols / case.dtype.block_len();
    let row: Vec<u8> = (0..blocks * case.dtype.block_bytes())
        .map(|i| if i % 2 == 1 { 0x2c } else { (i * 131 % 251) as u8 })
        .collect();
    let mut builder =
        PackedMatrix::builder(case.dtype, case.rows, case.cols).expect("shapes are whole blocks");
    for _ in 0..case.rows {
        builder.push_rows(&row).expect("whole rows");
    }
    builder.finish().expect("all rows were given")
}
