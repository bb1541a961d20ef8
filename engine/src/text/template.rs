//! Chat templates: Jinja2 as `transformers` runs it.
//!
//! Templates are written for Python's Jinja2 and its strings, lists and dicts; `environment` supplies
//! those. What the reference sandbox refuses (changing a list or a dict in place) is refused here.
//! A template is a stranger's program: time and memory of a rendering are bounded by a budget, and every
//! failure is an error with the template's own words where it has some.

mod arguments;
mod continuation;
mod environment;
mod generation_tags;
mod json;
mod methods;
mod python_text;
mod string_methods;
mod time;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;

use minijinja::{Environment, ErrorKind, Value as JinjaValue};
use serde_json::{Map, Value, json};

use continuation::Continuation;
use environment::Raised;

/// Name of the template within its environment; error messages show it.
const NAME: &str = "chat_template";
/// Longer templates are refused; the longest in use have some tens of kilobytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Code in one tag, without strings.
const MAX_TAG_BYTES: usize = 8192;
/// Enough for the deepest template of that size.
const COMPILER_STACK_BYTES: usize = 512 << 20;
/// Variables that a request may not set through its template arguments.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];
/// Names of a message's reasoning; templates read the first or the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A compiled chat template. A clone shares it.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    bos: Arc<str>,
    eos: Arc<str>,
    content_format: ContentFormat,
}

/// How a template wants the content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentFormat {
    /// A string.
    String,
    /// A list of parts, each with a `type`.
    OpenAi,
}

/// Why a template did not compile or render.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not a Jinja2 template.
    #[error("the chat template is not valid: {0}")]
    Compile(String),
    /// The template refused the conversation: the argument of its `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// The template failed on the conversation.
    #[error("the chat template failed: {0}")]
    Render(String),
    /// The template used up its budget.
    #[error("the chat template does too much work for this conversation")]
    OutOfBudget,
    /// `messages` is not a list of objects.
    #[error("messages must be a list of objects")]
    Messages,
    /// A template argument would replace a variable of the conversation.
    #[error("`{0}` is not a template argument: it is set from the request itself")]
    ReservedArgument(String),
    /// Continuing the last message and beginning a new one exclude each other.
    #[error("continue_final_message and add_generation_prompt are not compatible; set one of them")]
    ContinueWithGenerationPrompt,
    /// There is no text that could be continued.
    #[error("continue_final_message is set, but the last message has no text content")]
    NothingToContinue,
    /// The template dropped or changed the last message.
    #[error(
        "continue_final_message is set, but the chat template does not show the last message as it is"
    )]
    ContinuationLost,
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the template's `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Compile`] with the line.
    pub fn compile(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let environment = compile_in_thread(source)?;
        let mut template = Self {
            environment: Arc::new(environment),
            source: source.into(),
            bos: bos.into(),
            eos: eos.into(),
            content_format: ContentFormat::String,
        };
        template.content_format = template.detect_content_format();
        Ok(template)
    }

    /// The template's source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How this template wants the content of a message.
    #[must_use]
    pub fn content_format(&self) -> ContentFormat {
        self.content_format
    }

    /// The prompt of a conversation.
    ///
    /// Message fields that are `null` count as absent, and a message's reasoning goes under every name that
    /// templates know, as in `transformers`. `kwargs` are further variables and win over `bos_token` and
    /// `eos_token`. With `continue_final_message` the prompt ends with the last message's text.
    ///
    /// # Errors
    /// The template refuses the conversation, fails, or runs out of its budget; the options do not fit
    /// together.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        documents: Option<&Value>,
        add_generation_prompt: bool,
        continue_final_message: bool,
        kwargs: &Map<String, Value>,
    ) -> Result<String, TemplateError> {
        if continue_final_message && add_generation_prompt {
            return Err(TemplateError::ContinueWithGenerationPrompt);
        }
        let mut messages = normalize(messages)?;
        let continuation = match continue_final_message {
            true => Some(Continuation::mark(&mut messages)?),
            false => None,
        };
        let mut context: BTreeMap<&str, JinjaValue> = BTreeMap::new();
        context.insert("bos_token", JinjaValue::from(&*self.bos));
        context.insert("eos_token", JinjaValue::from(&*self.eos));
        for (name, value) in kwargs {
            if RESERVED.contains(&name.as_str()) {
                return Err(TemplateError::ReservedArgument(name.clone()));
            }
            context.insert(name, jinja_value(value));
        }
        context.insert("messages", messages.iter().map(jinja_object).collect());
        context.insert("tools", tools.map_or_else(|| JinjaValue::from(()), jinja_value));
        context.insert("documents", documents.map_or_else(|| JinjaValue::from(()), jinja_value));
        context.insert("add_generation_prompt", JinjaValue::from(add_generation_prompt));
        let text = self.evaluate(JinjaValue::from_pairs(context))?;
        match continuation {
            Some(continuation) => continuation.cut(text),
            None => Ok(text),
        }
    }

    fn evaluate(&self, context: JinjaValue) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|e| render_error(&e))?;
        super::catch_panic(|| template.render(context))
            .map_err(TemplateError::Render)?
            .map_err(|e| render_error(&e))
    }

    /// Renders a message whose content is a list of parts: a template made for that shows the text alone, any
    /// other shows the list as Python would print it, or fails.
    fn detect_content_format(&self) -> ContentFormat {
        const PROBE: &str = "b9f1probe";
        let parts = json!([{"type": "text", "text": PROBE}]);
        let user = json!({"role": "user", "content": parts});
        let system = json!({"role": "system", "content": parts});
        let assistant = json!({"role": "assistant", "content": parts});
        let conversations = [json!([user]), json!([system, user]), json!([user, assistant])];
        let shows_text = |conversation: &Value| {
            self.render(conversation, None, None, true, false, &Map::new()).is_ok_and(|text| {
                text.contains(PROBE)
                    && !text.contains(&format!(": '{PROBE}"))
                    && !text.contains(&format!("\"{PROBE}\""))
            })
        };
        match conversations.iter().any(shows_text) {
            true => ContentFormat::OpenAi,
            false => ContentFormat::String,
        }
    }
}

/// The compiler recurses once per operator in a chain (`not not not ...`), without a bound of its own: code
/// is bounded here, and the stack is made for it. Untouched, that costs no memory.
fn compile_in_thread(source: &str) -> Result<Environment<'static>, TemplateError> {
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!("{} bytes, at most {MAX_SOURCE_BYTES} are read", source.len());
        return Err(TemplateError::Compile(message));
    }
    let longest = generation_tags::longest_code(source);
    if longest > MAX_TAG_BYTES {
        let message =
            format!("a tag has {longest} bytes of code, at most {MAX_TAG_BYTES} are read");
        return Err(TemplateError::Compile(message));
    }
    let plain = generation_tags::remove(source);
    let compile = move || {
        let mut environment = environment::new();
        environment.add_template_owned(NAME, plain).map(|()| environment)
    };
    let thread = std::thread::Builder::new().stack_size(COMPILER_STACK_BYTES).spawn(compile);
    let thread = thread.map_err(|e| TemplateError::Compile(format!("no thread: {e}")))?;
    match thread.join() {
        Ok(result) => result.map_err(|e| TemplateError::Compile(describe(&e))),
        Err(_) => Err(TemplateError::Compile("the compiler panicked".to_owned())),
    }
}

/// Messages without `null` fields, with the reasoning under its other names.
fn normalize(messages: &Value) -> Result<Vec<Map<String, Value>>, TemplateError> {
    let messages = messages.as_array().ok_or(TemplateError::Messages)?;
    messages.iter().map(normalize_message).collect()
}

fn normalize_message(message: &Value) -> Result<Map<String, Value>, TemplateError> {
    let fields = message.as_object().ok_or(TemplateError::Messages)?;
    let mut fields: Map<String, Value> =
        fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    if let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() {
        fields.insert("reasoning_content".to_owned(), reasoning.clone());
        fields.entry("thinking").or_insert(reasoning);
    }
    Ok(fields)
}

/// The JSON value as the template sees it; objects keep their order.
fn jinja_value(value: &Value) -> JinjaValue {
    match value {
        Value::Null => JinjaValue::from(()),
        Value::Bool(value) => JinjaValue::from(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => JinjaValue::from(value),
            (None, Some(value)) => JinjaValue::from(value),
            (None, None) => JinjaValue::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => JinjaValue::from(text.as_str()),
        Value::Array(items) => items.iter().map(jinja_value).collect(),
        Value::Object(fields) => jinja_object(fields),
    }
}

fn jinja_object(fields: &Map<String, Value>) -> JinjaValue {
    JinjaValue::from_pairs(fields.iter().map(|(key, value)| (key.as_str(), jinja_value(value))))
}

fn render_error(error: &minijinja::Error) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TemplateError::Raised(message.clone());
        }
        source = cause.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => TemplateError::OutOfBudget,
        _ => TemplateError::Render(describe(error)),
    }
}

/// Kind, detail, line, and the innermost cause.
fn describe(error: &minijinja::Error) -> String {
    let mut text = error.kind().to_string();
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    if let Some(line) = error.line() {
        text = format!("{text} (line {line})");
    }
    if let Some(cause) = error.source() {
        text = format!("{text}: {cause}");
    }
    text
}

#[cfg(test)]
mod tests;
