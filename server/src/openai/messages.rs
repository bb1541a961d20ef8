//! Chat messages, checked and brought into the form that templates expect.

use serde_json::{Map, Value, json};
use tokenmill_engine::text::ContentFormat;

use crate::error::clip;
use crate::fields::{Fields, type_name};

/// Reads `messages`: at least one object with a `role`; contents become strings or lists of text parts as
/// the template wants them, arguments of tool calls become objects.
pub(crate) fn parse(fields: &mut Fields, format: ContentFormat) -> Vec<Value> {
    let Some(items) = fields.take("messages") else {
        fields.missing("messages");
        return Vec::new();
    };
    let Value::Array(items) = items else {
        fields.mistyped("messages", "an array of messages", &items);
        return Vec::new();
    };
    if items.is_empty() {
        fields.refuse("messages", "it is empty, at least one message is needed");
    }
    let mut messages = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("messages.{index}");
        match item {
            Value::Object(message) => {
                messages.push(Value::Object(normalize(message, &path, format, fields)));
            }
            other => fields.mistyped_at(path, "an object", &other),
        }
    }
    messages
}

fn normalize(
    mut message: Map<String, Value>,
    path: &str,
    format: ContentFormat,
    fields: &mut Fields,
) -> Map<String, Value> {
    match message.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        None | Some(Value::Null) => {
            fields.mistyped_at(format!("{path}.role"), "a role", &Value::Null);
        }
        Some(Value::String(_)) => fields.refuse_at(format!("{path}.role"), "the role is empty"),
        Some(other) => fields.mistyped_at(format!("{path}.role"), "a string", other),
    }
    if let Some(old) = message.swap_remove("reasoning_content") {
        message.entry("reasoning").or_insert(old);
    }
    for name in ["name", "tool_call_id", "refusal", "reasoning"] {
        if let Some(value) =
            message.get(name).filter(|value| !value.is_null() && !value.is_string())
        {
            fields.mistyped_at(format!("{path}.{name}"), "a string", value);
        }
    }
    let content = message.swap_remove("content").unwrap_or(Value::Null);
    let content = normalize_content(content, &format!("{path}.content"), format, fields);
    // An assistant that only calls tools has no content.
    let calls = message.get("tool_calls").is_some_and(|calls| !calls.is_null());
    let refused = message.get("refusal").is_some_and(Value::is_string);
    if content.is_null()
        && !calls
        && !refused
        && message.get("role").is_none_or(|role| role != "assistant")
    {
        fields.mistyped_at(
            format!("{path}.content"),
            "a string or an array of parts",
            &Value::Null,
        );
    }
    message.insert("content".into(), content);
    if calls {
        let calls = message.swap_remove("tool_calls").unwrap_or(Value::Null);
        let calls = normalize_calls(calls, &format!("{path}.tool_calls"), fields);
        message.insert("tool_calls".into(), calls);
    }
    message
}

fn normalize_content(
    content: Value,
    path: &str,
    format: ContentFormat,
    fields: &mut Fields,
) -> Value {
    let texts = match content {
        Value::Null => return Value::Null,
        Value::String(text) => match format {
            ContentFormat::String => return Value::String(text),
            ContentFormat::OpenAi => vec![text],
        },
        Value::Array(parts) => {
            let texts = parts.into_iter().enumerate();
            texts
                .filter_map(|(index, part)| part_text(part, &format!("{path}.{index}"), fields))
                .collect()
        }
        other => {
            fields.mistyped_at(path.to_owned(), "a string or an array of parts", &other);
            return Value::Null;
        }
    };
    match format {
        ContentFormat::String => Value::String(texts.join("\n")),
        ContentFormat::OpenAi => {
            texts.into_iter().map(|text| json!({"type": "text", "text": text})).collect()
        }
    }
}

/// The text of one part; media are refused, this server's models read text.
fn part_text(part: Value, path: &str, fields: &mut Fields) -> Option<String> {
    let mut part = match part {
        Value::String(text) => return Some(text),
        Value::Object(part) => part,
        other => {
            fields.mistyped_at(path.to_owned(), "a content part", &other);
            return None;
        }
    };
    let name = match part.get("type").and_then(Value::as_str) {
        Some(kind @ ("text" | "refusal")) => kind.to_owned(),
        Some("input_text" | "output_text") => "text".to_owned(),
        Some(other) => {
            let text = format!(
                "content of type {:?} is not supported, this model reads text only",
                clip(other)
            );
            fields.refuse_at(format!("{path}.type"), text);
            return None;
        }
        None => {
            let got = part.get("type").map_or("nothing", type_name);
            fields.refuse_at(format!("{path}.type"), format!("expected a string, got {got}"));
            return None;
        }
    };
    match part.swap_remove(&name) {
        Some(Value::String(text)) => Some(text),
        other => {
            let got = other.unwrap_or(Value::Null);
            fields.mistyped_at(format!("{path}.{name}"), "a string", &got);
            None
        }
    }
}

/// Arguments arrive as JSON text, templates want the object.
fn normalize_calls(calls: Value, path: &str, fields: &mut Fields) -> Value {
    let Value::Array(mut calls) = calls else {
        fields.mistyped_at(path.to_owned(), "an array of tool calls", &calls);
        return Value::Null;
    };
    for (index, call) in calls.iter_mut().enumerate() {
        let path = format!("{path}.{index}.function");
        let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
            fields.refuse_at(path, "expected an object with name and arguments");
            continue;
        };
        if !function.get("name").is_some_and(Value::is_string) {
            fields.refuse_at(format!("{path}.name"), "expected a string");
        }
        let arguments = function.swap_remove("arguments").unwrap_or(Value::Null);
        let arguments = match arguments {
            Value::Null => Value::Object(Map::new()),
            Value::String(text) if text.trim().is_empty() => Value::Object(Map::new()),
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(value @ Value::Object(_)) => value,
                Ok(_) | Err(_) => {
                    let text = "expected a JSON object, written as a string";
                    fields.refuse_at(format!("{path}.arguments"), text);
                    Value::Null
                }
            },
            value @ Value::Object(_) => value,
            other => {
                fields.mistyped_at(format!("{path}.arguments"), "a string", &other);
                Value::Null
            }
        };
        function.insert("arguments".into(), arguments);
    }
    Value::Array(calls)
}

/// Function tools, for a template that shows them although none may be called.
pub(crate) fn parse_tools(fields: &mut Fields) -> Option<Value> {
    let tools = fields.array("tools");
    let choice = fields.take("tool_choice");
    let parallel = fields.bool("parallel_tool_calls");
    fields.unsupported(
        "functions",
        |value| value.as_array().is_some_and(Vec::is_empty),
        "use tools",
    );
    fields.unsupported("function_call", |value| value == "none", "use tool_choice");
    let _ = parallel; // Calls are never made here, side by side or not.
    let none = choice.as_ref().is_some_and(|choice| choice == "none");
    let Some(tools) = tools else {
        if choice.is_some() && !none {
            fields.refuse("tool_choice", "it needs tools");
        }
        return None;
    };
    if tools.is_empty() {
        fields.refuse("tools", "it is empty, leave it out");
    }
    for (index, tool) in tools.iter().enumerate() {
        let name = tool.pointer("/function/name");
        if tool.get("type").is_none_or(|kind| kind != "function")
            || !name.is_some_and(Value::is_string)
        {
            let text = "expected {\"type\": \"function\", \"function\": {\"name\": ...}}";
            fields.refuse_at(format!("tools.{index}"), text);
        }
    }
    if !none {
        fields.refuse(
            "tool_choice",
            "tool calls are not supported: there is no tool parser, only \"none\" is accepted with tools",
        );
    }
    Some(Value::Array(tools))
}
