//! Keys and values of one layer, in blocks.
//!
//! Keys of a head lie transposed in tiles of up to 16 positions (`[tile, head_dim, 16]`), so that a score of 16 keys is
//! a vector and needs no horizontal sum. Values lie in rows padded to whole vectors. The memory comes zeroed from the
//! operating system on first touch: a cache costs what has been written, in huge pages where it is large.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;

use half::slice::HalfFloatSliceExt;

use crate::pool::{SharedMut, ThreadPool};
use crate::rows::Rows;
use crate::simd::Simd;

/// Positions of a tile of transposed keys, and the unit that value rows are padded to: the widest vector.
const LANES: usize = 16;

/// Values narrowed at a time on their way into a tile of keys.
const NARROWED: usize = 64;

/// Keys of a step below which one thread writes them all: about as long as a fork and a join.
const PARALLEL_VALUES: usize = 2048;

/// Vectors start at cache lines.
const ALIGNMENT: usize = 64;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl KvType {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 | KvType::Bf16 => 2,
        }
    }
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) blocks: usize,
    pub(super) block_size: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Shape {
    /// Positions per tile of transposed keys.
    pub(super) fn tile(&self) -> usize {
        self.block_size.min(LANES)
    }

    /// Values per row of the value store.
    pub(super) fn value_width(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Where the tile of keys that holds `offset` of a block starts.
    pub(super) fn key_tile(&self, block: usize, head: usize, offset: usize) -> usize {
        let start = (block * self.kv_heads + head) * self.block_size;
        (start + offset / self.tile() * self.tile()) * self.head_dim
    }

    /// Where the value row at `offset` of a block starts.
    pub(super) fn value_row(&self, block: usize, head: usize, offset: usize) -> usize {
        ((block * self.kv_heads + head) * self.block_size + offset) * self.value_width()
    }

    /// Stored keys (with the slack that lets the last tile be read in whole vectors) and values; `None` past `usize`.
    fn lengths(&self) -> Option<(usize, usize)> {
        let rows = self.blocks.checked_mul(self.kv_heads)?.checked_mul(self.block_size)?;
        let keys = rows.checked_mul(self.head_dim)?.checked_add(LANES)?;
        Some((keys, rows.checked_mul(self.value_width())?))
    }
}

/// A stored value.
///
/// # Safety
/// All bytes zero must be a valid value.
pub(super) unsafe trait Element: Copy + Send + Sync + 'static {
    /// Rounds to the nearest, ties to even.
    fn narrow(x: f32) -> Self;
    /// Rounds each of `from`; both have one length.
    fn narrow_all(from: &[f32], to: &mut [Self]);
    fn widen(self) -> f32;
    /// # Safety
    /// [`Simd::LANES`] values must be readable at `from`.
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F;
}

// SAFETY: zero bytes are 0.0.
unsafe impl Element for f32 {
    fn narrow(x: f32) -> Self {
        x
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { simd.load_f32_at(from) }
    }
}

// SAFETY: zero bytes are 0.0.
unsafe impl Element for half::f16 {
    fn narrow(x: f32) -> Self {
        half::f16::from_f32(x)
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise; the type is a transparent `u16`.
        unsafe { simd.load_f16_at(from.cast()) }
    }
}

// SAFETY: zero bytes are 0.0.
unsafe impl Element for half::bf16 {
    fn narrow(x: f32) -> Self {
        half::bf16::from_f32(x)
    }
    fn narrow_all(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise; the type is a transparent `u16`.
        unsafe { simd.load_bf16_at(from.cast()) }
    }
}

/// Keys and values of one type.
#[derive(Debug)]
pub(super) struct Pair<E: Element> {
    pub(super) keys: ZeroedBuffer<E>,
    pub(super) values: ZeroedBuffer<E>,
}

/// The stored values, by type.
#[derive(Debug)]
pub(super) enum Store {
    F32(Pair<f32>),
    F16(Pair<half::f16>),
    Bf16(Pair<half::bf16>),
}

/// One layer's keys and values: `blocks` blocks of `block_size` positions, each with `kv_heads` heads of `head_dim`.
#[derive(Debug)]
pub struct KvCache {
    shape: Shape,
    store: Store,
}

impl KvCache {
    /// A cache of zeros whose memory is taken when first written.
    ///
    /// # Panics
    /// When a size is 0, `block_size` is not a power of two of at least 8, or the bytes are past the address space.
    pub fn new(
        dtype: KvType,
        blocks: usize,
        block_size: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> Self {
        assert!(
            block_size >= 8 && block_size.is_power_of_two(),
            "block_size must be a power of two of at least 8, not {block_size}"
        );
        assert!(blocks > 0 && kv_heads > 0 && head_dim > 0, "a cache has at least one value");
        let shape = Shape { blocks, block_size, kv_heads, head_dim };
        let store = match dtype {
            KvType::F32 => Store::F32(pair(&shape)),
            KvType::F16 => Store::F16(pair(&shape)),
            KvType::Bf16 => Store::Bf16(pair(&shape)),
        };
        Self { shape, store }
    }

    /// Bytes of `blocks` blocks, padding included: what a memory plan counts. `None` past the address space.
    pub fn bytes_for(
        dtype: KvType,
        blocks: usize,
        block_size: usize,
        kv_heads: usize,
        head_dim: usize,
    ) -> Option<usize> {
        let (keys, values) = Shape { blocks, block_size, kv_heads, head_dim }.lengths()?;
        keys.checked_add(values)?.checked_mul(dtype.bytes())
    }

    /// Bytes of the whole cache.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::F32(pair) => pair.keys.bytes() + pair.values.bytes(),
            Store::F16(pair) => pair.keys.bytes() + pair.values.bytes(),
            Store::Bf16(pair) => pair.keys.bytes() + pair.values.bytes(),
        }
    }

    /// How values are stored.
    pub fn dtype(&self) -> KvType {
        match self.store {
            Store::F32(_) => KvType::F32,
            Store::F16(_) => KvType::F16,
            Store::Bf16(_) => KvType::Bf16,
        }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.shape.blocks
    }

    /// Positions per block.
    pub fn block_size(&self) -> usize {
        self.shape.block_size
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }
}

fn pair<E: Element>(shape: &Shape) -> Pair<E> {
    let (keys, values) = shape.lengths().expect("the cache fits the address space");
    Pair { keys: ZeroedBuffer::new(keys), values: ZeroedBuffer::new(values) }
}

/// Writes the keys and values of a step: row `t` of `k` and `v` (`[tokens, kv_heads * head_dim]`) goes to
/// `slots[t] = block * block_size + offset`.
///
/// # Panics
/// When `k`, `v` and `slots` differ in rows, a row is not `kv_heads * head_dim` wide, or a slot is not in the cache.
pub fn write_kv(pool: &ThreadPool, cache: &mut KvCache, k: Rows<'_>, v: Rows<'_>, slots: &[u32]) {
    let shape = cache.shape;
    let width = shape.kv_heads * shape.head_dim;
    assert!(k.len() == slots.len() && v.len() == slots.len(), "one slot for each row of k and v");
    assert!(k.width() == width && v.width() == width, "rows of k and v are {width} wide");
    let end = shape.blocks * shape.block_size;
    if let Some(slot) = slots.iter().find(|&&slot| slot as usize >= end) {
        panic!("slot {slot} is not among the {end} of the cache");
    }
    match &mut cache.store {
        Store::F32(pair) => write(pool, &shape, pair, k, v, slots),
        Store::F16(pair) => write(pool, &shape, pair, k, v, slots),
        Store::Bf16(pair) => write(pool, &shape, pair, k, v, slots),
    }
}

fn write<E: Element>(
    pool: &ThreadPool,
    shape: &Shape,
    pair: &mut Pair<E>,
    k: Rows<'_>,
    v: Rows<'_>,
    slots: &[u32],
) {
    let (keys, values) =
        (SharedMut::new(pair.keys.as_mut_slice()), SharedMut::new(pair.values.as_mut_slice()));
    // Split by head and not by token: heads never share memory, whatever the slots; nor do keys and values.
    let one = |part: usize| {
        let head = part / 2;
        let columns = head * shape.head_dim..(head + 1) * shape.head_dim;
        if part.is_multiple_of(2) {
            write_keys(shape, &keys, head, slots, &|token| &k.row(token)[columns.clone()]);
        } else {
            write_values(shape, &values, head, slots, &|token| &v.row(token)[columns.clone()]);
        }
    };
    let parts = 2 * shape.kv_heads;
    if slots.len() * k.width() < PARALLEL_VALUES {
        (0..parts).for_each(one);
    } else {
        pool.run(parts, &one);
    }
}

/// Writes a head's keys, one column of a tile each.
fn write_keys<'a, E: Element>(
    shape: &Shape,
    keys: &SharedMut<'_, E>,
    head: usize,
    slots: &[u32],
    row: &dyn Fn(usize) -> &'a [f32],
) {
    let tile = shape.tile();
    let place = |slot: u32| {
        let (block, offset) = (slot as usize / shape.block_size, slot as usize % shape.block_size);
        let start = shape.key_tile(block, head, offset);
        // SAFETY: the tile belongs to this head, whose keys are one part's, and a part holds one tile at a time.
        (unsafe { keys.slice(start..start + tile * shape.head_dim) }, offset % tile)
    };
    let mut narrow = [E::narrow(0.0); NARROWED];
    for (token, &slot) in slots.iter().enumerate() {
        #[cfg(target_arch = "x86_64")]
        if let Some(&next) = slots.get(token + 1) {
            // Nothing read these lines before: ask for them before they are written.
            super::x86::prefetch_lines(place(next).0);
        }
        let (keys, lane) = place(slot);
        for (columns, row) in keys.chunks_mut(NARROWED * tile).zip(row(token).chunks(NARROWED)) {
            let narrow = &mut narrow[..row.len()];
            E::narrow_all(row, narrow);
            for (column, &x) in columns.chunks_exact_mut(tile).zip(&*narrow) {
                column[lane] = x;
            }
        }
    }
}

/// Writes a head's values, a row each.
fn write_values<'a, E: Element>(
    shape: &Shape,
    values: &SharedMut<'_, E>,
    head: usize,
    slots: &[u32],
    row: &dyn Fn(usize) -> &'a [f32],
) {
    for (token, &slot) in slots.iter().enumerate() {
        let (block, offset) = (slot as usize / shape.block_size, slot as usize % shape.block_size);
        let start = shape.value_row(block, head, offset);
        // SAFETY: the row belongs to this head, whose values are one part's, and a part holds one row at a time.
        E::narrow_all(row(token), unsafe { values.slice(start..start + shape.head_dim) });
    }
}

/// Zeros that cost nothing until touched, starting at a cache line.
#[derive(Debug)]
pub(super) struct ZeroedBuffer<E: Element> {
    allocation: *mut u8,
    layout: Layout,
    start: *mut E,
    len: usize,
    owned: PhantomData<E>,
}

// SAFETY: the buffer owns its memory and hands out references by the usual rules; elements are plain numbers.
unsafe impl<E: Element> Send for ZeroedBuffer<E> {}
// SAFETY: as above.
unsafe impl<E: Element> Sync for ZeroedBuffer<E> {}

impl<E: Element> ZeroedBuffer<E> {
    fn new(len: usize) -> Self {
        // An allocation of larger alignment than the allocator's own would be cleared by hand, touching every page:
        // ask for the natural alignment and start within.
        let bytes = len.checked_mul(size_of::<E>()).and_then(|bytes| bytes.checked_add(ALIGNMENT));
        let layout = bytes
            .and_then(|bytes| Layout::from_size_align(bytes, align_of::<E>()).ok())
            .expect("the cache fits the address space");
        // SAFETY: the layout has at least `ALIGNMENT` bytes.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the allocation has as many bytes, and bytes that may be uninitialised are always valid.
        let room = unsafe {
            std::slice::from_raw_parts_mut(allocation.cast::<MaybeUninit<u8>>(), layout.size())
        };
        crate::pages::advise_huge(room);
        // SAFETY: at most `ALIGNMENT - 1` bytes on, and the allocation has `ALIGNMENT` more than `len` elements take.
        let start = unsafe { allocation.add(allocation.align_offset(ALIGNMENT)) }.cast();
        Self { allocation, layout, start, len, owned: PhantomData }
    }

    fn bytes(&self) -> usize {
        self.len * size_of::<E>()
    }

    fn as_mut_slice(&mut self) -> &mut [E] {
        // SAFETY: `start` has room for `len` elements, which zeroing made valid, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<E: Element> Deref for ZeroedBuffer<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        // SAFETY: `start` has room for `len` elements, which zeroing made valid.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<E: Element> Drop for ZeroedBuffer<E> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and freed only here.
        unsafe { dealloc(self.allocation, self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::values;

    #[test]
    fn written_rows_are_found_where_the_shape_says() {
        let (kv_heads, head_dim, block_size) = (3, 20, 32);
        let width = kv_heads * head_dim;
        let slots = [33u32, 0, 95, 64];
        let (k, v) = (values(1, slots.len() * width), values(2, slots.len() * width));
        for threads in [1, 3] {
            let mut cache = KvCache::new(KvType::F32, 3, block_size, kv_heads, head_dim);
            let (k_rows, v_rows) = (Rows::contiguous(&k, width), Rows::contiguous(&v, width));
            write_kv(&ThreadPool::new(threads), &mut cache, k_rows, v_rows, &slots);
            let shape = *cache.shape();
            let Store::F32(pair) = cache.store() else { panic!("an f32 cache") };
            for (token, &slot) in slots.iter().enumerate() {
                let (block, offset) = (slot as usize / block_size, slot as usize % block_size);
                for head in 0..kv_heads {
                    for d in 0..head_dim {
                        let key = shape.key_tile(block, head, offset) + d * 16 + offset % 16;
                        let value = shape.value_row(block, head, offset) + d;
                        assert_eq!(pair.keys[key], k[token * width + head * head_dim + d]);
                        assert_eq!(pair.values[value], v[token * width + head * head_dim + d]);
                    }
                }
            }
            let written = pair.keys.iter().filter(|&&x| x != 0.0).count();
            assert_eq!(written, slots.len() * width, "nothing else is written");
        }
    }

    #[test]
    fn bytes_count_padding_and_type() {
        let cache = KvCache::new(KvType::F16, 10, 16, 2, 72);
        assert_eq!(cache.bytes(), 2 * (10 * 16 * 2 * (72 + 80) + 16));
        assert_eq!(KvCache::bytes_for(KvType::F16, 10, 16, 2, 72), Some(cache.bytes()));
        assert_eq!(KvCache::bytes_for(KvType::F32, usize::MAX, 16, 2, 72), None);
    }

    #[test]
    #[should_panic(expected = "slot 48 is not among the 48")]
    fn a_slot_past_the_cache_is_refused() {
        let mut cache = KvCache::new(KvType::F32, 3, 16, 1, 8);
        let row = [0.0; 8];
        let rows = Rows::contiguous(&row, 8);
        write_kv(&ThreadPool::new(1), &mut cache, rows, rows, &[48]);
    }

    #[test]
    #[should_panic(expected = "power of two of at least 8, not 12")]
    fn an_odd_block_size_is_refused() {
        KvCache::new(KvType::F32, 3, 12, 1, 8);
    }
}
