//! Types of stored values.

/// How a tensor's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoredType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE double.
    F64,
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
    /// Signed, 16 bits.
    I16,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
    /// Truth values, a byte each.
    Bool,
    /// Blocks of 32: one half scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32: one half scale, 32 times 4 bits around 8.
    Q4_0,
    /// Blocks of 32: half scale and minimum, 32 times 4 bits.
    Q4_1,
    /// A type that is known by name only; its tensors can be listed but not read.
    Other(&'static str),
}

impl StoredType {
    /// The types that models can be computed with.
    pub const COMPUTABLE: [Self; 6] =
        [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Name, as the containers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::F64 => "F64",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::Bool => "BOOL",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Other(name) => name,
        }
    }

    /// Whether models can be computed with it.
    pub fn is_computable(self) -> bool {
        Self::COMPUTABLE.contains(&self)
    }

    /// Names of the types that models can be computed with, for errors.
    pub fn computable_names() -> String {
        Self::COMPUTABLE.map(Self::name).join(", ")
    }

    /// Bytes of one value of the floating-point types that models are computed with.
    pub fn float_size(self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            _ => None,
        }
    }
}
