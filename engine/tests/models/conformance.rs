//! The executor kit on the CPU executor.

use std::sync::Arc;

use tokenmill_engine::conformance;
use tokenmill_engine::executor::Executor;
use tokenmill_engine::load::{self, LoadOptions, ThreadPool, open};

use crate::common::models;

#[test]
fn the_cpu_executor_conforms() {
    for name in ["llama", "gemma2", "gpt2"] {
        let model = models().into_iter().find(|path| path.ends_with(name)).unwrap();
        let source = open(&model).unwrap();
        conformance::executor(|| {
            let options = LoadOptions {
                max_sequences: 8,
                max_step_tokens: 64,
                max_model_len: Some(128),
                ..LoadOptions::default()
            };
            let pool = Arc::new(ThreadPool::new(2));
            let (executor, _, _) = load::load(&source, &options, &pool, &mut |_, _| {}).unwrap();
            Box::new(executor) as Box<dyn Executor>
        });
    }
}
