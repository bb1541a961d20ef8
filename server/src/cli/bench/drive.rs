//! Sending requests at the right time and timing their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::Route;
use super::prompts::Prompt;
use super::random::arrivals;
use super::stats::Sample;
use crate::cli::openai_client::{OpenAiClient, event_text};

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "loop")]
pub(super) enum Load {
    /// The next one when one is answered.
    Closed {
        /// In flight.
        concurrency: usize,
    },
    /// At times of their own.
    Open {
        /// Per second.
        rate: f64,
    },
}

/// What every request of a run has in common.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) client: OpenAiClient,
    pub(super) model: String,
    pub(super) route: Route,
    pub(super) max_tokens: u32,
    pub(super) stop_at_eos: bool,
    pub(super) temperature: f64,
    pub(super) extra: Map<String, Value>,
}

impl Plan {
    fn body(&self, prompt: &Prompt) -> Value {
        let mut body = json!({
            "model": self.model,
            "max_tokens": prompt.max_tokens.unwrap_or(self.max_tokens),
            "temperature": self.temperature,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        match self.route {
            Route::Chat => body["messages"] = prompt.messages.clone(),
            Route::Completions => body["prompt"] = prompt.text().into(),
        }
        if !self.stop_at_eos {
            body["ignore_eos"] = true.into();
        }
        for (name, value) in &self.extra {
            body[name] = value.clone();
        }
        body
    }

    /// Sends one request and times its answer. `start` is left at zero.
    pub(super) async fn measure(&self, prompt: &Prompt) -> Sample {
        let route = match self.route {
            Route::Chat => "chat/completions",
            Route::Completions => "completions",
        };
        let body = self.body(prompt);
        let mut sample = Sample::default();
        let mut pieces = 0;
        let sent = Instant::now();
        let mut last = sent;
        let result = self
            .client
            .stream(route, &body, |event| {
                let now = Instant::now();
                if !event_text(event).is_empty() {
                    match sample.ttft {
                        None => sample.ttft = Some((now - sent).as_secs_f64()),
                        Some(_) => sample.itl.push((now - last).as_secs_f64()),
                    }
                    last = now;
                    pieces += 1;
                }
                read_usage(&event["usage"], &mut sample);
            })
            .await;
        sample.e2e = sent.elapsed().as_secs_f64();
        if sample.completion_tokens == 0 {
            sample.completion_tokens = pieces;
        }
        sample.error = result.err().map(|error| error.to_string());
        sample
    }
}

fn read_usage(usage: &Value, sample: &mut Sample) {
    let count = |value: &Value| value.as_u64();
    if let Some(tokens) = count(&usage["prompt_tokens"]) {
        sample.prompt_tokens = tokens;
    }
    if let Some(tokens) = count(&usage["completion_tokens"]) {
        sample.completion_tokens = tokens;
    }
    if let Some(tokens) = count(&usage["prompt_tokens_details"]["cached_tokens"]) {
        sample.cached_tokens = tokens;
    }
}

/// Sends every prompt; samples in the order of the prompts, and the seconds it took.
pub(super) async fn run(
    plan: Plan,
    prompts: Vec<Prompt>,
    load: Load,
    seed: u64,
    bar: &ProgressBar,
) -> (Vec<Sample>, f64) {
    let count = prompts.len();
    let shared = Arc::new((plan, prompts));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    match load {
        Load::Closed { concurrency } => {
            let next = Arc::new(AtomicUsize::new(0));
            for _ in 0..concurrency.min(count) {
                let worker = worker(Arc::clone(&shared), Arc::clone(&next), start, bar.clone());
                tasks.spawn(worker);
            }
        }
        Load::Open { rate } => {
            for (index, at) in arrivals(count, rate, seed).into_iter().enumerate() {
                let (shared, bar) = (Arc::clone(&shared), bar.clone());
                tasks.spawn(async move {
                    tokio::time::sleep_until((start + Duration::from_secs_f64(at)).into()).await;
                    vec![one(&shared, index, start, &bar).await]
                });
            }
        }
    }
    let mut samples: Vec<(usize, Sample)> = tasks.join_all().await.into_iter().flatten().collect();
    let seconds = start.elapsed().as_secs_f64();
    samples.sort_by_key(|(index, _)| *index);
    (samples.into_iter().map(|(_, sample)| sample).collect(), seconds)
}

/// One client of the closed loop.
async fn worker(
    shared: Arc<(Plan, Vec<Prompt>)>,
    next: Arc<AtomicUsize>,
    start: Instant,
    bar: ProgressBar,
) -> Vec<(usize, Sample)> {
    let mut samples = Vec::new();
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= shared.1.len() {
            return samples;
        }
        samples.push(one(&shared, index, start, &bar).await);
    }
}

async fn one(
    shared: &(Plan, Vec<Prompt>),
    index: usize,
    start: Instant,
    bar: &ProgressBar,
) -> (usize, Sample) {
    let sent = start.elapsed().as_secs_f64();
    let mut sample = shared.0.measure(&shared.1[index]).await;
    sample.start = sent;
    bar.inc(1);
    (index, sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::prompts::{Shape, synthetic};
    use crate::cli::test_server::{Answer, TestServer};

    fn plan(server: &TestServer) -> Plan {
        Plan {
            client: OpenAiClient::new(&server.url, None).unwrap(),
            model: "m".to_owned(),
            route: Route::Chat,
            max_tokens: 3,
            stop_at_eos: false,
            temperature: 0.0,
            extra: Map::new(),
        }
    }

    fn good() -> Answer {
        Answer::events(&[
            r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"content":"b"}}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
            "[DONE]",
        ])
    }

    #[tokio::test]
    async fn both_loops_send_every_prompt_once() {
        for load in [Load::Closed { concurrency: 3 }, Load::Open { rate: 1e6 }] {
            let server = TestServer::start(|_| good());
            let prompts = synthetic(10, Shape { words: 5, shared_words: 0, seed: 3 });
            let bar = ProgressBar::hidden();
            let (samples, seconds) = run(plan(&server), prompts.clone(), load, 1, &bar).await;
            assert_eq!(samples.len(), 10);
            assert!(seconds > 0.0);
            for sample in &samples {
                assert_eq!(sample.error, None);
                assert_eq!((sample.prompt_tokens, sample.completion_tokens), (7, 2));
                assert_eq!((sample.ttft.is_some(), sample.itl.len()), (true, 1));
            }
            let mut bodies = server.bodies();
            bodies.sort_by_key(|body| body["messages"].to_string());
            let mut wanted: Vec<_> = prompts.into_iter().map(|prompt| prompt.messages).collect();
            wanted.sort_by_key(Value::to_string);
            let asked: Vec<_> = bodies.iter().map(|body| body["messages"].clone()).collect();
            assert_eq!(asked, wanted);
            assert_eq!(
                (bodies[0]["max_tokens"].as_u64(), &bodies[0]["stream"]),
                (Some(3), &json!(true))
            );
        }
    }

    #[tokio::test]
    async fn failures_are_samples_with_their_message() {
        for (answer, part) in [
            (Answer::json(503, r#"{"error":{"message":"full"}}"#), "503: full"),
            (Answer::events(&[r#"{"error":{"message":"lost"}}"#]), "lost"),
            (Answer::events(&[r#"{"choices":[{"delta":{"content":"a"}}]}"#]), "cut before its end"),
            (Answer::events(&["{"]), "unexpected answer"),
        ] {
            let server = TestServer::start(move |_| answer.clone());
            let prompt = &synthetic(1, Shape { words: 5, shared_words: 0, seed: 3 })[0];
            let error = plan(&server).measure(prompt).await.error.expect(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
