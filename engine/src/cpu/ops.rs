//! [`CpuOps`]: each operation calls its kernel on the pool.
//!
//! Activations are plain vectors, taken out of the workspace while a kernel writes them and put
//! back after; nothing is allocated once the buffers of the plan exist.

use std::ops::Range;
use std::sync::Arc;

use tokenmill_kernels::activation::{self, Activation};
use tokenmill_kernels::attention::{self, AttentionScratch, KvCache};
use tokenmill_kernels::elementwise;
use tokenmill_kernels::layer_norm::layer_norm;
use tokenmill_kernels::matrix::{PackedMatrix, Scratch, matmul_gated, matmul_many};
use tokenmill_kernels::pool::ThreadPool;
use tokenmill_kernels::rms_norm::{self, add_rms_norm, rms_norm_heads};
use tokenmill_kernels::rope::{RopeTable, rope_in_place};
use tokenmill_kernels::rows::{HeadsMut, Rows as Columns};
use tokenmill_scheduler::StepPlan;

use crate::cpu::StepInputs;
use crate::layers::{LayerNorm, Linear, RmsNorm, Weight};
use crate::load::MemoryPlan;
use crate::memory_plan::BufferPool;
use crate::model_executor::MAX_OUTPUT_ROWS;
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops, Rows};

/// Matrices that one product may combine.
const MAX_PARTS: usize = 4;

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
    step: StepInputs,
}

impl CpuOps {
    /// Allocates the workspace of a plan; `caches` holds one cache per layer.
    pub fn new(
        pool: Arc<ThreadPool>,
        plan: &MemoryPlan,
        caches: Vec<KvCache>,
        step: StepInputs,
    ) -> Self {
        let tokens = plan.limits.max_step_tokens as usize;
        let buffers = &plan.largest_step.buffers;
        let room = |rows| match rows {
            Rows::Tokens => tokens,
            Rows::Outputs => MAX_OUTPUT_ROWS,
        };
        Self {
            workspace: BufferPool::with_buffers(buffers),
            buffers: buffers
                .iter()
                .map(|buffer| Vec::with_capacity(room(buffer.rows) * buffer.width))
                .collect(),
            matrix_scratch: Scratch::with_capacity(tokens, plan.largest_step.max_inputs),
            attention_scratch: plan.attention_scratch(pool.threads()),
            pool,
            caches,
            layer_groups: plan.layer_groups.clone(),
            step,
        }
    }

    /// Starts a step: every activation of the last one is gone.
    pub fn begin_step(&mut self, plan: &StepPlan, block_size: u32) {
        self.workspace.reset();
        self.step.prepare(plan, block_size);
    }

    /// Says which query tokens the activations of [`Rows::Outputs`] stand for.
    pub fn select_outputs(&mut self, token_rows: &[u32]) {
        self.step.output_rows.clear();
        self.step.output_rows.extend_from_slice(token_rows);
    }

    /// The values of an activation, row-major.
    pub fn values(&self, act: Act) -> &[f32] {
        &self.buffers[act.index]
    }

    fn rows(&self, act: Act) -> usize {
        match act.rows {
            Rows::Tokens => self.step.tokens.len(),
            Rows::Outputs => self.step.output_rows.len(),
        }
    }

    /// Takes a buffer out of the workspace, so that a kernel can write it while reading others.
    fn take(&mut self, act: Act) -> Vec<f32> {
        std::mem::take(&mut self.buffers[act.index])
    }

    fn put(&mut self, act: Act, buffer: Vec<f32>) {
        self.buffers[act.index] = buffer;
    }

    fn heads_mut(&mut self, x: Act, columns: Range<usize>, head_dim: usize) -> HeadsMut<'_> {
        HeadsMut::new(&mut self.buffers[x.index], x.width, columns, head_dim)
    }
}

impl Ops for CpuOps {
    fn alloc(&mut self, rows: Rows, width: usize) -> Act {
        let act = self.workspace.alloc(rows, width);
        if act.index == self.buffers.len() {
            self.buffers.push(Vec::new());
        }
        let len = self.rows(act) * width;
        self.buffers[act.index].resize(len, 0.0);
        act
    }

    fn free(&mut self, act: Act) {
        self.workspace.free(act);
    }

    fn embed(&mut self, table: &Weight, ids: Ids, scale: f32, out: Act) -> Result<(), OpError> {
        let mut rows = self.take(out);
        let ids = match ids {
            Ids::Tokens => &self.step.tokens,
            Ids::Positions => &self.step.positions,
        };
        let table = table.matrix();
        self.pool.for_each_chunk_mut(&mut rows, out.width, &|index, row| {
            table.dequantize_row(ids[index] as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        });
        self.put(out, rows);
        Ok(())
    }

    fn linear(&mut self, linear: &Linear, x: Act, out: Act) -> Result<(), OpError> {
        let count = linear.parts.len();
        assert!(count <= MAX_PARTS, "{count} matrices in one product, at most {MAX_PARTS}");
        let mut parts: [(&PackedMatrix, Option<&[f32]>); MAX_PARTS] =
            [(linear.parts[0].0.matrix(), None); MAX_PARTS];
        for (part, (weight, bias)) in parts.iter_mut().zip(&linear.parts) {
            *part = (weight.matrix(), bias.as_deref());
        }
        let (tokens, mut result) = (self.rows(x), self.take(out));
        let input = &self.buffers[x.index];
        let scratch = &mut self.matrix_scratch;
        matmul_many(&parts[..count], &self.pool, input, tokens, scratch, &mut result);
        self.put(out, result);
        Ok(())
    }

    fn gated_linear(
        &mut self,
        gate_up: &Linear,
        f: Activation,
        x: Act,
        out: Act,
    ) -> Result<(), OpError> {
        let part = |index: usize| {
            let (weight, bias) = &gate_up.parts[index];
            (weight.matrix(), bias.as_deref())
        };
        let (tokens, mut result) = (self.rows(x), self.take(out));
        let input = (self.buffers[x.index].as_slice(), tokens);
        let scratch = &mut self.matrix_scratch;
        matmul_gated(f, [part(0), part(1)], &self.pool, input, scratch, &mut result);
        self.put(out, result);
        Ok(())
    }

    fn rms_norm(&mut self, norm: &RmsNorm, x: Act, out: Act) -> Result<(), OpError> {
        let mut result = self.take(out);
        let x = &self.buffers[x.index];
        rms_norm::rms_norm(&self.pool, x, &norm.weight, norm.eps, norm.offset, &mut result);
        self.put(out, result);
        Ok(())
    }

    fn add_rms_norm(
        &mut self,
        norm: &RmsNorm,
        x: Act,
        residual: Act,
        out: Act,
    ) -> Result<(), OpError> {
        let (mut sum, mut result) = (self.take(residual), self.take(out));
        let x = &self.buffers[x.index];
        let RmsNorm { weight, eps, offset } = norm;
        add_rms_norm(&self.pool, &mut sum, x, weight, *eps, *offset, &mut result);
        self.put(residual, sum);
        self.put(out, result);
        Ok(())
    }

    fn head_norm(&mut self, norm: &RmsNorm, x: Act, columns: Range<usize>) -> Result<(), OpError> {
        let pool = Arc::clone(&self.pool);
        let RmsNorm { weight, eps, offset } = norm;
        let norm = rms_norm::Norm { weight, eps: *eps, weight_offset: *offset };
        rms_norm_heads(&pool, self.heads_mut(x, columns, weight.len()), &norm);
        Ok(())
    }

    fn layer_norm(&mut self, norm: &LayerNorm, x: Act, out: Act) -> Result<(), OpError> {
        let mut result = self.take(out);
        let x = &self.buffers[x.index];
        layer_norm(&self.pool, x, &norm.weight, Some(&norm.bias), norm.eps, &mut result);
        self.put(out, result);
        Ok(())
    }

    fn rope(
        &mut self,
        table: &RopeTable,
        x: Act,
        columns: Range<usize>,
        head_dim: usize,
    ) -> Result<(), OpError> {
        let mut rows = self.take(x);
        let heads = HeadsMut::new(&mut rows, x.width, columns, head_dim);
        rope_in_place(&self.pool, heads, &self.step.positions, table);
        self.put(x, rows);
        Ok(())
    }

    fn attention(&mut self, spec: &AttentionSpec, qkv: Act, out: Act) -> Result<(), OpError> {
        let mut result = self.take(out);
        let (rows, group) = (&self.buffers[qkv.index], self.layer_groups[spec.layer]);
        let cache = &mut self.caches[spec.layer];
        let keys = Columns::new(rows, qkv.width, spec.key_columns());
        let values = Columns::new(rows, qkv.width, spec.value_columns());
        attention::write_kv(&self.pool, cache, keys, values, &self.step.slots[group]);
        let shape = attention::AttentionSpec {
            heads: spec.heads,
            kv_heads: spec.kv_heads,
            head_dim: spec.head_dim,
            scale: spec.scale,
            window: spec.window,
            softcap: spec.softcap,
        };
        let queries = Columns::new(rows, qkv.width, spec.query_columns());
        attention::paged_attention(
            &self.pool,
            &shape,
            queries,
            cache,
            &self.step.sequences,
            &self.step.block_tables[group],
            &mut self.attention_scratch,
            &mut result,
        );
        self.put(out, result);
        Ok(())
    }

    fn activation(&mut self, f: Activation, x: Act) -> Result<(), OpError> {
        activation::act(&self.pool, f, &mut self.buffers[x.index]);
        Ok(())
    }

    fn add(&mut self, x: Act, y: Act) -> Result<(), OpError> {
        let mut sum = self.take(x);
        elementwise::add(&self.pool, &mut sum, &self.buffers[y.index]);
        self.put(x, sum);
        Ok(())
    }

    fn softcap(&mut self, cap: f32, x: Act) -> Result<(), OpError> {
        elementwise::softcap(&self.pool, &mut self.buffers[x.index], cap);
        Ok(())
    }

    fn gather_outputs(&mut self, x: Act, out: Act) -> Result<(), OpError> {
        let mut rows = self.take(out);
        let source = &self.buffers[x.index];
        for (row, &index) in rows.chunks_exact_mut(out.width).zip(&self.step.output_rows) {
            let start = index as usize * x.width;
            row.copy_from_slice(&source[start..start + x.width]);
        }
        self.put(out, rows);
        Ok(())
    }
}
