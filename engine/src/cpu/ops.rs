//! [`CpuOps`]: each operation calls its kernel on the pool.
//!
//! Activations are plain vectors, taken out of the workspace while a kernel writes them and put
//! back after; nothing is allocated once the buffers of the plan exist.

use std::ops::Range;
use std::sync::Arc;

use tokenmill_kernels::activation::{self, Activation};
use tokenmill_kernels::attention::{self, AttentionScratch, KvCache};
use tokenmill_kernels::layer_norm::layer_norm;
use tokenmill_kernels::matrix::{Scratch, matmul_many};
use tokenmill_kernels::pool::ThreadPool;
use tokenmill_kernels::rms_norm::{add_rms_norm, rms_norm};
use tokenmill_kernels::rope::{RopeTable, rope_in_place};
use tokenmill_kernels::{elementwise, rows::Rows as Strided};

use crate::cpu::StepInputs;
use crate::layers::{LayerNorm, Linear, RmsNorm, Weight};
use crate::memory_plan::{BufferPlan, BufferPool};
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops, Rows};

/// Interpreter that computes.
pub struct CpuOps {
    pool: Arc<ThreadPool>,
    workspace: BufferPool,
    buffers: Vec<Vec<f32>>,
    matrix_scratch: Scratch,
    attention_scratch: AttentionScratch,
    caches: Vec<KvCache>,
    /// Cache group of every layer.
    layer_groups: Vec<usize>,
    /// The step being run.
    pub step: StepInputs,
}
