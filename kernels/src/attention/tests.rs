//! Attention against a plain implementation, and the same bits whatever the batch.

use super::*;
use crate::testing::{assert_close, assert_same, values};

/// Scores and sums in `f32`: errors of 64 products in sequence, on outputs below 1.
const TOLERANCE: f32 = 5e-6;

/// An entry that must not be read.
const NONE: u32 = u32::MAX;

/// Keys and values of some sequences, plain and in a cache with scattered blocks.
struct Fixture {
    spec: AttentionSpec,
    cache: KvCache,
    /// Per sequence: `[positions, kv_heads * head_dim]`, rounded as stored.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    tables: Vec<Vec<u32>>,
}

impl Fixture {
    fn new(spec: AttentionSpec, dtype: KvType, block_size: usize, lens: &[usize]) -> Self {
        let width = spec.kv_heads * spec.head_dim;
        let needed: usize = lens.iter().map(|len| len.div_ceil(block_size)).sum();
        let mut cache = KvCache::new(dtype, needed + 3, block_size, spec.kv_heads, spec.head_dim);
        let (pool, mut next) = (ThreadPool::new(2), 0);
        // A stride that is no divisor visits every block, in no order.
        let count = needed + 3;
        let stride = (0..).map(|i| 7 + 2 * i).find(|&s| gcd(count, s) == 1);
        let stride = stride.expect("a coprime exists");
        let mut fixture = Self { spec, cache, keys: vec![], values: vec![], tables: vec![] };
        for (index, &len) in lens.iter().enumerate() {
            let table: Vec<u32> = (0..len.div_ceil(block_size))
                .map(|_| {
                    next += 1;
                    (next * stride % count) as u32
                })
                .collect();
            let seed = 10 * index as u64;
            let (k, v) = (values(seed, len * width), values(seed + 1, len * width));
            let slots: Vec<u32> = (0..len)
                .map(|p| table[p / block_size] * block_size as u32 + (p % block_size) as u32)
                .collect();
            cache = fixture.cache;
            let rows = (Rows::contiguous(&k, width), Rows::contiguous(&v, width));
            write_kv(&pool, &mut cache, rows.0, rows.1, &slots);
            fixture.cache = cache;
            fixture.keys.push(k.into_iter().map(|x| stored(dtype, x)).collect());
            fixture.values.push(v.into_iter().map(|x| stored(dtype, x)).collect());
            fixture.tables.push(table);
        }
        fixture
    }

    /// Attention of `chunks`, each (sequence, first position, queries), on `threads` threads with one variant.
    fn run(&self, variant: usize, threads: usize, chunks: &[(usize, usize, usize)]) -> Vec<f32> {
        let width = self.spec.heads * self.spec.head_dim;
        let tokens: usize = chunks.iter().map(|chunk| chunk.2).sum();
        let (gap, mut q, mut seqs, mut tables) = (5, vec![], vec![], vec![]);
        for &(sequence, position, query_len) in chunks {
            seqs.push(AttentionSeq {
                query_start: (q.len() / (width + gap)) as u32,
                query_len: query_len as u32,
                position: position as u32,
                table_start: tables.len() as u32,
                table_len: self.tables[sequence].len() as u32,
            });
            let first = self.spec.visible(position).start / self.cache.block_size();
            tables.extend(
                (self.tables[sequence].iter().enumerate())
                    .map(|(entry, &block)| if entry < first { NONE } else { block }),
            );
            for position in position..position + query_len {
                q.extend_from_slice(&[f32::NAN; 2]);
                q.extend(self.query(sequence, position));
                q.extend_from_slice(&[f32::NAN; 3]);
            }
        }
        let q = Rows::new(&q, width + gap, 2..2 + width);
        let mut out = vec![f32::NAN; tokens * width];
        let mut scratch = AttentionScratch::default();
        check_shapes(&self.spec, q, &self.cache, &out);
        check_sequences(&self.spec, q, &self.cache, &seqs, &tables);
        let step = schedule::Step {
            spec: &self.spec,
            q,
            cache: &self.cache,
            seqs: &seqs,
            block_tables: &tables,
        };
        let pool = ThreadPool::new(threads);
        schedule::run(&pool, VARIANTS[variant].run, &step, &mut scratch, &mut out);
        out
    }

    fn query(&self, sequence: usize, position: usize) -> Vec<f32> {
        let seed = 1_000_000 + 10_000 * sequence as u64 + position as u64;
        let spread = values(seed, self.spec.heads * self.spec.head_dim);
        spread.into_iter().map(|x| x * 4.0).collect()
    }

    /// One query by the textbook, in `f64`.
    fn naive(&self, sequence: usize, position: usize) -> Vec<f32> {
        let AttentionSpec { heads, kv_heads, head_dim, scale, window, softcap } = self.spec;
        let q = self.query(sequence, position);
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
        let mut out = vec![];
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let q = &q[head * head_dim..][..head_dim];
            let row = |of: &[Vec<f32>], position: usize| {
                of[sequence][(position * kv_heads + kv_head) * head_dim..][..head_dim].to_vec()
            };
            let weights: Vec<f64> = (first..=position)
                .map(|p| {
                    let keys = row(&self.keys, p);
                    let dot: f64 =
                        q.iter().zip(&keys).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let score = dot * f64::from(scale);
                    let capped = |cap: f32| f64::from(cap) * (score / f64::from(cap)).tanh();
                    softcap.map_or(score, capped).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut mean = vec![0.0; head_dim];
            for (weight, p) in weights.iter().zip(first..) {
                let values = row(&self.values, p);
                mean.iter_mut().zip(&values).for_each(|(m, &v)| *m += weight / sum * f64::from(v));
            }
            out.extend(mean.iter().map(|&m| m as f32));
        }
        out
    }

    fn check(&self, label: &str, chunks: &[(usize, usize, usize)]) {
        let want: Vec<f32> = chunks
            .iter()
            .flat_map(|&(sequence, position, len)| {
                (position..position + len).flat_map(move |p| self.naive(sequence, p))
            })
            .collect();
        for (index, variant) in VARIANTS.iter().enumerate().filter(|v| v.1.isa.is_supported()) {
            let got = self.run(index, 2, chunks);
            assert_close(&format!("{} {label}", variant.name), &got, &want, TOLERANCE);
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn stored(dtype: KvType, x: f32) -> f32 {
    match dtype {
        KvType::F32 => x,
        KvType::F16 => half::f16::from_f32(x).to_f32(),
        KvType::Bf16 => half::bf16::from_f32(x).to_f32(),
    }
}

fn spec(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionSpec {
    let scale = 1.0 / (head_dim as f32).sqrt();
    AttentionSpec { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

#[test]
fn groups_widths_and_block_sizes_match_the_naive_form() {
    for (heads, kv_heads, head_dim) in [
        (1, 1, 8),
        (4, 2, 64),
        (9, 3, 64),
        (8, 1, 16),
        (2, 1, 72),
        (3, 3, 80),
        (2, 2, 13),
        (1, 1, 256),
    ] {
        for block_size in [8, 16, 32, 128] {
            let fixture =
                Fixture::new(spec(heads, kv_heads, head_dim), KvType::F32, block_size, &[150, 70]);
            let label = format!("{heads}/{kv_heads}x{head_dim} blocks of {block_size}");
            fixture.check(&label, &[(0, 149, 1), (1, 0, 37)]);
            fixture.check(&label, &[(0, 61, 9), (1, 64, 1)]);
        }
    }
}

#[test]
fn more_query_heads_than_a_tile_has_rows() {
    Fixture::new(spec(45, 1, 16), KvType::F32, 16, &[80]).check("45 heads", &[(0, 70, 5)]);
}

#[test]
fn stored_types_match_the_naive_form() {
    for dtype in [KvType::F32, KvType::F16, KvType::Bf16] {
        for block_size in [8, 16] {
            let fixture = Fixture::new(spec(6, 2, 48), dtype, block_size, &[100]);
            fixture.check(&format!("{dtype:?}"), &[(0, 60, 40)]);
        }
    }
}

#[test]
fn windows_and_caps_match_the_naive_form_and_old_blocks_are_not_read() {
    for window in [1, 5, 64, 100, 700] {
        for softcap in [None, Some(3.0)] {
            let spec = AttentionSpec { window: Some(window), softcap, ..spec(4, 2, 32) };
            let fixture = Fixture::new(spec, KvType::F32, 16, &[1100]);
            let label = format!("window {window}, cap {softcap:?}");
            for position in [0, 63, 64, 511, 512, 1000, 1099] {
                fixture.check(&label, &[(0, position, 1)]);
            }
            fixture.check(&label, &[(0, 500, 30)]);
        }
    }
}

/// A query alone, in a chunk, beside neighbours and on any number of threads is the same sum.
#[test]
fn a_query_is_the_same_bits_in_any_company() {
    for window in [None, Some(130)] {
        let spec = AttentionSpec { window, ..spec(6, 2, 64) };
        let fixture = Fixture::new(spec, KvType::F32, 16, &[1600, 40]);
        let width = spec.heads * spec.head_dim;
        for (index, variant) in VARIANTS.iter().enumerate().filter(|v| v.1.isa.is_supported()) {
            for position in [37, 530, 1599] {
                let alone = fixture.run(index, 1, &[(0, position, 1)]);
                let first = position - 36;
                let companies: [&[(usize, usize, usize)]; 4] = [
                    &[(0, position, 1)],
                    &[(0, first, 37)],
                    &[(1, 0, 40), (0, first, 37)],
                    &[(1, 39, 1), (1, 2, 5), (0, position - 3, 4)],
                ];
                for chunks in companies {
                    for threads in [1, 2, 4] {
                        let got = fixture.run(index, threads, chunks);
                        let label = format!("{} {position} of {chunks:?}, {threads}", variant.name);
                        assert_same(&label, &got[got.len() - width..], &alone);
                    }
                }
            }
        }
    }
}

#[test]
fn a_prepared_scratch_does_not_grow() {
    let spec = spec(9, 3, 64);
    let fixture = Fixture::new(spec, KvType::F32, 16, &[3000]);
    let mut scratch = AttentionScratch::with_capacity(&spec, 2, 64, 2);
    let before = scratch.bytes();
    let q = values(1, 64 * 9 * 64);
    for (query_len, position) in [(64, 2000), (1, 2999), (2, 2998)] {
        let seq =
            AttentionSeq { query_start: 0, query_len, position, table_start: 0, table_len: 188 };
        let mut out = vec![f32::NAN; q.len()];
        let q = Rows::contiguous(&q, 9 * 64);
        let pool = ThreadPool::new(2);
        let table = &fixture.tables[0];
        paged_attention(&pool, &spec, q, &fixture.cache, &[seq], table, &mut scratch, &mut out);
        let written = query_len as usize * 9 * 64;
        assert!(
            out[..written].iter().all(|x| x.is_finite()),
            "every row of the sequence is written"
        );
        assert!(out[written..].iter().all(|x| x.is_nan()), "no other row is");
    }
    assert_eq!(scratch.bytes(), before);
}

fn refused(position: u32, query_start: u32, table: &[u32]) {
    let spec = spec(1, 1, 8);
    let cache = KvCache::new(KvType::F32, 4, 16, 1, 8);
    let seq = |query_start, position| AttentionSeq {
        query_start,
        query_len: 1,
        position,
        table_start: 0,
        table_len: table.len() as u32,
    };
    let seqs = [seq(0, 0), seq(query_start, position)];
    let (q, mut out) = ([0.0; 16], [0.0; 16]);
    let q = Rows::contiguous(&q, 8);
    let mut scratch = AttentionScratch::default();
    let pool = ThreadPool::new(1);
    paged_attention(&pool, &spec, q, &cache, &seqs, table, &mut scratch, &mut out);
}

#[test]
#[should_panic(expected = "entry 1 of sequence 1 is 4294967295, not one of 4 blocks")]
fn a_needed_entry_that_is_no_block_is_refused() {
    refused(20, 1, &[0, NONE]);
}

#[test]
#[should_panic(expected = "the table of sequence 1 is too short")]
fn a_short_table_is_refused() {
    refused(32, 1, &[0, 1]);
}

#[test]
#[should_panic(expected = "sequence 1 starts in the rows of another")]
fn shared_rows_are_refused() {
    refused(5, 0, &[0, 1]);
}
