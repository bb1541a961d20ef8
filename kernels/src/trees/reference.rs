//! The evaluation that defines the results: node by node, row by row.
