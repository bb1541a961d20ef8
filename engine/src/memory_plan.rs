//! The exact plan of memory and work: a forward pass in which nothing runs.
//!
//! [`PlanOps`] interprets a model file and records which workspace buffers it takes and how many
//! bytes and floating-point operations each operation costs. The CPU executor allocates exactly
//! these buffers, `inspect` prints the sums, and benches draw their roofline from them.

use std::ops::Range;

use tokenmill_kernels::activation::Activation;
use tokenmill_kernels::rope::RopeTable;

use crate::layers::{LayerNorm, Linear, RmsNorm, Weight};
use crate::models::ModelGraph;
use crate::ops::{Act, AttentionSpec, Ids, OpError, Ops, Rows};

/// One buffer of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferPlan {
    /// What its rows are.
    pub rows: Rows,
    /// Values per row.
    pub width: usize,
}

/// Hands out buffers by exact shape; planner and executor share it, so both hand out the same ones.
#[derive(Clone, Debug, Default)]
pub struct BufferPool {
    buffers: Vec<(BufferPlan, bool)>,
}

impl BufferPool {
    /// A pool that starts with the buffers of a plan, all free.
    pub fn with_buffers(plan: &[BufferPlan]) -> Self {
        Self { buffers: plan.iter().map(|&buffer| (buffer, false)).collect() }
    }

    /// The first free buffer of this shape, or a new one. The handle's index is the buffer's.
    pub fn alloc(&mut self, rows: Rows, width: usize) -> Act {
        let shape = BufferPlan { rows, width };
        let free = self.buffers.iter().position(|&(buffer, used)| !used && buffer == shape);
        let index = free.unwrap_or_else(|| {
            self.buffers.push((shape, false));
            self.buffers.len() - 1
        });
        self.buffers[index].1 = true;
        Act { index, rows, width }
    }

    /// Gives a buffer back.
    pub fn free(&mut self, act: Act) {
        let used = &mut self.buffers[act.index].1;
        assert!(*used, "buffer {} was freed twice", act.index);
        *used = false;
    }

    /// Every buffer handed out so far.
    pub fn plan(&self) -> Vec<BufferPlan> {
        self.buffers.iter().map(|&(buffer, _)| buffer).collect()
    }

    /// Gives every buffer back (a step failed half-way).
    pub fn reset(&mut self) {
        self.buffers.iter_mut().for_each(|(_, used)| *used = false);
    }
}

/// What one step costs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepCost {
    /// Bytes of weights read once.
    pub weight_bytes: u64,
    /// Multiplications and additions of the products, 2 per weight and row.
    pub flops: u64,
    /// Most columns of a product's input (sizes the scratch of quantised activations).
    pub max_inputs: usize,
    /// Buffers of the workspace.
    pub buffers: Vec<BufferPlan>,
}

/// Interpreter that runs nothing.
#[derive(Debug)]
pub struct PlanOps {
    pool: BufferPool,
    tokens: u64,
    outputs: u64,
    cost: StepCost,
}

impl PlanOps {
    /// The cost of a step of `tokens` query tokens of which `outputs` need logits.
    ///
    /// # Errors
    /// Never for the planner itself; the graph's own errors pass through.
    pub fn run(model: &dyn ModelGraph, tokens: u64, outputs: u64) -> Result<StepCost, OpError> {
        let mut ops =
            Self { pool: BufferPool::default(), tokens, outputs, cost: StepCost::default() };
        let residual = model.forward(&mut ops)?;
        let rows = ops.alloc(Rows::Outputs, residual.width);
        ops.gather_outputs(residual, rows)?;
        ops.free(residual);
        let logits = model.logits(&mut ops, rows)?;
        ops.free(rows);
        ops.free(logits);
        ops.cost.buffers = ops.pool.plan();
        Ok(ops.cost)
    }

    /// Counts the weights and the work of a product.
    fn product(&mut self, linear: &Linear, x: Act) {
        for (weight, _) in &linear.parts {
            self.cost.weight_bytes += weight.bytes();
            self.cost.flops += 2 * self.rows(x.rows) * (weight.rows * weight.cols) as u64;
        }
        self.cost.max_inputs = self.cost.max_inputs.max(x.width);
    }

    fn rows(&self, rows: Rows) -> u64 {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::Outputs => self.outputs,
        }
    }
}

impl Ops for PlanOps {
    fn alloc(&mut self, rows: Rows, width: usize) -> Act {
        self.pool.alloc(rows, width)
    }

    fn free(&mut self, act: Act) {
        self.pool.free(act);
    }

    fn embed(&mut self, table: &Weight, _: Ids, _: f32, out: Act) -> Result<(), OpError> {
        assert_eq!(table.cols, out.width);
        self.cost.weight_bytes += self.rows(out.rows) * table.bytes() / table.rows as u64;
        Ok(())
    }

    fn linear(&mut self, linear: &Linear, x: Act, out: Act) -> Result<(), OpError> {
        assert_eq!((linear.inputs(), linear.outputs()), (x.width, out.width));
        self.product(linear, x);
        Ok(())
    }

    fn gated_linear(
        &mut self,
        gate_up: &Linear,
        _: Activation,
        x: Act,
        out: Act,
    ) -> Result<(), OpError> {
        assert_eq!((gate_up.inputs(), gate_up.outputs()), (x.width, 2 * out.width));
        assert_eq!((gate_up.parts.len(), gate_up.parts[0].0.rows), (2, out.width));
        self.product(gate_up, x);
        Ok(())
    }

    fn rms_norm(&mut self, norm: &RmsNorm, x: Act, out: Act) -> Result<(), OpError> {
        assert_eq!((norm.width(), x.width), (x.width, out.width));
        Ok(())
    }

    fn add_rms_norm(
        &mut self,
        norm: &RmsNorm,
        x: Act,
        residual: Act,
        out: Act,
    ) -> Result<(), OpError> {
        assert_eq!((norm.width(), x.width, residual.width), (x.width, residual.width, out.width));
        Ok(())
    }

    fn head_norm(&mut self, norm: &RmsNorm, x: Act, columns: Range<usize>) -> Result<(), OpError> {
        assert!(columns.end <= x.width && columns.len().is_multiple_of(norm.width()));
        Ok(())
    }

    fn layer_norm(&mut self, norm: &LayerNorm, x: Act, out: Act) -> Result<(), OpError> {
        assert_eq!((norm.weight.len(), x.width), (x.width, out.width));
        Ok(())
    }

    fn rope(
        &mut self,
        _: &RopeTable,
        x: Act,
        columns: Range<usize>,
        head_dim: usize,
    ) -> Result<(), OpError> {
        assert!(columns.end <= x.width && columns.len().is_multiple_of(head_dim));
        Ok(())
    }

    fn attention(&mut self, spec: &AttentionSpec, qkv: Act, out: Act) -> Result<(), OpError> {
        assert_eq!((spec.packed_width(), spec.query_columns().len()), (qkv.width, out.width));
        Ok(())
    }

    fn activation(&mut self, _: Activation, _: Act) -> Result<(), OpError> {
        Ok(())
    }

    fn add(&mut self, x: Act, y: Act) -> Result<(), OpError> {
        assert_eq!(x.width, y.width);
        Ok(())
    }

    fn softcap(&mut self, _: f32, _: Act) -> Result<(), OpError> {
        Ok(())
    }

    fn gather_outputs(&mut self, x: Act, out: Act) -> Result<(), OpError> {
        assert_eq!((x.width, x.rows, out.rows), (out.width, Rows::Tokens, Rows::Outputs));
        Ok(())
    }
}
