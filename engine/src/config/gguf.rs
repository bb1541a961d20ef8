//! GGUF metadata, translated to the names of `config.json`.

use serde_json::{Map, Value};

use super::{ModelConfig, RopeScaling};
use crate::load::LoadError;
use crate::weights::TensorSource;
use crate::weights::gguf::{GgufFile, GgufTokenizer, Metadata};

/// Sizes: field of `config.json`, key without the architecture's prefix.
const SIZES: [(&str, &str); 8] = [
    ("max_position_embeddings", "context_length"),
    ("hidden_size", "embedding_length"),
    ("num_hidden_layers", "block_count"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("sliding_window", "attention.sliding_window"),
];

/// Numbers.
const NUMBERS: [(&str, &str); 5] = [
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_epsilon", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
];

/// Fields of `rope_scaling`.
const ROPE_NUMBERS: [(&str, &str); 4] = [
    ("factor", "rope.scaling.factor"),
    ("attention_factor", "rope.scaling.yarn_attn_factor"),
    ("beta_fast", "rope.scaling.yarn_beta_fast"),
    ("beta_slow", "rope.scaling.yarn_beta_slow"),
];

/// Layers of the one Gemma 2 whose scores are scaled by the width per head instead of the head's.
const GEMMA2_27B_LAYERS: u64 = 46;

impl ModelConfig {
    /// Reads the configuration of a GGUF file.
    ///
    /// # Errors
    /// Names the metadata key that is missing, malformed or out of range.
    pub fn from_gguf(file: &GgufFile, tokenizer: &GgufTokenizer) -> Result<Self, LoadError> {
        let gguf = file.gguf_architecture();
        let keys = Keys { metadata: file.metadata(), gguf };
        let mut raw = keys.shared()?;
        keys.add_rope(&mut raw)?;
        if gguf == "gemma2" {
            add_gemma2(&mut raw);
        }
        add_tensors(&mut raw, file);
        add_tokens(&mut raw, tokenizer);
        if let Some(dtype) = file.main_dtype() {
            raw.insert("dtype".to_owned(), dtype.name().into());
        }
        // The converter of Mistral writes "llama"; only a window tells them apart.
        let windowed = gguf == "llama" && raw.contains_key("sliding_window");
        let name = if windowed { "MistralForCausalLM" } else { file.architecture() };
        raw.insert("architectures".to_owned(), Value::from(vec![name]));
        let mut config = Self::from_json(raw, &Map::new()).map_err(|error| renamed(error, gguf))?;
        keys.check_heads(&config)?;
        if let Some(factors) = file.rope_factors()? {
            config.rope_scaling = with_factors(&config, factors)?;
        }
        Ok(config)
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    gguf: &'static str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.gguf)
    }

    fn shared(&self) -> Result<Map<String, Value>, LoadError> {
        let mut raw = Map::new();
        for (field, key) in SIZES {
            if let Some(size) = self.metadata.uniform(&self.key(key))? {
                raw.insert(field.to_owned(), size.into());
            }
        }
        for (field, key) in NUMBERS {
            if let Some(number) = self.number(key)? {
                raw.insert(field.to_owned(), number);
            }
        }
        // A window of zero is how converters write "none".
        if raw.get("sliding_window").and_then(Value::as_u64) == Some(0) {
            raw.remove("sliding_window");
        }
        // Absent means derived here, not the default of the family.
        for field in ["num_key_value_heads", "head_dim"] {
            raw.entry(field).or_insert(Value::Null);
        }
        Ok(raw)
    }

    fn number(&self, key: &str) -> Result<Option<Value>, LoadError> {
        let key = self.key(key);
        let Some(number) = self.metadata.f64(&key)? else { return Ok(None) };
        match serde_json::Number::from_f64(number) {
            Some(number) => Ok(Some(number.into())),
            None => Err(LoadError::config(key, format!("{number} is not a finite number"))),
        }
    }

    fn add_rope(&self, raw: &mut Map<String, Value>) -> Result<(), LoadError> {
        let mut scaling = Map::new();
        if let Some(kind) = self.metadata.string(&self.key("rope.scaling.type"))? {
            scaling.insert("rope_type".to_owned(), kind.into());
            for (field, key) in ROPE_NUMBERS {
                if let Some(number) = self.number(key)? {
                    scaling.insert(field.to_owned(), number);
                }
            }
            let key = self.key("rope.scaling.original_context_length");
            if let Some(length) = self.metadata.u64(&key)? {
                scaling.insert("original_max_position_embeddings".to_owned(), length.into());
            }
        } else if let Some(factor) = self.number("rope.scale_linear")? {
            // Files from before `rope.scaling`.
            scaling.insert("rope_type".to_owned(), "linear".into());
            scaling.insert("factor".to_owned(), factor);
        }
        if !scaling.is_empty() {
            raw.insert("rope_scaling".to_owned(), scaling.into());
        }
        Ok(())
    }

    /// Widths that the shared fields cannot express.
    fn check_heads(&self, config: &ModelConfig) -> Result<(), LoadError> {
        for name in ["attention.value_length", "rope.dimension_count"] {
            let key = self.key(name);
            match self.metadata.u64(&key)? {
                Some(width) if width != config.head_dim as u64 => {
                    let reason = format!(
                        "{width} differs from the width of a head, {}, which is not supported",
                        config.head_dim
                    );
                    return Err(LoadError::config(key, reason));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The scale of the scores is not in the metadata: it depends on the size of the model.
fn add_gemma2(raw: &mut Map<String, Value>) {
    let size = |name: &str| raw.get(name).and_then(Value::as_u64);
    let per_head = size("hidden_size").zip(size("num_attention_heads").filter(|&heads| heads > 0));
    let scalar = match (size("num_hidden_layers"), per_head, size("head_dim")) {
        (Some(GEMMA2_27B_LAYERS), Some((width, heads)), _) => Some(width / heads),
        (_, _, Some(head_dim)) => Some(head_dim),
        (_, Some((width, heads)), None) => Some(width / heads),
        _ => None,
    };
    if let Some(scalar) = scalar {
        raw.insert("query_pre_attn_scalar".to_owned(), scalar.into());
    }
}

/// What the presence and shape of tensors says.
fn add_tensors(raw: &mut Map<String, Value>, file: &GgufFile) {
    let has = |name: &str| file.tensor(name).is_some();
    raw.insert("tie_word_embeddings".to_owned(), (!has("lm_head.weight")).into());
    let biased = has("model.layers.0.self_attn.q_proj.bias");
    raw.insert("attention_bias".to_owned(), biased.into());
    raw.insert("mlp_bias".to_owned(), has("model.layers.0.mlp.down_proj.bias").into());
    let tables = ["model.embed_tokens.weight", "transformer.wte.weight"];
    if let Some(table) = tables.iter().find_map(|name| file.tensor(name)) {
        raw.insert("vocab_size".to_owned(), table.rows().into());
    }
}

fn add_tokens(raw: &mut Map<String, Value>, tokenizer: &GgufTokenizer) {
    raw.insert("bos_token_id".to_owned(), tokenizer.bos.map_or(Value::Null, Value::from));
    raw.insert("eos_token_id".to_owned(), tokenizer.end_tokens().into());
}

fn with_factors(config: &ModelConfig, factors: Vec<f32>) -> Result<RopeScaling, LoadError> {
    let failed = |reason: String| LoadError::Tensor { tensor: "rope_freqs.weight".into(), reason };
    let pairs = config.rotary_dim / 2;
    if factors.len() != pairs {
        return Err(failed(format!("{} factors for {pairs} pairs of a head", factors.len())));
    }
    match config.rope_scaling {
        RopeScaling::None => Ok(RopeScaling::Factors(factors)),
        _ => Err(failed("frequency factors together with rope.scaling are not supported".into())),
    }
}

/// The same error under the name that the field has in the file.
fn renamed(error: LoadError, gguf: &str) -> LoadError {
    let LoadError::Config { field, reason } = error else { return error };
    let same = |row: &&(&str, &str)| row.0 == field;
    let named = |key: &str| format!("{gguf}.{key}");
    let inner = field.strip_prefix("rope_scaling.");
    let field = match (SIZES.iter().chain(&NUMBERS).find(same), inner) {
        (Some((_, key)), _) => named(key),
        (None, Some("rope_type")) => named("rope.scaling.type"),
        (None, Some("original_max_position_embeddings")) => {
            named("rope.scaling.original_context_length")
        }
        (None, Some(inner)) => {
            let key = ROPE_NUMBERS.iter().find(|row| row.0 == inner).map_or(inner, |row| row.1);
            named(key)
        }
        (None, None) if field == "vocab_size" => "tensor token_embd.weight".to_owned(),
        (None, None) => field,
    };
    LoadError::Config { field, reason }
}

#[cfg(test)]
mod tests;
