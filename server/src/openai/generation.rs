//! A request's sequences together: submission, waiting, usage.
//!
//! With `n > 1` the first choice of a prompt runs ahead until its first token, so that the others find
//! the prompt in the prefix cache instead of computing it again side by side.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokenmill_engine::handle::GenerateRequest;
use tokenmill_engine::sampling::SamplingParams;
use tokenmill_engine::stream::TokenStream;
use tokenmill_scheduler::{OutputKind, SequenceSpec, Tick};

use super::choice::{Choice, Rules};
use super::params::Params;
use crate::admission::Permit;
use crate::app::App;
use crate::error::{ApiError, prompt_too_long};
use crate::metrics::Canceller;
use crate::random;
use crate::registry::Generative;

/// One prompt, tokenised; the text is kept where it is echoed.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: Option<String>,
}

/// What the sequences of a request are made from.
pub(crate) struct Plan<'a> {
    pub(crate) model: &'a Arc<Generative>,
    pub(crate) params: &'a Params,
    pub(crate) bad_words: Vec<Vec<u32>>,
    pub(crate) prompts: Arc<Vec<Prompt>>,
    /// Upper bound of completion tokens when the request names none.
    pub(crate) default_max_tokens: Option<u32>,
    pub(crate) arrival: Instant,
    pub(crate) timeout: Option<Duration>,
    pub(crate) permit: Permit,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
    pub(crate) total_tokens: u64,
    pub(crate) prompt_tokens_details: PromptDetails,
}

/// Where prompt tokens came from.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct PromptDetails {
    pub(crate) cached_tokens: u64,
}

impl Usage {
    fn new(prompt_tokens: u64, completion_tokens: u64, cached_tokens: u64) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        let prompt_tokens_details = PromptDetails { cached_tokens };
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details }
    }
}

/// The running sequences of a request: choice `prompt * n + i`.
pub(crate) struct Generation {
    pub(crate) choices: Vec<Choice>,
    pub(crate) prompts: Arc<Vec<Prompt>>,
    model: Arc<Generative>,
    n: usize,
    permit: Permit,
}

impl Drop for Generation {
    fn drop(&mut self) {
        for row in self.choices.chunks(self.n) {
            let longest = row.iter().map(|choice| choice.generated).max();
            self.model.metrics.prompt_ended(longest.unwrap_or(0));
        }
    }
}

impl Plan<'_> {
    /// Submits every sequence.
    ///
    /// # Errors
    /// When a prompt does not fit, there are more sequences than can ever be accepted, or the engine
    /// refuses one.
    pub(crate) async fn start(self) -> Result<Generation, ApiError> {
        self.check_capacity()?;
        for prompt in self.prompts.iter() {
            self.max_tokens(prompt)?;
        }
        let mut rows: Vec<Vec<Choice>> = Vec::with_capacity(self.prompts.len());
        if let Err(error) = self.submit_all(&mut rows).await {
            // Refused as a whole: what was submitted is taken back and counts nowhere.
            rows.iter_mut().flatten().for_each(Choice::discard);
            return Err(error);
        }
        for prompt in self.prompts.iter() {
            self.model.metrics.submitted(self.params.n, self.max_tokens(prompt)?);
        }
        let choices = rows.into_iter().flatten().collect();
        let (model, prompts) = (Arc::clone(self.model), self.prompts);
        Ok(Generation { choices, model, prompts, n: self.params.n as usize, permit: self.permit })
    }

    /// Refuses what cannot be accepted even by an idle engine before it fills the queue of others.
    fn check_capacity(&self) -> Result<(), ApiError> {
        let (n, prompts) = (u64::from(self.params.n), self.prompts.len() as u64);
        let (asked, capacity) = (n.saturating_mul(prompts), self.model.engine.capacity());
        if asked <= u64::from(capacity) {
            return Ok(());
        }
        let param = if n > 1 { "n" } else { "prompt" };
        let text = format!(
            "{param}: {n} choices of {prompts} prompts are {asked} sequences, this server runs and \
             queues at most {capacity}"
        );
        Err(ApiError::bad_request(text).with_param(param))
    }

    /// One row of choices per prompt.
    async fn submit_all(&self, rows: &mut Vec<Vec<Choice>>) -> Result<(), ApiError> {
        let rules = Arc::new(self.rules());
        let n = self.params.n;
        let ahead = n > 1 && self.prompts.iter().any(|prompt| self.runs_ahead(prompt));
        let first = if ahead { 1 } else { n };
        rows.resize_with(self.prompts.len(), Vec::new);
        for (row, prompt) in rows.iter_mut().zip(self.prompts.iter()) {
            self.submit(row, prompt, &rules, 0..first)?;
        }
        if ahead {
            poll_fn(|context| poll_first_tokens(rows, context)).await;
            for (row, prompt) in rows.iter_mut().zip(self.prompts.iter()) {
                self.submit(row, prompt, &rules, 1..n)?;
            }
        }
        Ok(())
    }

    fn rules(&self) -> Rules {
        let params = self.params;
        let eos = if params.ignore_eos { &[][..] } else { &self.model.eos_tokens };
        Rules {
            stop: params.stop.clone(),
            include_stop: params.include_stop,
            eos_tokens: eos.to_vec(),
            stop_token_ids: params.stop_token_ids.clone(),
            min_tokens: params.min_tokens,
            skip_special: params.skip_special,
            hide_completion: params.max_tokens == Some(0),
        }
    }

    /// Whether the first choice should compute the prompt for the others: they then find its whole
    /// blocks, and the log-probabilities of the prompt are computed once.
    fn runs_ahead(&self, prompt: &Prompt) -> bool {
        let blocks = prompt.tokens.len() / self.model.engine.limits().block_size.max(1) as usize;
        self.prompt_logprobs().is_some() || (self.model.prefix_cache && blocks >= 2)
    }

    /// Log-probabilities of the prompt: asked for, or part of an echo.
    fn prompt_logprobs(&self) -> Option<u32> {
        let echoed =
            self.params.logprobs.filter(|_| self.params.echo && self.prompts[0].text.is_some());
        self.params.prompt_logprobs.max(echoed)
    }

    fn max_tokens(&self, prompt: &Prompt) -> Result<u32, ApiError> {
        let limit = self.model.max_model_len();
        let room = u32::try_from(prompt.tokens.len()).ok().and_then(|len| limit.checked_sub(len));
        let room = room.filter(|&room| room > 0);
        let room = room.ok_or_else(|| prompt_too_long(prompt.tokens.len(), limit))?;
        Ok(self.params.max_tokens.or(self.default_max_tokens).unwrap_or(room).min(room))
    }

    fn submit(
        &self,
        row: &mut Vec<Choice>,
        prompt: &Prompt,
        rules: &Arc<Rules>,
        indices: std::ops::Range<u32>,
    ) -> Result<(), ApiError> {
        for index in indices {
            let stream = self.sequence(prompt, index)?;
            let alone = stream.is_none();
            let mut choice = Choice::new(self.model, rules, &prompt.tokens, stream, self.arrival);
            if alone {
                choice.finish_without_sequence();
            }
            row.push(choice);
        }
        Ok(())
    }

    /// Submits choice `index` of a prompt; `None` when there is nothing to compute.
    fn sequence(&self, prompt: &Prompt, index: u32) -> Result<Option<TokenStream>, ApiError> {
        let params = self.params;
        let prompt_logprobs = self.prompt_logprobs().filter(|_| index == 0);
        let max_tokens = self.max_tokens(prompt)?;
        if max_tokens == 0 && prompt_logprobs.is_none() {
            return Ok(None);
        }
        let mut stop_tokens = params.stop_token_ids.clone();
        if !params.ignore_eos {
            stop_tokens.extend(&self.model.eos_tokens);
        }
        let deadline = self.timeout.map(|timeout| self.deadline(timeout));
        let spec = SequenceSpec {
            prompt: prompt.tokens.clone(),
            max_tokens: max_tokens.max(1),
            stop_tokens,
            priority: params.priority,
            cache_salt: params.cache_salt,
            skip_prefix_cache: prompt_logprobs.is_some(),
            deadline,
            output: OutputKind::Sample,
        };
        let sampling = SamplingParams {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            logit_bias: params.logit_bias.clone(),
            allowed_tokens: params.allowed_tokens.clone(),
            bad_words: self.bad_words.clone(),
            min_tokens: params.min_tokens,
            seed: random::choice_seed(params.seed, index),
            logprobs: params.logprobs,
            prompt_logprobs,
        };
        Ok(Some(self.model.engine.submit(GenerateRequest { spec, sampling })?))
    }

    /// The end of the request on the engine's clock; time already spent here counts.
    fn deadline(&self, timeout: Duration) -> Tick {
        let left = timeout.saturating_sub(self.arrival.elapsed());
        let left = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        Tick(self.model.engine.now().0.saturating_add(left))
    }
}

fn poll_first_tokens(rows: &mut [Vec<Choice>], context: &mut Context<'_>) -> Poll<()> {
    let mut waiting = false;
    for choice in rows.iter_mut().flatten() {
        if !choice.has_begun() {
            choice.poll_drain(context);
            waiting |= !choice.has_begun();
        }
    }
    if waiting { Poll::Pending } else { Poll::Ready(()) }
}

impl Generation {
    /// Waits until a choice has something new, and takes all that is ready. Returns at once when every
    /// choice ended. May be dropped and called again.
    ///
    /// # Errors
    /// The first choice's that failed; the request as a whole fails then.
    pub(crate) async fn advance(&mut self) -> Result<(), ApiError> {
        poll_fn(|context| self.poll_advance(context)).await;
        match self.choices.iter_mut().find_map(|choice| choice.error.take()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn poll_advance(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut progressed = false;
        for choice in &mut self.choices {
            progressed |= choice.poll_drain(context);
        }
        if progressed || self.is_ended() {
            if self.choices.iter().all(Choice::has_begun) {
                self.permit.prefill_done();
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether any choice has a token or ended.
    pub(crate) fn has_output(&self) -> bool {
        self.choices.iter().any(Choice::has_begun)
    }

    /// Whether no more will come.
    pub(crate) fn is_ended(&self) -> bool {
        self.choices.iter().all(Choice::is_ended)
    }

    /// Runs to the end, keeping everything.
    ///
    /// # Errors
    /// As [`advance`](Self::advance), and when the server stops before the end.
    pub(crate) async fn collect(&mut self, app: &App) -> Result<(), ApiError> {
        loop {
            tokio::select! {
                biased;
                () = app.abort.cancelled() => {
                    self.cancel_for_drain();
                    return Err(ApiError::draining());
                }
                result = self.advance() => result?,
            }
            if self.is_ended() {
                return Ok(());
            }
        }
    }

    /// Cancels what still runs because the server stops.
    pub(crate) fn cancel_for_drain(&mut self) {
        for choice in &mut self.choices {
            choice.cancel(Canceller::Drain);
        }
    }

    /// The prompt that a choice continues.
    pub(crate) fn prompt_of(&self, choice: usize) -> &Prompt {
        &self.prompts[choice / self.n]
    }

    /// The choice that computed the prompt's log-probabilities.
    pub(crate) fn leader_of(&self, choice: usize) -> &Choice {
        &self.choices[choice / self.n * self.n]
    }

    /// Tokens of the whole request.
    pub(crate) fn usage(&self) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompt| prompt.tokens.len() as u64).sum();
        let completion_tokens = self.choices.iter().map(|choice| u64::from(choice.generated)).sum();
        let leaders = self.choices.iter().step_by(self.n);
        let cached = leaders.map(|choice| u64::from(choice.cached_tokens)).sum();
        Usage::new(prompt_tokens, completion_tokens, cached)
    }

    /// Tokens of one choice so far.
    pub(crate) fn usage_of(&self, index: usize) -> Usage {
        let prompt_tokens = self.prompt_of(index).tokens.len() as u64;
        let cached = u64::from(self.leader_of(index).cached_tokens);
        Usage::new(prompt_tokens, u64::from(self.choices[index].generated), cached)
    }

    /// `usage` of an ordinary chunk: no key, null, or the choice's tokens so far.
    pub(crate) fn chunk_usage(&self, params: &Params, index: usize) -> Option<Option<Usage>> {
        let Params { include_usage, continuous_usage, .. } = *params;
        include_usage.then(|| continuous_usage.then(|| self.usage_of(index)))
    }
}
