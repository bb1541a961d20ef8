//! What the kernels need to know of a step, derived from its plan into reused buffers.

use tokenmill_kernels::attention::AttentionSeq;
use tokenmill_scheduler::{StepPlan, TokenId};

/// Positions, cache slots and block tables of one step.
#[derive(Debug, Default)]
pub struct StepInputs {
    /// `[tokens]`
    pub tokens: Vec<TokenId>,
    /// Position of each query token: `[tokens]`.
    pub positions: Vec<u32>,
    /// One entry per planned sequence.
    pub sequences: Vec<AttentionSeq>,
    /// Per cache group: the slot (`block * block_size + offset`) each query token's key and value go to.
    pub slots: Vec<Vec<u32>>,
    /// Per cache group: packed block tables.
    pub block_tables: Vec<Vec<u32>>,
    /// Rows of the tokens whose logits are wanted now: `[outputs]`.
    pub output_rows: Vec<u32>,
}

impl StepInputs {
    /// Buffers with room for the largest step: nothing grows later.
    pub fn with_capacity(
        tokens: usize,
        sequences: usize,
        table_entries: usize,
        groups: usize,
    ) -> Self {
        Self {
            tokens: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(sequences),
            slots: (0..groups).map(|_| Vec::with_capacity(tokens)).collect(),
            block_tables: (0..groups).map(|_| Vec::with_capacity(table_entries)).collect(),
            output_rows: Vec::with_capacity(tokens),
        }
    }

    /// Derives everything but `output_rows` from a plan.
    pub fn prepare(&mut self, plan: &StepPlan, block_size: u32) {
        self.tokens.clone_from(&plan.tokens);
        self.positions.clear();
        self.sequences.clear();
        for sequence in &plan.sequences {
            let query_len = sequence.tokens.end - sequence.tokens.start;
            self.positions.extend(sequence.start..sequence.start + query_len);
            self.sequences.push(AttentionSeq {
                query_start: sequence.tokens.start,
                query_len,
                position: sequence.start,
                table_start: sequence.blocks.start,
                table_len: sequence.blocks.end - sequence.blocks.start,
            });
        }
        for (group, tables) in plan.block_tables.iter().enumerate() {
            let table = &mut self.block_tables[group];
            table.clear();
            table.extend(tables.iter().map(|block| block.0));
            let slots = &mut self.slots[group];
            slots.clear();
            for sequence in &self.sequences {
                let blocks = &table[sequence.table_start as usize..][..sequence.table_len as usize];
                let positions = sequence.position..sequence.position + sequence.query_len;
                slots.extend(positions.map(|position| {
                    blocks[(position / block_size) as usize] * block_size + position % block_size
                }));
            }
        }
    }
}
