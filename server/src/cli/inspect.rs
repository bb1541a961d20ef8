//! `tokenmill inspect`: what a model is, what serving it takes, and what would be refused.

use std::fmt::Write;

use anyhow::Context;
use serde_json::{Value, json};
use tokenmill_engine::load::TokenizerFiles;

use super::classic;
use super::model::{self, Opened, kv_name};
use crate::config::values::{bytes, count};
use crate::config::{Config, EngineSettings};

/// Opens the model and prints what it is.
pub(super) async fn inspect(config: Config, as_json: bool) -> anyhow::Result<()> {
    let spec = config.model.as_ref().context("no model was named")?;
    let path = model::locate(&config, spec).await?;
    let (facts, text) = if classic::is_classic(&config, &path) {
        let model = classic::open(&config, &path).await?;
        let facts = classic::facts(model.as_ref(), &path, &classic::names(&config, spec));
        let text = classic::text(&facts);
        (facts, text)
    } else {
        let opened = model::open(&config, spec, path)?;
        let facts = facts(&opened, &config.engine);
        let text = text(&facts);
        (facts, text)
    };
    super::say(&if as_json { format!("{facts:#}\n") } else { text });
    Ok(())
}

/// Everything there is to say, for programs.
fn facts(opened: &Opened, settings: &EngineSettings) -> Value {
    let (config, plan) = (&opened.source.config, &opened.plan);
    let limits = &plan.limits;
    let tokens: u64 =
        limits.groups.iter().map(|group| u64::from(group.num_blocks)).max().unwrap_or(0)
            * u64::from(limits.block_size);
    let tokenizer = match &opened.source.tokenizer {
        TokenizerFiles::Directory(directory) => {
            directory.join("tokenizer.json").display().to_string()
        }
        TokenizerFiles::Gguf(_) => "in the file's metadata".to_owned(),
    };
    json!({
        "path": opened.path.display().to_string(),
        "names": opened.names,
        "architecture": config.architecture,
        "parameters": plan.parameters,
        "dtype": config.dtype,
        "layers": config.num_layers,
        "hidden_size": config.hidden_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "vocabulary": config.vocab_size,
        "context": {"model": config.max_position, "served": limits.max_model_len},
        "tokenizer": {"from": tokenizer, "tokens": opened.tokenizer.vocab_size()},
        "chat_template": opened.template.as_ref().map(|template| {
            format!("{:?} content", template.content_format()).to_lowercase()
        }),
        "generation": {
            "temperature": opened.generation.temperature,
            "top_p": opened.generation.top_p,
            "top_k": opened.generation.top_k,
            "min_p": opened.generation.min_p,
            "repetition_penalty": opened.generation.repetition_penalty,
            "max_new_tokens": opened.generation.max_new_tokens,
        },
        "memory": {
            "stored": plan.stored_bytes,
            "weights": plan.weight_bytes,
            "kv_cache": plan.kv_bytes,
            "workspace": plan.workspace_bytes,
            "tables": plan.table_bytes,
            "total": plan.total_bytes(),
        },
        "kv_cache": {
            "dtype": kv_name(plan.kv_type),
            "bytes_per_token": plan.kv_bytes_per_token,
            "block_size": limits.block_size,
            "tokens": tokens,
        },
        "step": {
            "decode_weight_bytes": plan.decode_weight_bytes,
            "flops_per_token": plan.flops_per_token,
            "max_tokens": limits.max_step_tokens,
            "max_sequences": limits.max_sequences,
        },
        "threads": {
            "kernels": settings.split.kernel_threads,
            "io": settings.split.tokio_workers,
            "text": settings.split.text_threads,
        },
        "refused": refused(opened),
    })
}

/// What clients of other servers may ask of this model and would not get.
fn refused(opened: &Opened) -> Vec<String> {
    let length = opened.plan.limits.max_model_len;
    let mut refused = Vec::new();
    if opened.template.is_none() {
        refused.push(
            "chat: the model has no chat template (give one with --chat-template)".to_owned(),
        );
    }
    refused
        .push(format!("prompts of {length} tokens or more: one has to be left for the completion"));
    refused.push("images and sound: only text is served".to_owned());
    refused.push("embeddings, scores, classification: the model generates text".to_owned());
    refused
}

/// The facts for people.
fn text(facts: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let words = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let memory = &facts["memory"];
    let (kv, step, threads) = (&facts["kv_cache"], &facts["step"], &facts["threads"]);
    let context = &facts["context"];
    let rows = [
        ("path", words(&facts["path"])),
        ("architecture", words(&facts["architecture"])),
        ("parameters", count(number(&facts["parameters"]))),
        ("stored as", format!("{}, {}", words(&facts["dtype"]), bytes(number(&memory["stored"])))),
        (
            "shape",
            format!(
                "{} layers, width {}, {} heads over {} of {}, vocabulary {}",
                facts["layers"],
                facts["hidden_size"],
                facts["heads"],
                facts["kv_heads"],
                facts["head_dim"],
                facts["vocabulary"]
            ),
        ),
        ("context", format!("{} tokens served of {}", context["served"], context["model"])),
        (
            "tokenizer",
            format!(
                "{}, {} tokens",
                words(&facts["tokenizer"]["from"]),
                facts["tokenizer"]["tokens"]
            ),
        ),
        ("chat template", words(&facts["chat_template"])),
        (
            "threads",
            format!(
                "{} kernels, {} io, {} text",
                threads["kernels"], threads["io"], threads["text"]
            ),
        ),
        ("weights", bytes(number(&memory["weights"]))),
        (
            "kv cache",
            format!(
                "{} for {} tokens in {}, {} each",
                bytes(number(&memory["kv_cache"])),
                kv["tokens"],
                words(&kv["dtype"]),
                bytes(number(&kv["bytes_per_token"]))
            ),
        ),
        ("workspace", bytes(number(&memory["workspace"]))),
        ("tables", bytes(number(&memory["tables"]))),
        ("total", bytes(number(&memory["total"]))),
        (
            "a decode step",
            format!(
                "reads {} of weights, {} operations per token",
                bytes(number(&step["decode_weight_bytes"])),
                count(number(&step["flops_per_token"]))
            ),
        ),
    ];
    let mut text = String::new();
    for (name, value) in rows {
        let _ = writeln!(text, "{name:<16}{value}");
    }
    for line in facts["refused"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "{:<16}{}", "refused", words(line));
    }
    text
}
