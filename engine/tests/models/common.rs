//! Loading fixtures and running requests through the whole engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenmill_engine::executor::PositionLogprobs;
use tokenmill_engine::handle::{EngineConfig, EngineHandle, GenerateRequest};
use tokenmill_engine::load::{self, LoadOptions, ModelSource};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::stream::{TokenEvent, TokenStream};
use tokenmill_kernels::pool::ThreadPool;
use tokenmill_scheduler::{FinishReason, Policy, SequenceSpec, TokenId};

/// What a request gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Generation {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) logprobs: Vec<PositionLogprobs>,
    pub(crate) prompt_logprobs: Vec<PositionLogprobs>,
    pub(crate) cached_tokens: u32,
}

pub(crate) fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut models: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    models.sort();
    models
}

/// An engine over a model; small steps and pools are the caller's choice.
pub(crate) fn engine(
    source: &ModelSource,
    options: &LoadOptions,
    config: EngineConfig,
) -> EngineHandle {
    let pool = Arc::new(ThreadPool::new(2));
    let (executor, _, report) = load::load(source, options, &pool, &mut |_, _| {}).unwrap();
    assert!(report.missing.is_empty() && report.unread.is_empty(), "{report:?}");
    let (handle, _thread) = EngineHandle::spawn(Box::new(executor), config).unwrap();
    handle
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        max_waiting: 4096,
        max_chunk_tokens: 1 << 20,
        prefix_cache: false,
        policy: Policy::FirstCome,
        hash_key: [1, 2],
    }
}

pub(crate) fn submit(
    engine: &EngineHandle,
    prompt: &[TokenId],
    max_tokens: u32,
    sampling: &SamplingParams,
) -> TokenStream {
    let spec = SequenceSpec {
        prompt: prompt.to_vec(),
        max_tokens,
        skip_prefix_cache: sampling.prompt_logprobs.is_some(),
        ..SequenceSpec::default()
    };
    engine.submit(GenerateRequest { spec, sampling: sampling.clone() }).unwrap()
}

pub(crate) fn collect(mut stream: TokenStream) -> Generation {
    let mut generation = Generation::default();
    loop {
        match stream.blocking_next() {
            Some(TokenEvent::Admitted { cached_tokens }) => {
                generation.cached_tokens = cached_tokens;
            }
            Some(TokenEvent::PromptLogprobs(logprobs)) => {
                generation.prompt_logprobs.push(*logprobs);
            }
            Some(TokenEvent::Token { id, logprobs }) => {
                generation.tokens.push(id);
                generation.logprobs.extend(logprobs.map(|logprobs| *logprobs));
            }
            Some(TokenEvent::Finished(reason)) => {
                assert_eq!(reason, FinishReason::Length);
                return generation;
            }
            Some(TokenEvent::Pooled(_)) => panic!("nothing was pooled"),
            Some(TokenEvent::Lost) | None => panic!("the engine was lost"),
        }
    }
}

pub(crate) fn greedy() -> SamplingParams {
    SamplingParams { temperature: 0.0, ..SamplingParams::default() }
}
