//! Attention against a plain implementation, and the same bits whatever the batch.
