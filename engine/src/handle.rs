//! The engine as the rest of the process sees it: submit, drain, look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use tokenmill_scheduler::{ConfigError, Policy, SchedulerConfig, SequenceSpec, Tick};

use crate::core::{EngineCore, Submission};
use crate::executor::{Executor, ExecutorLimits};
use crate::sampling::{SamplingError, SamplingParams};
use crate::stats::EngineStats;
use crate::stream::{Permits, TokenStream, channel};
use crate::thread;

/// What an engine is told besides its executor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Sequences accepted beyond those that can run at once.
    pub max_waiting: u32,
    /// Query tokens one sequence may take from a step.
    pub max_chunk_tokens: u32,
    /// Whether finished blocks stay findable by their content.
    pub prefix_cache: bool,
    /// Order of the waiting queue.
    pub policy: Policy,
    /// Key of the block hash; random per process in production, fixed in tests.
    pub hash_key: [u64; 2],
}

impl EngineConfig {
    /// The scheduler's configuration for a device of these limits.
    ///
    /// Its queue takes `max_waiting + max_sequences`: a burst is submitted whole before the first of
    /// it runs.
    pub fn scheduler(&self, limits: &ExecutorLimits) -> SchedulerConfig {
        SchedulerConfig {
            block_size: limits.block_size,
            groups: limits.groups.clone(),
            max_sequences: limits.max_sequences,
            max_waiting: self.max_waiting.saturating_add(limits.max_sequences),
            max_step_tokens: limits.max_step_tokens,
            max_chunk_tokens: self.max_chunk_tokens,
            max_model_len: limits.max_model_len,
            vocab_size: limits.vocab_size,
            prefix_cache: self.prefix_cache,
            hash_key: self.hash_key,
            policy: self.policy,
        }
    }
}

/// One sequence to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Prompt and limits.
    pub spec: SequenceSpec,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The configuration cannot work with this executor.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gave no thread.
    #[error("cannot start the engine thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a sequence was not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Its prompt or limits cannot work.
    #[error(transparent)]
    Sequence(#[from] tokenmill_scheduler::SubmitError),
    /// Its sampling parameters cannot work.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// As many sequences as are allowed are running or waiting.
    #[error("{limit} sequences are running or waiting, no more are accepted: try again later")]
    Overloaded {
        /// The limit.
        limit: u32,
    },
    /// The engine finishes what runs and accepts nothing.
    #[error("the engine is draining and accepts no new sequences")]
    Draining,
    /// The engine stopped.
    #[error("the engine stopped and accepts no sequences")]
    Lost,
}

/// What handles and the engine thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    config: SchedulerConfig,
    limits: ExecutorLimits,
    pub(crate) stats: Arc<EngineStats>,
    started: Instant,
    draining: AtomicBool,
    pub(crate) alive: AtomicBool,
    permits: Arc<Permits>,
}

impl Shared {
    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// A running engine. Clones are handles to the same one; when the last is dropped and nothing runs,
/// its thread returns.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: Sender<Submission>,
}

impl EngineHandle {
    /// Starts the engine thread. The thread ends without an error on its join handle, also when the
    /// device failed: [`is_alive`](Self::is_alive) tells.
    ///
    /// # Errors
    /// When the configuration cannot work or the system gives no thread.
    pub fn spawn(
        executor: Box<dyn Executor>,
        config: EngineConfig,
    ) -> Result<(EngineHandle, JoinHandle<()>), SpawnError> {
        let limits = executor.limits().clone();
        let scheduler = config.scheduler(&limits);
        let stats = Arc::new(EngineStats::default());
        let core = EngineCore::new(executor, scheduler.clone(), Arc::clone(&stats))?;
        let shared = Arc::new(Shared {
            permits: Permits::new(scheduler.max_waiting),
            config: scheduler,
            limits,
            stats,
            started: Instant::now(),
            draining: AtomicBool::new(false),
            alive: AtomicBool::new(true),
        });
        let (commands, receiver) = std::sync::mpsc::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || thread::run(core, receiver, &for_thread))?;
        Ok((EngineHandle { shared, commands }, thread))
    }

    /// Hands a sequence to the engine. Never waits. The stream holds the admission permit; dropping
    /// it cancels the sequence. Asking for prompt log-probabilities implies `skip_prefix_cache`.
    ///
    /// # Errors
    /// When the request cannot work, too many are in flight, or the engine takes no more.
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream, SubmitError> {
        if !self.is_alive() {
            return Err(SubmitError::Lost);
        }
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        let GenerateRequest { mut spec, sampling } = request;
        sampling.validate(self.shared.limits.vocab_size)?;
        self.shared.config.check(&spec)?;
        spec.skip_prefix_cache |= sampling.prompt_logprobs.is_some();
        let limit = self.shared.permits.limit();
        let permit = self.shared.permits.take().ok_or(SubmitError::Overloaded { limit })?;
        let (sender, stream) = channel(permit);
        let submission = Submission { spec, sampling: Arc::new(sampling), sender };
        self.commands.send(submission).map_err(|_| SubmitError::Lost)?;
        Ok(stream)
    }

    /// Refuses new sequences from now on; those accepted run to their end.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// False once the engine has stopped, because of a device failure or a panic.
    pub fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// The engine's counters.
    pub fn stats(&self) -> &EngineStats {
        &self.shared.stats
    }

    /// What the executor can hold.
    pub fn limits(&self) -> &ExecutorLimits {
        &self.shared.limits
    }

    /// Sequences that may run or wait at the same time: a request for more can never be accepted.
    pub fn capacity(&self) -> u32 {
        self.shared.permits.limit()
    }

    /// The engine's clock, for `SequenceSpec::deadline`.
    pub fn now(&self) -> Tick {
        self.shared.now()
    }
}
