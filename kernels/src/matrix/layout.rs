//! The packed layout, and packing.
//!
//! A matrix `[rows, cols]` becomes panels of [`WIDTH`] rows (output columns of the product), each a
//! run of 64-byte lines read from front to back:
//!
//! | type | step along K | lines per step |
//! |---|---|---|
//! | F32 | 1 | 32 x f32 |
//! | F16 | 1 | 32 x f16 |
//! | BF16 | 2 | 32 x (k, k + 1), so that a shift and a mask widen them |
//! | Q8_0 | 32 | 32 x f16 scale; then for each 4 of K 32 x 4 bytes `q + 128` |
//! | Q4_0 | 32 | 32 x f16 scale; then for each j < 4 32 x 4 bytes of nibbles, below |
//! | Q4_1 | 32 | 32 x f16 scale; 32 x f16 minimum; nibbles as Q4_0 |
//!
//! The low nibbles of the 4 bytes are elements `4j..4j + 4` of the block, the high ones
//! `16 + 4j..16 + 4j + 4`. Missing rows of the last panel and the missing half of a last BF16 pair are zero.

use half::{bf16, f16};
use thiserror::Error;

/// Output columns per panel.
pub(crate) const WIDTH: usize = 32;

/// Elements per block of the block-quantised types.
pub(crate) const BLOCK: usize = 32;

/// How a weight is stored, on disk and in memory. The quantised types are GGUF's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of 32: f16 scale `d`, 32 signed bytes; `d * q`.
    Q8_0,
    /// Blocks of 32: f16 scale `d`, 32 nibbles; `d * (q - 8)`.
    Q4_0,
    /// Blocks of 32: f16 scale `d`, f16 minimum `m`, 32 nibbles; `d * q + m`.
    Q4_1,
}

impl WeightType {
    /// Every type.
    pub const ALL: [WeightType; 6] = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
        WeightType::Q8_0,
        WeightType::Q4_0,
        WeightType::Q4_1,
    ];

    /// Elements per stored block: 1 for the float types.
    pub fn block_len(self) -> usize {
        if self.is_quantised() { BLOCK } else { 1 }
    }

    /// Bytes per stored block.
    pub fn block_bytes(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::F16 | WeightType::Bf16 => 2,
            WeightType::Q8_0 => 34,
            WeightType::Q4_0 => 18,
            WeightType::Q4_1 => 20,
        }
    }

    /// Name as in model files: `BF16`, `Q8_0`.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::F32 => "F32",
            WeightType::F16 => "F16",
            WeightType::Bf16 => "BF16",
            WeightType::Q8_0 => "Q8_0",
            WeightType::Q4_0 => "Q4_0",
            WeightType::Q4_1 => "Q4_1",
        }
    }

    /// True for the block-quantised types.
    pub fn is_quantised(self) -> bool {
        matches!(self, WeightType::Q8_0 | WeightType::Q4_0 | WeightType::Q4_1)
    }

    /// Elements of K and lines of a panel per step.
    pub(crate) const fn step(self) -> (usize, usize) {
        match self {
            WeightType::F32 => (1, 2),
            WeightType::F16 => (1, 1),
            WeightType::Bf16 => (2, 2),
            WeightType::Q8_0 => (BLOCK, 17),
            WeightType::Q4_0 => (BLOCK, 9),
            WeightType::Q4_1 => (BLOCK, 10),
        }
    }

    fn panel_lines(self, cols: usize) -> usize {
        let (step, lines) = self.step();
        cols.div_ceil(step).saturating_mul(lines)
    }
}

/// Why a matrix could not be packed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackError {
    /// A dimension is zero or the size does not fit the address space.
    #[error(
        "a {dtype} matrix of {rows} x {cols} cannot be held: both must be at least 1, and the size \
         must fit memory"
    )]
    Shape {
        /// Stored type.
        dtype: &'static str,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        cols: usize,
    },
    /// The columns are not whole blocks.
    #[error(
        "{cols} columns, but {dtype} stores blocks of {block}: the columns must be a multiple of it"
    )]
    Block {
        /// Stored type.
        dtype: &'static str,
        /// Columns asked for.
        cols: usize,
        /// Elements per block.
        block: usize,
    },
    /// The bytes are not whole rows.
    #[error(
        "{got} bytes, but a {dtype} row of {cols} columns takes {row_bytes}: whole rows are \
         expected"
    )]
    RowBytes {
        /// Stored type.
        dtype: &'static str,
        /// Columns per row.
        cols: usize,
        /// Bytes per row.
        row_bytes: usize,
        /// Bytes given.
        got: usize,
    },
    /// More or fewer rows than announced.
    #[error("{got} rows given, {rows} expected")]
    Rows {
        /// Rows announced.
        rows: usize,
        /// Rows given.
        got: usize,
    },
}

/// One cache line of packed weights.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// A weight matrix `[rows (outputs), cols (inputs)]` in panel form.
#[derive(Debug)]
pub struct PackedMatrix {
    dtype: WeightType,
    rows: usize,
    cols: usize,
    lines: Vec<Line>,
}

impl PackedMatrix {
    /// Packs a whole tensor: `bytes` is row-major `[rows, cols]`, little endian, in the storage of
    /// `dtype`.
    ///
    /// # Errors
    /// [`PackError`] when the shape is empty or too large, the columns are not whole blocks, or the
    /// number of bytes is not that of the shape.
    pub fn pack(
        dtype: WeightType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
    ) -> Result<PackedMatrix, PackError> {
        let mut builder = PackedMatrix::builder(dtype, rows, cols)?;
        builder.push_rows(bytes)?;
        builder.finish()
    }

    /// Starts packing row by row, so that permuted or concatenated rows need no copy of the tensor.
    ///
    /// # Errors
    /// [`PackError::Shape`] or [`PackError::Block`].
    pub fn builder(
        dtype: WeightType,
        rows: usize,
        cols: usize,
    ) -> Result<PackedMatrixBuilder, PackError> {
        PackedMatrixBuilder::new(dtype, rows, cols)
    }

    /// Bytes that a matrix takes once packed; `usize::MAX` when that overflows.
    pub fn packed_bytes(dtype: WeightType, rows: usize, cols: usize) -> usize {
        rows.div_ceil(WIDTH).saturating_mul(dtype.panel_lines(cols)).saturating_mul(64)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Stored type.
    pub fn dtype(&self) -> WeightType {
        self.dtype
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Writes the exact values of the stored weights of `row` (embedding lookup). The type's
    /// formula is evaluated in f32: exact for all types but Q4_1, whose sum is rounded once.
    ///
    /// # Panics
    /// When `row` is not below `rows` or `out` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of a matrix with {} rows", self.rows);
        assert_eq!(out.len(), self.cols, "one value per column");
        let (panel, lane) = (self.panel(row / WIDTH), row % WIDTH);
        let (step, lines) = self.dtype.step();
        for (values, lines) in out.chunks_mut(step).zip(panel.chunks_exact(lines)) {
            dequantize_step(self.dtype, lines, lane, values);
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(WIDTH)
    }

    pub(crate) fn panel(&self, index: usize) -> &[Line] {
        let lines = self.dtype.panel_lines(self.cols);
        &self.lines[index * lines..][..lines]
    }
}

/// Packs a matrix as its rows arrive; see [`PackedMatrix::builder`].
#[derive(Debug)]
pub struct PackedMatrixBuilder {
    matrix: PackedMatrix,
    filled: usize,
}

impl PackedMatrixBuilder {
    fn new(dtype: WeightType, rows: usize, cols: usize) -> Result<PackedMatrixBuilder, PackError> {
        let name = dtype.name();
        let lines = rows.div_ceil(WIDTH).checked_mul(dtype.panel_lines(cols));
        // Half the address space also bounds the bytes of a stored row and of a row of f32 values.
        let fits =
            lines.and_then(|n| n.checked_mul(64)).is_some_and(|n| n <= isize::MAX as usize / 2);
        let (Some(count), true) = (lines, fits && rows > 0 && cols > 0) else {
            return Err(PackError::Shape { dtype: name, rows, cols });
        };
        let block = dtype.block_len();
        if !cols.is_multiple_of(block) {
            return Err(PackError::Block { dtype: name, cols, block });
        }
        let mut lines = Vec::new();
        if lines.try_reserve_exact(count).is_err() {
            return Err(PackError::Shape { dtype: name, rows, cols });
        }
        crate::pages::advise_huge(lines.spare_capacity_mut());
        lines.resize(count, Line([0; 64]));
        Ok(PackedMatrixBuilder { matrix: PackedMatrix { dtype, rows, cols, lines }, filled: 0 })
    }

    /// Appends whole rows in the storage of the matrix's type.
    ///
    /// # Errors
    /// [`PackError::RowBytes`] when `bytes` are not whole rows, [`PackError::Rows`] when they are
    /// too many. Nothing is appended then.
    pub fn push_rows(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let PackedMatrix { dtype, rows, cols, .. } = self.matrix;
        let row_bytes = cols / dtype.block_len() * dtype.block_bytes();
        if !bytes.len().is_multiple_of(row_bytes) {
            let (dtype, got) = (dtype.name(), bytes.len());
            return Err(PackError::RowBytes { dtype, cols, row_bytes, got });
        }
        let got = self.filled + bytes.len() / row_bytes;
        if got > rows {
            return Err(PackError::Rows { rows, got });
        }
        for row in bytes.chunks_exact(row_bytes) {
            self.push_row(row);
        }
        Ok(())
    }

    /// The packed matrix.
    ///
    /// # Errors
    /// [`PackError::Rows`] when rows are missing.
    pub fn finish(self) -> Result<PackedMatrix, PackError> {
        if self.filled != self.matrix.rows {
            return Err(PackError::Rows { rows: self.matrix.rows, got: self.filled });
        }
        Ok(self.matrix)
    }

    fn push_row(&mut self, row: &[u8]) {
        let PackedMatrix { dtype, cols, .. } = self.matrix;
        let (step, step_lines) = dtype.step();
        let stored = step / dtype.block_len() * dtype.block_bytes();
        let (panel, lane) = (self.filled / WIDTH, self.filled % WIDTH);
        let lines = dtype.panel_lines(cols);
        let panel = &mut self.matrix.lines[panel * lines..][..lines];
        for (lines, values) in panel.chunks_exact_mut(step_lines).zip(row.chunks(stored)) {
            pack_step(dtype, lines, lane, values);
        }
        self.filled += 1;
    }
}

/// Writes `value` as the `index`-th item of its size.
fn put<const N: usize>(lines: &mut [Line], index: usize, value: [u8; N]) {
    let at = index * N;
    lines[at / 64].0[at % 64..][..N].copy_from_slice(&value);
}

/// The `index`-th item of `N` bytes.
pub(crate) fn get<const N: usize>(lines: &[Line], index: usize) -> [u8; N] {
    let at = index * N;
    let mut value = [0; N];
    value.copy_from_slice(&lines[at / 64].0[at % 64..][..N]);
    value
}

/// Packs one step of one row: `stored` is a value, a pair (or its first half) or a block.
fn pack_step(dtype: WeightType, lines: &mut [Line], lane: usize, stored: &[u8]) {
    match dtype {
        WeightType::F32 => put(lines, lane, [stored[0], stored[1], stored[2], stored[3]]),
        WeightType::F16 => put(lines, lane, [stored[0], stored[1]]),
        WeightType::Bf16 => {
            for (half, value) in stored.chunks_exact(2).enumerate() {
                put(lines, 2 * lane + half, [value[0], value[1]]);
            }
        }
        WeightType::Q8_0 => {
            put(lines, lane, [stored[0], stored[1]]);
            for (j, q) in stored[2..].chunks_exact(4).enumerate() {
                // Flipping the top bit adds 128 to a signed byte read as unsigned.
                let q = [q[0] ^ 0x80, q[1] ^ 0x80, q[2] ^ 0x80, q[3] ^ 0x80];
                put(&mut lines[1..], j * WIDTH + lane, q);
            }
        }
        WeightType::Q4_0 | WeightType::Q4_1 => {
            let quants = if dtype == WeightType::Q4_0 { 1 } else { 2 };
            for half in 0..quants {
                put(&mut lines[half..], lane, [stored[2 * half], stored[2 * half + 1]]);
            }
            for (j, q) in stored[2 * quants..].chunks_exact(4).enumerate() {
                put(&mut lines[quants..], j * WIDTH + lane, [q[0], q[1], q[2], q[3]]);
            }
        }
    }
}

/// The inverse of [`pack_step`], as values.
fn dequantize_step(dtype: WeightType, lines: &[Line], lane: usize, values: &mut [f32]) {
    match dtype {
        WeightType::F32 => values[0] = f32::from_le_bytes(get(lines, lane)),
        WeightType::F16 => values[0] = f16::from_le_bytes(get(lines, lane)).to_f32(),
        WeightType::Bf16 => {
            for (half, value) in values.iter_mut().enumerate() {
                *value = bf16::from_le_bytes(get(lines, 2 * lane + half)).to_f32();
            }
        }
        WeightType::Q8_0 | WeightType::Q4_0 | WeightType::Q4_1 => {
            let block = QuantBlock::read(dtype, lines, lane);
            for (value, &q) in values.iter_mut().zip(&block.quants) {
                *value = block.scale * (i32::from(q) - block.zero) as f32 + block.minimum;
            }
        }
    }
}

/// One block of one row, unpacked.
pub(crate) struct QuantBlock {
    /// Unsigned quants.
    pub(crate) quants: [u8; BLOCK],
    /// The quant that stands for zero.
    pub(crate) zero: i32,
    pub(crate) scale: f32,
    /// Added to each value; zero but for Q4_1.
    pub(crate) minimum: f32,
}

impl QuantBlock {
    pub(crate) fn read(dtype: WeightType, lines: &[Line], lane: usize) -> QuantBlock {
        let half = |line: usize| f16::from_le_bytes(get(&lines[line..], lane)).to_f32();
        let mut quants = [0; BLOCK];
        if dtype == WeightType::Q8_0 {
            for (j, quad) in quants.chunks_exact_mut(4).enumerate() {
                quad.copy_from_slice(&get::<4>(&lines[1..], j * WIDTH + lane));
            }
            return QuantBlock { quants, zero: 128, scale: half(0), minimum: 0.0 };
        }
        let four_one = dtype == WeightType::Q4_1;
        let nibbles = &lines[if four_one { 2 } else { 1 }..];
        for j in 0..4 {
            for (i, byte) in get::<4>(nibbles, j * WIDTH + lane).into_iter().enumerate() {
                quants[4 * j + i] = byte & 15;
                quants[16 + 4 * j + i] = byte >> 4;
            }
        }
        let (zero, minimum) = if four_one { (0, half(1)) } else { (8, 0.0) };
        QuantBlock { quants, zero, scale: half(0), minimum }
    }
}
