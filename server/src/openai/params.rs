//! The parameters that chat and text completions share, checked once.
//!
//! Nothing after [`Params::parse`] looks at JSON again. Parameters that need parts this server does not
//! have (grammars, tool parsers, beam search) are refused by name.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::app::ServerConfig;
use crate::error::clip;
use crate::fields::{Fields, Range, token_id, type_name, whole};
use crate::random;
use crate::registry::Generative;

/// Largest `n`.
const MAX_CHOICES: i64 = 16384;
/// Stop strings of one request.
const MAX_STOP_STRINGS: usize = 4;
/// Below it a temperature means greedy.
const GREEDY_BELOW: f64 = 1e-5;
/// Smallest temperature that is not greedy; smaller ones are raised, or logits would overflow.
const MIN_TEMPERATURE: f64 = 0.01;

/// Which API the request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
}

/// How a prompt that is too long is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncation {
    /// Tokens kept; `None` keeps what leaves room for one token.
    pub(crate) tokens: Option<u32>,
    /// Keep the first tokens instead of the last.
    pub(crate) keep_first: bool,
}

/// Parameters of one request, valid by construction.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    pub(crate) n: u32,
    pub(crate) seed: u64,
    pub(crate) temperature: f32,
    pub(crate) top_p: f32,
    pub(crate) top_k: u32,
    pub(crate) min_p: f32,
    pub(crate) repetition_penalty: f32,
    pub(crate) frequency_penalty: f32,
    pub(crate) presence_penalty: f32,
    pub(crate) logit_bias: Vec<(u32, f32)>,
    pub(crate) allowed_tokens: Option<Vec<u32>>,
    pub(crate) bad_words: Vec<String>,
    pub(crate) stop: Vec<String>,
    pub(crate) stop_token_ids: Vec<u32>,
    pub(crate) include_stop: bool,
    pub(crate) ignore_eos: bool,
    pub(crate) min_tokens: u32,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) skip_special: bool,
    pub(crate) add_special: bool,
    /// The sampled token's log-probability and this many of the most likely.
    pub(crate) logprobs: Option<u32>,
    pub(crate) prompt_logprobs: Option<u32>,
    pub(crate) truncation: Option<Truncation>,
    pub(crate) echo: bool,
    pub(crate) return_token_ids: bool,
    pub(crate) tokens_as_ids: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) continuous_usage: bool,
    pub(crate) priority: i64,
    pub(crate) cache_salt: u64,
    pub(crate) request_id: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

fn finite_f32(value: f64) -> f32 {
    value as f32
}

impl Params {
    /// Reads every shared field. Problems stay in `fields`; the values are meaningless if there are any.
    pub(crate) fn parse(
        fields: &mut Fields,
        endpoint: Endpoint,
        model: &Generative,
        config: &ServerConfig,
        priority_header: Option<i64>,
    ) -> Self {
        refuse_unsupported(fields);
        let vocab_size = model.vocab_size();
        let defaults = &model.defaults;
        let number = |fields: &mut Fields, name: &str, range: Range| {
            fields.number(name, range).map(finite_f32)
        };
        let stream = fields.bool("stream").unwrap_or(false);
        let (include_usage, continuous_usage) = stream_options(fields, stream, config);
        let temperature = temperature(fields, defaults.temperature);
        let unit = Range::closed(0.0, 1.0);
        let penalty = Range::closed(-2.0, 2.0);
        let any = Range::above(0.0, f64::from(f32::MAX));
        let top_p = number(fields, "top_p", Range::above(0.0, 1.0)).or(defaults.top_p);
        let min_p = number(fields, "min_p", unit).or(defaults.min_p);
        let repetition = number(fields, "repetition_penalty", any).or(defaults.repetition_penalty);
        let top_k = fields.integer("top_k", -1, i64::from(u32::MAX));
        let n = fields.integer("n", 1, MAX_CHOICES).unwrap_or(1) as u32;
        if n > 1 && temperature == 0.0 {
            fields.refuse(
                "n",
                format!("{n} choices need a temperature above 0, greedy decoding gives one"),
            );
        }
        let params = Self {
            n,
            seed: seed(fields),
            temperature,
            top_p: top_p.unwrap_or(1.0),
            top_k: top_k.map(|k| k.max(0) as u32).or(defaults.top_k).unwrap_or(0),
            min_p: min_p.unwrap_or(0.0),
            repetition_penalty: repetition.unwrap_or(1.0),
            frequency_penalty: number(fields, "frequency_penalty", penalty).unwrap_or(0.0),
            presence_penalty: number(fields, "presence_penalty", penalty).unwrap_or(0.0),
            logit_bias: logit_bias(fields, vocab_size),
            allowed_tokens: allowed_tokens(fields, vocab_size),
            bad_words: strings(fields, "bad_words", None),
            stop: strings(fields, "stop", Some(MAX_STOP_STRINGS)),
            stop_token_ids: fields.token_ids("stop_token_ids", vocab_size).unwrap_or_default(),
            include_stop: fields.bool("include_stop_str_in_output").unwrap_or(false),
            ignore_eos: fields.bool("ignore_eos").unwrap_or(false),
            min_tokens: fields.integer("min_tokens", 0, i64::from(u32::MAX)).unwrap_or(0) as u32,
            max_tokens: max_tokens(fields, endpoint, model),
            skip_special: fields.bool("skip_special_tokens").unwrap_or(true),
            add_special: fields
                .bool("add_special_tokens")
                .unwrap_or(endpoint == Endpoint::Completions),
            logprobs: logprobs(fields, endpoint, config),
            prompt_logprobs: prompt_logprobs(fields, stream, config),
            truncation: truncation(fields, model),
            echo: fields.bool("echo").unwrap_or(false),
            return_token_ids: fields.bool("return_token_ids").unwrap_or(false),
            tokens_as_ids: fields
                .bool("return_tokens_as_token_ids")
                .unwrap_or(config.return_tokens_as_token_ids),
            stream,
            include_usage,
            continuous_usage,
            priority: priority(fields, model, priority_header),
            cache_salt: cache_salt(fields),
            request_id: request_id(fields),
            timeout: timeout(fields),
        };
        params.check_lengths(fields, endpoint);
        // Spaces between special tokens are part of their text here, never inserted: both values agree.
        let _ = fields.bool("spaces_between_special_tokens");
        params
    }

    fn check_lengths(&self, fields: &mut Fields, endpoint: Endpoint) {
        if let Some(max_tokens) = self.max_tokens {
            if self.min_tokens > max_tokens {
                let text = format!("{} is above max_tokens, {max_tokens}", self.min_tokens);
                fields.refuse("min_tokens", text);
            }
            if max_tokens == 0 && !(endpoint == Endpoint::Completions && self.echo) {
                fields.refuse("max_tokens", "0 is possible with echo only, it must be at least 1");
            }
        }
    }
}

/// Refuses what cannot be honoured; names that change nothing are taken out in silence.
fn refuse_unsupported(fields: &mut Fields) {
    let grammar = "constrained decoding is not part of this build";
    let off = |value: &Value| value == &Value::Bool(false);
    for name in
        ["structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"]
    {
        fields.unsupported(name, |_| false, grammar);
    }
    fields.unsupported("response_format", |value| value["type"] == "text", grammar);
    fields.unsupported("use_beam_search", off, "sample with n and best_of = n instead");
    fields.unsupported("length_penalty", |value| value.as_f64() == Some(1.0), "beam search only");
    fields.unsupported(
        "include_reasoning",
        |value| value == &Value::Bool(true),
        "there is no reasoning parser, reasoning stays in the content",
    );
    fields.unsupported(
        "thinking_token_budget",
        |value| whole(value) == Some(-1),
        "there is no reasoning parser",
    );
    fields.unsupported(
        "stream_interval",
        |value| whole(value) == Some(1),
        "tokens are sent as they come",
    );
    for name in [
        "logprob_token_ids",
        "repetition_detection",
        "mm_processor_kwargs",
        "media_io_kwargs",
        "vllm_xargs",
        "kv_transfer_params",
        "ec_transfer_params",
        "watermarking",
        "prompt_embeds",
    ] {
        fields.unsupported(name, is_empty, "leave it out");
    }
    // OpenAI's bookkeeping fields: nothing here depends on them.
    for name in [
        "user",
        "metadata",
        "store",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "session_id",
    ] {
        let _ = fields.take(name);
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

fn stream_options(fields: &mut Fields, stream: bool, config: &ServerConfig) -> (bool, bool) {
    let forced = stream && config.force_include_usage;
    let Some(options) = fields.object("stream_options") else { return (forced, forced) };
    if !stream {
        fields.refuse("stream_options", "allowed only with stream: true");
    }
    let mut flag = |name: &str| match options.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(value)) => *value,
        Some(other) => {
            fields.mistyped_at(format!("stream_options.{name}"), "a boolean", other);
            false
        }
    };
    let include = flag("include_usage");
    let continuous = flag("continuous_usage_stats");
    (include || forced, (include && continuous) || forced)
}

fn temperature(fields: &mut Fields, default: Option<f32>) -> f32 {
    let asked = fields.number("temperature", Range::closed(0.0, 2.0));
    match asked.or(default.map(f64::from)).unwrap_or(1.0) {
        low if low < GREEDY_BELOW => 0.0,
        usual => usual.max(MIN_TEMPERATURE) as f32,
    }
}

fn seed(fields: &mut Fields) -> u64 {
    match fields.integer("seed", i64::MIN, i64::MAX) {
        None | Some(-1) => random::seed(),
        Some(seed) => seed.cast_unsigned(),
    }
}

fn logit_bias(fields: &mut Fields, vocab_size: u32) -> Vec<(u32, f32)> {
    let Some(entries) = fields.object("logit_bias") else { return Vec::new() };
    let mut biases = Vec::with_capacity(entries.len());
    for (key, value) in &entries {
        let path = format!("logit_bias.{}", clip(key));
        let Ok(id) = key.trim().parse::<i64>() else {
            fields.refuse_at(path, "the key must be a token id, written as a decimal number");
            continue;
        };
        let Some(id) = u32::try_from(id).ok().filter(|&id| id < vocab_size) else {
            fields.refuse_at(
                path,
                format!("token id {id} is outside the vocabulary of {vocab_size}"),
            );
            continue;
        };
        match value.as_f64() {
            Some(bias) => biases.push((id, bias.clamp(-100.0, 100.0) as f32)),
            None => fields.mistyped_at(path, "a number", value),
        }
    }
    biases
}

fn allowed_tokens(fields: &mut Fields, vocab_size: u32) -> Option<Vec<u32>> {
    let ids = fields.token_ids("allowed_token_ids", vocab_size)?;
    if ids.is_empty() {
        fields.refuse("allowed_token_ids", "it is empty, at least one token must be allowed");
    }
    Some(ids)
}

/// A list of non-empty strings; `stop` (the one with a limit) may also be a bare string.
fn strings(fields: &mut Fields, name: &str, limit: Option<usize>) -> Vec<String> {
    let items = match fields.take(name) {
        None => return Vec::new(),
        Some(Value::String(one)) if limit.is_some() => vec![Value::String(one)],
        Some(Value::Array(items)) => items,
        Some(other) => {
            fields.mistyped(name, "an array of strings", &other);
            return Vec::new();
        }
    };
    if let Some(limit) = limit.filter(|&limit| items.len() > limit) {
        fields.refuse(name, format!("{} strings, at most {limit} are allowed", items.len()));
    }
    let path = fields.at(name);
    let mut strings = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Value::String(text) if text.is_empty() => {
                fields.refuse_at(format!("{path}.{index}"), "the string is empty");
            }
            Value::String(text) => strings.push(text),
            other => fields.mistyped_at(format!("{path}.{index}"), "a string", &other),
        }
    }
    strings
}

fn max_tokens(fields: &mut Fields, endpoint: Endpoint, model: &Generative) -> Option<u32> {
    let limit = model.max_model_len();
    let smallest = i64::from(endpoint == Endpoint::Chat);
    let mut read = |name: &str| {
        let asked = fields.integer(name, smallest, i64::MAX)?;
        if asked > i64::from(limit) {
            let text = format!(
                "This model's maximum context length is {limit} tokens. However, you requested \
                 {asked} output tokens. Please reduce {name}."
            );
            fields.refuse(name, text);
        }
        u32::try_from(asked).ok()
    };
    let old = read("max_tokens");
    match endpoint {
        Endpoint::Chat => read("max_completion_tokens").or(old),
        Endpoint::Completions => Some(old.unwrap_or(16)),
    }
}

/// Whether so many of the most likely tokens may be asked for.
fn checked_top(fields: &mut Fields, name: &str, config: &ServerConfig) -> Option<u32> {
    let asked = fields.integer(name, -1, i64::from(u32::MAX))?;
    match (asked, config.max_logprobs) {
        (-1, None) => Some(u32::MAX),
        (-1, Some(limit)) => {
            fields.refuse(
                name,
                format!("-1 (the whole vocabulary) is above the server's limit of {limit}"),
            );
            None
        }
        (asked, Some(limit)) if asked > i64::from(limit) => {
            fields.refuse(name, format!("{asked} is above the server's limit of {limit}"));
            None
        }
        (asked, _) => Some(asked as u32),
    }
}

fn logprobs(fields: &mut Fields, endpoint: Endpoint, config: &ServerConfig) -> Option<u32> {
    if endpoint == Endpoint::Completions {
        return checked_top(fields, "logprobs", config);
    }
    let on = fields.bool("logprobs").unwrap_or(false);
    let top = checked_top(fields, "top_logprobs", config).unwrap_or(0);
    if top > 0 && !on {
        fields.refuse("top_logprobs", "needs logprobs: true");
    }
    on.then_some(top)
}

fn prompt_logprobs(fields: &mut Fields, stream: bool, config: &ServerConfig) -> Option<u32> {
    let top = checked_top(fields, "prompt_logprobs", config)?;
    if stream && top > 0 {
        fields.refuse("prompt_logprobs", "not available with stream: true");
    }
    (!stream).then_some(top)
}

pub(crate) fn truncation(fields: &mut Fields, model: &Generative) -> Option<Truncation> {
    let keep_first = match fields.string("truncation_side").as_deref() {
        None | Some("left") => false,
        Some("right") => true,
        Some(other) => {
            let text = format!("{:?} is neither \"left\" nor \"right\"", clip(other));
            fields.refuse("truncation_side", text);
            false
        }
    };
    let limit = i64::from(model.max_model_len());
    let asked = fields.integer("truncate_prompt_tokens", -1, i64::MAX)?;
    if asked > limit {
        fields.refuse(
            "truncate_prompt_tokens",
            format!("{asked} is above the model length of {limit}"),
        );
    }
    Some(Truncation { tokens: u32::try_from(asked).ok(), keep_first })
}

fn priority(fields: &mut Fields, model: &Generative, header: Option<i64>) -> i64 {
    let field = fields.integer("priority", i64::MIN, i64::MAX);
    let priority = header.or(field).unwrap_or(0);
    if priority != 0 && !model.priorities {
        fields.refuse(
            "priority",
            format!("{priority}, but the server was not started with the priority policy"),
        );
    }
    priority
}

/// The hash of the salt; 0 is kept for "none".
fn cache_salt(fields: &mut Fields) -> u64 {
    let Some(salt) = fields.string("cache_salt") else { return 0 };
    if salt.is_empty() || salt.chars().count() > 128 {
        fields.refuse("cache_salt", "it must have 1 to 128 characters");
    }
    if salt.contains(['@', '/', '\\', '\0']) {
        fields.refuse("cache_salt", "it must not contain any of @ / \\ NUL");
    }
    random::keyed_hash(&salt)
}

fn request_id(fields: &mut Fields) -> Option<String> {
    let id = fields.string("request_id")?;
    if !crate::admission::is_request_id(&id) {
        fields.refuse("request_id", "it must be 1 to 256 visible ASCII characters");
    }
    Some(id)
}

fn timeout(fields: &mut Fields) -> Option<Duration> {
    // A year: far above any use, far below what overflows a clock.
    let seconds = fields.number("timeout", Range::above(0.0, 31_536_000.0))?;
    Some(Duration::from_secs_f64(seconds))
}

/// Token ids of an array, or the reason why it holds something else.
pub(crate) fn ids_at(
    items: &[Value],
    path: &str,
    vocab_size: u32,
    fields: &mut Fields,
) -> Option<Vec<u32>> {
    let mut ids = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match token_id(item, vocab_size) {
            Ok(id) => ids.push(id),
            Err(_) => {
                let text = format!(
                    "expected a token id below {vocab_size}, got {} ({})",
                    type_name(item),
                    clip(&item.to_string())
                );
                fields.refuse_at(format!("{path}.{index}"), text);
                return None;
            }
        }
    }
    Some(ids)
}
