//! The running engine: many readers, leaving readers, refusals, drains and failures.

use std::thread::JoinHandle;

use tokenmill_engine::handle::{
    EngineConfig, EngineHandle, GenerateRequest, SpawnError, SubmitError,
};
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::sim::{Fault, SimConfig, SimExecutor, SimModel};
use tokenmill_engine::stats::{FINISH_REASONS, StepPart};
use tokenmill_engine::stream::{TokenEvent, TokenStream};
use tokenmill_scheduler::{FinishReason, OutputKind, Policy, SequenceSpec, Tick, TokenId};

fn config(max_waiting: u32) -> EngineConfig {
    EngineConfig {
        max_waiting,
        max_chunk_tokens: 64,
        prefix_cache: true,
        policy: Policy::FirstCome,
        hash_key: [3, 4],
    }
}

fn spawn(sim: SimConfig, max_waiting: u32) -> (EngineHandle, JoinHandle<()>) {
    EngineHandle::spawn(Box::new(SimExecutor::new(sim)), config(max_waiting))
        .expect("the simulated limits are valid")
}

fn request(seed: u64, max_tokens: u32) -> GenerateRequest {
    let prompt = (0..5 + seed % 40).map(|i| ((seed / 10) * 31 + i * 7) as TokenId % 500).collect();
    let temperature = if seed.is_multiple_of(2) { 0.0 } else { 1.0 };
    GenerateRequest {
        spec: SequenceSpec { prompt, max_tokens, ..SequenceSpec::default() },
        sampling: SamplingParams { temperature, seed, ..SamplingParams::default() },
    }
}

fn expected(model: &SimModel, request: &GenerateRequest) -> Vec<TokenId> {
    let GenerateRequest { spec, sampling } = request;
    model.generate(&spec.prompt, &spec.stop_tokens, sampling, spec.max_tokens)
}

/// Tokens until the end, and the last event.
fn read(mut stream: TokenStream) -> (Vec<TokenId>, TokenEvent) {
    let mut tokens = Vec::new();
    loop {
        match stream.blocking_next().expect("an end comes before nothing") {
            TokenEvent::Token { id, .. } => tokens.push(id),
            event @ (TokenEvent::Finished(_) | TokenEvent::Lost) => return (tokens, event),
            TokenEvent::Admitted { .. } | TokenEvent::PromptLogprobs(_) | TokenEvent::Pooled(_) => {
            }
        }
    }
}

/// Reads to the end, or leaves after the first token.
async fn consume(mut stream: TokenStream, leaves: bool) -> Option<Vec<TokenId>> {
    let mut tokens = Vec::new();
    while let Some(event) = stream.next().await {
        match event {
            TokenEvent::Token { .. } if leaves => return None,
            TokenEvent::Token { id, .. } => tokens.push(id),
            TokenEvent::Lost => panic!("the engine runs on"),
            TokenEvent::Finished(reason) => assert_eq!(reason, FinishReason::Length),
            TokenEvent::Admitted { .. } | TokenEvent::PromptLogprobs(_) | TokenEvent::Pooled(_) => {
            }
        }
    }
    Some(tokens)
}

#[test]
fn a_thousand_streams_over_two_threads_with_readers_that_leave() {
    let mut sim = SimConfig::default();
    sim.limits.max_model_len = 128;
    sim.limits.groups[0].num_blocks = 40; // Room for a third of what 64 sequences need.
    let model = SimModel::new(&sim);
    let requests: Vec<_> = (0..1000u64)
        .map(|seed| {
            let request = request(seed, 8 + (seed % 24) as u32);
            let want = expected(&model, &request);
            (seed, request, want)
        })
        .collect();
    let (handle, thread) = spawn(sim, 1000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let submit = |(seed, request, want): (u64, GenerateRequest, Vec<TokenId>)| {
            let stream = handle.submit(request).expect("permits cover all of them");
            (want, tokio::spawn(consume(stream, seed % 7 == 0)))
        };
        let tasks: Vec<_> = requests.into_iter().map(submit).collect();
        for (seed, (want, task)) in tasks.into_iter().enumerate() {
            if let Some(tokens) = task.await.unwrap() {
                assert_eq!(tokens, want, "stream {seed}");
            }
        }
    });
    handle.drain();
    assert_eq!(handle.submit(request(0, 1)).unwrap_err(), SubmitError::Draining);
    let observer = handle.clone();
    drop(handle);
    assert!(observer.is_alive(), "a clone keeps the engine");
    let stats = observer.stats();
    let ended = || FINISH_REASONS.iter().map(|&reason| stats.finished(reason)).sum::<u64>();
    // The engine may yet have to notice that the last readers left.
    while ended() < 1000 {
        std::thread::yield_now();
    }
    assert_eq!(ended(), 1000, "each ends exactly once");
    let steps = stats.iteration_tokens.counts().sum::<u64>();
    assert!(steps > 0 && stats.step_seconds(StepPart::Commit).counts().sum::<u64>() == steps);
    drop(observer);
    thread.join().unwrap();
}

#[test]
fn what_a_reader_has_read_is_counted() {
    let (handle, thread) = spawn(SimConfig::default(), 8);
    let stats = handle.stats();
    let (mut prompts, mut generated) = (0, 0);
    for seed in 0..40 {
        let request = request(seed, 1 + seed as u32 % 5);
        prompts += request.spec.prompt.len() as u64;
        let (tokens, end) = read(handle.submit(request).expect("one at a time"));
        assert_eq!(end, TokenEvent::Finished(FinishReason::Length));
        generated += tokens.len() as u64;
        assert_eq!((stats.running.get(), stats.finished(FinishReason::Length)), (0, seed + 1));
        assert_eq!(
            (stats.prompt_tokens.get(), stats.generation_tokens.get()),
            (prompts, generated)
        );
        // The first token of each comes from its prompt's last step.
        assert_eq!(stats.decode_tokens.get(), generated - (seed + 1));
        assert_eq!(stats.prefill_tokens.get(), prompts - stats.cached_tokens.get());
    }
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn refusals_come_back_at_once_and_say_why() {
    let (handle, thread) = spawn(SimConfig::default(), 2);
    let check = |request: GenerateRequest, want: &str| {
        let got = handle.submit(request).unwrap_err().to_string();
        assert!(got.starts_with(want), "{got}, want {want}");
    };
    let with = |change: fn(&mut GenerateRequest)| {
        let mut request = request(1, 4);
        change(&mut request);
        request
    };
    check(with(|r| r.spec.prompt.clear()), "the prompt is empty");
    check(with(|r| r.spec.prompt = vec![1; 2048]), "the prompt has 2048 tokens, the model length");
    check(with(|r| r.spec.max_tokens = 0), "max_tokens is 0");
    check(with(|r| r.spec.prompt[0] = 512), "token id 512 is outside the vocabulary of 512");
    check(with(|r| r.sampling.top_p = 1.5), "top_p is 1.5, it must be in (0, 1]");
    check(with(|r| r.sampling.bad_words = vec![vec![600]]), "bad_words has token id 600");
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn permits_bound_what_is_in_flight_and_return_with_the_stream() {
    let mut sim = SimConfig::default();
    sim.limits.max_sequences = 2;
    let (handle, thread) = spawn(sim, 1);
    let mut streams: Vec<_> = (0..3).map(|seed| handle.submit(request(seed, 4)).unwrap()).collect();
    let overloaded = SubmitError::Overloaded { limit: 3 };
    assert_eq!(handle.submit(request(9, 4)).unwrap_err(), overloaded);
    // A stream that ended but is still held keeps its permit; dropping it gives the permit back.
    let mut first = streams.remove(0);
    while !first.is_ended() {
        first.blocking_next();
    }
    assert_eq!(handle.submit(request(9, 4)).unwrap_err(), overloaded);
    drop(first);
    streams.push(handle.submit(request(9, 4)).unwrap());
    handle.drain();
    drop(handle);
    for stream in streams {
        assert_eq!(read(stream).1, TokenEvent::Finished(FinishReason::Length));
    }
    thread.join().unwrap();
}

#[test]
fn a_device_that_fails_or_panics_ends_every_stream_as_lost() {
    for fault in [Fault::FailAtStep(4), Fault::PanicAtStep(4), Fault::FailAtStep(1)] {
        let sim = SimConfig { fault, ..SimConfig::default() };
        let model = SimModel::new(&sim);
        let (handle, thread) = spawn(sim, 100);
        let mut accepted = Vec::new();
        for seed in 0..100 {
            let request = request(seed, 1000);
            match handle.submit(request.clone()) {
                Ok(stream) => accepted.push((request, stream)),
                Err(error) => assert_eq!(error, SubmitError::Lost),
            }
        }
        assert!(!accepted.is_empty());
        for (request, stream) in accepted {
            let (tokens, end) = read(stream);
            assert_eq!(end, TokenEvent::Lost, "{fault:?}");
            let request =
                GenerateRequest { spec: SequenceSpec { max_tokens: 4, ..request.spec }, ..request };
            assert!(expected(&model, &request).starts_with(&tokens), "{fault:?}");
        }
        assert!(!handle.is_alive());
        assert_eq!(handle.submit(request(0, 1)).unwrap_err(), SubmitError::Lost);
        thread.join().expect("the panic does not leave the engine");
        let stats = handle.stats();
        assert_eq!((stats.running.get(), stats.waiting.get()), (0, 0));
        assert!(stats.finished(FinishReason::Failed) > 0);
    }
}

#[test]
fn deadlines_use_the_engine_clock() {
    let (handle, thread) = spawn(SimConfig::default(), 8);
    let mut late = request(1, 1000);
    late.spec.deadline = Some(Tick(handle.now().0));
    let stream = handle.submit(late).unwrap();
    assert_eq!(read(stream), (vec![], TokenEvent::Finished(FinishReason::Deadline)));
    let mut early = request(1, 4);
    early.spec.deadline = Some(Tick(u64::MAX));
    let stream = handle.submit(early).unwrap();
    assert_eq!(read(stream).1, TokenEvent::Finished(FinishReason::Length));
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn pooled_rows_arrive_before_the_end() {
    let (handle, thread) = spawn(SimConfig::default(), 8);
    let row_of = |seed: u64| {
        let mut pool = request(seed, 0);
        pool.spec.output = OutputKind::Pool;
        let mut stream = handle.submit(pool).unwrap();
        let mut events = Vec::new();
        while let Some(event) = stream.blocking_next() {
            events.push(event);
        }
        match &events[..] {
            [
                TokenEvent::Admitted { .. },
                TokenEvent::Pooled(row),
                TokenEvent::Finished(FinishReason::Pooled),
            ] => row.clone(),
            other => panic!("{other:?}"),
        }
    };
    let first = row_of(1);
    assert_eq!((first.len(), &first), (8, &row_of(1)));
    assert_ne!(first, row_of(2));
    drop(handle);
    thread.join().unwrap();
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let mut sim = SimConfig::default();
    sim.limits.groups[0].num_blocks = 3;
    let error = EngineHandle::spawn(Box::new(SimExecutor::new(sim)), config(1)).unwrap_err();
    assert!(matches!(error, SpawnError::Config(_)), "{error}");
}
