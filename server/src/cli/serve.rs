//! `tokenmill serve`: load, answer one token, open the port, drain at the end.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, bail};
use tokenmill_engine::handle::{EngineConfig, EngineHandle, GenerateRequest};
use tokenmill_engine::load::{self, ThreadPool};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::stream::TokenEvent;
use tokenmill_engine::text::{TextPool, TextPoolOptions};
use tokenmill_engine::weights::LoadReport;
use tokenmill_scheduler::{FinishReason, Policy, SequenceSpec, TokenId};
use tokio::net::TcpSocket;

use super::model::{self, Opened, kv_name};
use super::{classic, progress, ready};
use crate::app::App;
use crate::config::values::bytes;
use crate::config::{Config, EngineSettings};
use crate::kserve;
use crate::lifecycle::{self, Outcome};
use crate::metrics;
use crate::random;
use crate::registry::{Generative, GenerativeParts, Registry, SamplingDefaults, Served};

/// As shells report SIGTERM during the load.
const TERMINATED: u8 = 143;
/// A second signal cut the drain short.
const FORCED: u8 = 130;

/// Serves until a signal.
pub(super) async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    metrics::watch_panics();
    let mut stop = lifecycle::signals().context("cannot handle signals")?;
    reserve(&config)?;
    let start = Instant::now();
    let prepared = tokio::select! {
        prepared = prepare(&config) => prepared?,
        _ = stop.recv() => {
            tracing::info!("stopped while loading");
            return Ok(ExitCode::from(TERMINATED));
        }
    };
    let Prepared { registry, names, kind, thread } = prepared;
    let mut http = config.http.clone();
    if kind == ready::Kind::Classic || config.predictive.repository.is_some() {
        http.kserve.grpc.port = config.predictive.grpc_port;
    }
    let app = App::new(http, registry);
    let listener = lifecycle::bind(&app).await?;
    let grpc = kserve::grpc::bind(&app).await?;
    if let Some(grpc) = &grpc {
        tracing::info!(address = %grpc.local_addr()?, "gRPC");
    }
    let address = listener.local_addr()?;
    tracing::info!(model = names.first().map_or("", String::as_str), %address, seconds = start.elapsed().as_secs_f64(), "ready");
    let http = &config.http;
    let access = ready::Access {
        keyed: !http.api_keys.is_empty() || http.api_key_file.is_some(),
        tls: http.tls.is_some(),
    };
    let model = names.first().map_or("", String::as_str);
    super::say(&format!("{}\n", ready::line(address, model, kind, access)));
    let outcome = lifecycle::serve(Arc::clone(&app), listener, grpc, stop).await;
    drop(app);
    Ok(match outcome {
        Outcome::Drained | Outcome::TimedOut => {
            // The engine ends with its last handle; streams that never end keep theirs.
            let joined = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join));
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), joined).await;
            ExitCode::SUCCESS
        }
        Outcome::Forced => ExitCode::from(FORCED),
        Outcome::EngineLost => bail!("the engine died; the log above says why"),
    })
}

/// Fails early when the port is taken, without opening it: bound but not listening, it refuses
/// connections as a closed one does.
fn reserve(config: &Config) -> anyhow::Result<()> {
    let host = &config.http.host;
    let ip: IpAddr = if host == "localhost" { [127, 0, 0, 1].into() } else { host.parse()? };
    let address = SocketAddr::new(ip, config.http.port);
    let socket = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// A model that answers.
struct Prepared {
    registry: Registry,
    names: Vec<String>,
    kind: ready::Kind,
    /// The engine's, of a language model.
    thread: Option<JoinHandle<()>>,
}

/// How long the phases of the start take.
struct Phases {
    began: Instant,
    ended: Vec<(&'static str, f64)>,
}

impl Phases {
    fn start() -> Self {
        Self { began: Instant::now(), ended: Vec::new() }
    }

    /// The phase that ran until now ends, the next one begins.
    fn end(&mut self, phase: &'static str) {
        self.ended.push((phase, self.began.elapsed().as_secs_f64()));
        self.began = Instant::now();
    }
}

async fn prepare(config: &Config) -> anyhow::Result<Prepared> {
    let mut phases = Phases::start();
    let spec = config.model.as_ref().context("no model was named")?;
    if config.predictive.on_call {
        let registry = Registry::new(classic::on_call(config, spec)?);
        return Ok(Prepared { registry, names: vec![], kind: ready::Kind::Classic, thread: None });
    }
    let path = model::locate(config, spec).await?;
    if classic::is_repository(config, &path) {
        let repository = classic::below(config, spec, path)?;
        let names = classic::load_all(&repository).await?;
        let registry = Registry::new(repository);
        return Ok(Prepared { registry, names, kind: ready::Kind::Classic, thread: None });
    }
    if classic::is_classic(config, &path) {
        let (registry, names) = classic::single(config, spec, &path).await?;
        return Ok(Prepared { registry, names, kind: ready::Kind::Classic, thread: None });
    }
    let opened = model::open(config, spec, path)?;
    phases.end("open");
    announce(&opened, &config.engine, config);
    let kv_dtype = kv_name(opened.plan.kv_type).to_owned();
    let settings = config.engine.clone();
    let (opened, engine, thread, report) =
        tokio::task::spawn_blocking(move || start_engine(opened, &settings)).await??;
    phases.ended.push(("map_weights", report.weights.as_secs_f64()));
    phases.ended.push(("alloc_kv", report.cache.as_secs_f64()));
    phases.began = Instant::now();
    warm_up(&engine, opened.tokenizer.bos().unwrap_or(0)).await?;
    phases.end("first_token");

    let Opened { names, root, source, plan, tokenizer, template, generation, .. } = opened;
    let options =
        TextPoolOptions { threads: config.engine.split.text_threads, ..TextPoolOptions::default() };
    let text = TextPool::new(tokenizer, options).context("cannot start the text threads")?;
    let kind = if template.is_some() { ready::Kind::Chat } else { ready::Kind::Completion };
    let model = Generative::new(GenerativeParts {
        engine,
        text,
        template,
        eos_tokens: source.config.eos_tokens.clone(),
        defaults: SamplingDefaults {
            temperature: generation.temperature,
            top_p: generation.top_p,
            top_k: generation.top_k,
            min_p: generation.min_p,
            repetition_penalty: generation.repetition_penalty,
            max_new_tokens: generation.max_new_tokens,
        },
        root,
        prefix_cache: config.engine.prefix_cache,
        priorities: config.engine.priorities,
        kv_dtype,
    });
    for (phase, seconds) in phases.ended {
        model.metrics.record_startup(phase, seconds);
    }
    for (part, bytes) in [
        ("weights", plan.weight_bytes),
        ("kv", plan.kv_bytes),
        ("workspace", plan.workspace_bytes),
        ("tables", plan.table_bytes),
    ] {
        model.metrics.record_memory(part, bytes);
    }
    let model = Served::Generative(Arc::new(model));
    let mut registry = Registry::default();
    if let Some(spec) = &config.predictive.repository {
        let root = model::locate(config, spec).await?;
        let repository = classic::below(config, spec, root)?;
        classic::load_all(&repository).await?;
        registry = Registry::new(repository);
    }
    for name in &names {
        registry.insert(name.clone(), model.clone())?;
    }
    Ok(Prepared { registry, names, kind, thread: Some(thread) })
}

/// Says what will be used, before it is.
fn announce(opened: &Opened, settings: &EngineSettings, config: &Config) {
    let plan = &opened.plan;
    let split = settings.split;
    tracing::info!(
        model = %opened.path.display(),
        architecture = opened.source.config.architecture,
        parameters = plan.parameters,
        max_model_len = plan.limits.max_model_len,
        "model"
    );
    tracing::info!(
        kernels = split.kernel_threads,
        io = split.tokio_workers,
        text = split.text_threads,
        "threads"
    );
    tracing::info!(
        weights = bytes(plan.weight_bytes),
        kv_cache = bytes(plan.kv_bytes),
        workspace = bytes(plan.workspace_bytes),
        tables = bytes(plan.table_bytes),
        total = bytes(plan.total_bytes()),
        "memory plan"
    );
    tracing::debug!(?config, "configuration");
    if opened.template.is_none() {
        tracing::warn!(
            "the model has no chat template: chat requests are refused (--chat-template)"
        );
    }
}

/// Reads the weights and starts the engine's thread.
fn start_engine(
    opened: Opened,
    settings: &EngineSettings,
) -> anyhow::Result<(Opened, EngineHandle, JoinHandle<()>, LoadReport)> {
    let pool = Arc::new(ThreadPool::new(settings.split.kernel_threads));
    let bar = progress::bytes("loading");
    let mut advance = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let loaded = load::load(&opened.source, &opened.options, &pool, &mut advance);
    bar.finish_and_clear();
    let (executor, _, report) = loaded?;
    if !report.unread.is_empty() {
        let unread = report.unread.len();
        tracing::warn!(unread, first = report.unread[0], "tensors that the model does not use");
    }
    let engine = EngineConfig {
        max_waiting: settings.max_waiting,
        max_chunk_tokens: settings.max_chunk_tokens,
        prefix_cache: settings.prefix_cache,
        policy: if settings.priorities { Policy::Priority } else { Policy::FirstCome },
        hash_key: random::hash_key(),
    };
    let (engine, thread) = EngineHandle::spawn(Box::new(executor), engine)?;
    Ok((opened, engine, thread, report))
}

/// Generates one token: buffers grow, and a model that computes nonsense never opens the port.
async fn warm_up(engine: &EngineHandle, token: TokenId) -> anyhow::Result<()> {
    let spec = SequenceSpec {
        prompt: vec![token; 8.min(engine.limits().max_model_len.saturating_sub(1)).max(1) as usize],
        max_tokens: 1,
        skip_prefix_cache: true,
        ..SequenceSpec::default()
    };
    let sampling = SamplingParams { temperature: 0.0, ..SamplingParams::default() };
    let mut stream = engine.submit(GenerateRequest { spec, sampling }).context("the warm-up")?;
    while let Some(event) = stream.next().await {
        match event {
            TokenEvent::Finished(FinishReason::Length | FinishReason::Stop) => return Ok(()),
            TokenEvent::Finished(reason) => {
                bail!("the warm-up token failed ({reason:?}): the weights give no numbers")
            }
            TokenEvent::Lost => break,
            TokenEvent::Pooled(_)
            | TokenEvent::Admitted { .. }
            | TokenEvent::PromptLogprobs(_)
            | TokenEvent::Token { .. } => {}
        }
    }
    bail!("the engine died during the warm-up; the log above says why")
}
