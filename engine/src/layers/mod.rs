//! What two models share, written over [`crate::ops::Ops`].

mod attention;
mod decoder;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod rope;

pub use attention::{Attention, AttentionConfig};
pub use decoder::{PreNormDecoder, Variation};
pub use embedding::{Embedding, Head};
pub use linear::{FloatType, Linear, LinearSpec, Weight, WeightLoader};
pub use mlp::GatedMlp;
pub(crate) use mlp::activation_named;
pub use norm::{LayerNorm, RmsNorm};
pub use rope::rope_table;
