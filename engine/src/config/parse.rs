//! `config.json`: names and defaults of each family as `transformers` has them, with range checks.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::fields::Fields;
use super::{ModelConfig, rope};
use crate::load::LoadError;

/// Longest context that is believed: 2^26 tokens are beyond any checkpoint.
pub(super) const MAX_POSITION: u32 = 1 << 26;
const MAX_VOCAB: u64 = 1 << 24;
const MAX_WIDTH: u64 = 1 << 20;
const MAX_LAYERS: u64 = 4096;
const MAX_HEADS: u64 = 1 << 14;
const MAX_HEAD_DIM: u64 = 1 << 13;
/// The context length when no field gives one (KServe's rule).
const DEFAULT_POSITIONS: u32 = 2048;

/// Fields that give the context length; the smallest one counts (KServe's rule).
const LENGTH_FIELDS: [&str; 8] = [
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
];

/// When a family looks at `sliding_window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WindowRule {
    /// Not at all.
    Never,
    /// Always, with a default when the field is not written.
    Default(u32),
    /// If `use_sliding_window` is true.
    IfUsed(u32),
}

/// Defaults of one family, for fields that are not written.
#[derive(Debug)]
struct Family {
    model_type: &'static str,
    architecture: &'static str,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    activation: (&'static str, &'static str),
    norm_eps: (&'static str, f32),
    tied: bool,
    window: WindowRule,
    bos: Option<u32>,
    eos: Option<u32>,
    /// The MLP is four times as wide as the stream unless said otherwise.
    derived_mlp: bool,
    /// Heads are rotated, so their width must be even.
    rotary: bool,
}

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    kv_heads: None,
    head_dim: None,
    activation: ("hidden_act", "silu"),
    norm_eps: ("rms_norm_eps", 1e-6),
    tied: false,
    window: WindowRule::Never,
    bos: Some(1),
    eos: Some(2),
    derived_mlp: false,
    rotary: true,
};

const QWEN2: Family = Family {
    model_type: "qwen2",
    architecture: "Qwen2ForCausalLM",
    kv_heads: Some(32),
    window: WindowRule::IfUsed(4096),
    bos: None,
    eos: None,
    ..LLAMA
};

/// Families with defaults of their own.
static FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        model_type: "mistral",
        architecture: "MistralForCausalLM",
        kv_heads: Some(8),
        window: WindowRule::Default(4096),
        ..LLAMA
    },
    QWEN2,
    Family { model_type: "qwen3", architecture: "Qwen3ForCausalLM", head_dim: Some(128), ..QWEN2 },
    Family {
        model_type: "gemma2",
        architecture: "Gemma2ForCausalLM",
        kv_heads: Some(4),
        head_dim: Some(256),
        activation: ("hidden_activation", "gelu_pytorch_tanh"),
        tied: true,
        window: WindowRule::Default(4096),
        bos: Some(2),
        eos: Some(1),
        ..LLAMA
    },
    Family {
        model_type: "gpt2",
        architecture: "GPT2LMHeadModel",
        activation: ("activation_function", "gelu_new"),
        norm_eps: ("layer_norm_epsilon", 1e-5),
        tied: true,
        bos: Some(50_256),
        eos: Some(50_256),
        derived_mlp: true,
        rotary: false,
        ..LLAMA
    },
];

/// Any other architecture: `transformers`' base configuration.
static OTHER: Family = Family {
    model_type: "",
    architecture: "",
    tied: true,
    window: WindowRule::IfUsed(4096),
    bos: None,
    eos: None,
    ..LLAMA
};

/// Sizes of one head and how many there are.
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
}

impl ModelConfig {
    /// Reads the object in a `config.json`; `generation` is that of `generation_config.json`, whose
    /// end-of-sequence tokens win.
    ///
    /// # Errors
    /// Names the field that is missing, malformed or out of range.
    pub fn from_json(
        mut raw: Map<String, Value>,
        generation: &Map<String, Value>,
    ) -> Result<Self, LoadError> {
        lift_text_config(&mut raw);
        let (architecture, family) = family(&raw)?;
        add_family_fields(&mut raw, family)?;
        let fields = Fields::new(&raw);
        refuse_unsupported(fields, family)?;
        let hidden_size = fields.required_size(&["hidden_size", "n_embd"], MAX_WIDTH)?;
        let heads = heads(fields, family, hidden_size)?;
        let rope = rope::parse(&raw, max_position(fields)?)?;
        let rotary_dim = rotary_dim(fields, family, heads.dim, rope.partial)?;
        let (act_field, act) = family.activation;
        let (eps_field, eps) = family.norm_eps;
        let vocab_size = fields.required_size(&["vocab_size"], MAX_VOCAB)?;
        let (bos_token, mut eos_tokens) = ends(fields, Fields::new(generation), family)?;
        // Small models often keep the defaults of large ones; such tokens cannot occur.
        let exists = |id: &u32| (*id as usize) < vocab_size;
        eos_tokens.retain(exists);
        Ok(Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: intermediate_size(fields, family, hidden_size)?,
            num_layers: fields.required_size(&["num_hidden_layers", "n_layer"], MAX_LAYERS)?,
            num_heads: heads.query,
            num_kv_heads: heads.kv,
            head_dim: heads.dim,
            max_position: rope.max_position,
            norm_eps: fields.positive(eps_field, 1.0)?.unwrap_or(eps),
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            rotary_dim,
            sliding_window: sliding_window(fields, family)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(family.tied),
            hidden_act: fields.text(act_field)?.unwrap_or(act).to_owned(),
            bos_token: bos_token.filter(exists),
            eos_tokens,
            dtype: dtype(fields)?,
            raw,
        })
    }
}

/// Multimodal checkpoints keep the language model's fields in `text_config`: they count as if they
/// were written at the top.
fn lift_text_config(raw: &mut Map<String, Value>) {
    if let Some(Value::Object(inner)) = raw.get("text_config").cloned() {
        for (name, value) in inner {
            if name != "architectures" || !raw.contains_key("architectures") {
                raw.insert(name, value);
            }
        }
    }
}

fn family(raw: &Map<String, Value>) -> Result<(String, &'static Family), LoadError> {
    let fields = Fields::new(raw);
    let name = match fields.get("architectures") {
        Some(Value::Array(names)) => match names.first() {
            Some(Value::String(name)) => Some(name.as_str()),
            _ => None,
        },
        Some(other) => return Err(fields.wrong("architectures", other, "a list of names")),
        None => None,
    };
    if let Some(name) = name {
        let family = FAMILIES.iter().find(|family| family.architecture == name);
        return Ok((name.to_owned(), family.unwrap_or(&OTHER)));
    }
    let model_type = fields.text("model_type")?;
    let family = FAMILIES.iter().find(|family| Some(family.model_type) == model_type);
    let family = family.ok_or_else(|| {
        fields.error("architectures", "the field is missing: it names the kind of model")
    })?;
    Ok((family.architecture.to_owned(), family))
}

/// Writes defaults into `raw` that a model file reads there.
fn add_family_fields(raw: &mut Map<String, Value>, family: &Family) -> Result<(), LoadError> {
    let used = Fields::new(raw).flag("use_sliding_window")?.unwrap_or(false);
    if matches!(family.window, WindowRule::IfUsed(_)) && used && !raw.contains_key("layer_types") {
        raw.entry("max_window_layers").or_insert_with(|| Value::from(28));
    }
    if family.model_type == "gemma2" {
        raw.entry("query_pre_attn_scalar").or_insert_with(|| Value::from(256));
        raw.entry("attn_logit_softcapping").or_insert_with(|| Value::from(50.0));
        raw.entry("final_logit_softcapping").or_insert_with(|| Value::from(30.0));
    }
    Ok(())
}

/// Fields that change what is computed in ways no model file implements.
fn refuse_unsupported(fields: Fields<'_>, family: &Family) -> Result<(), LoadError> {
    if let Some(quantisation) = fields.get("quantization_config") {
        let method = quantisation.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
        let method: String = method.chars().take(40).collect();
        let reason = format!("weights quantised with {method} are not supported");
        return Err(fields.error("quantization_config", reason));
    }
    if family.model_type == "gpt2" {
        let only = [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("add_cross_attention", false),
        ];
        for (name, supported) in only {
            if fields.flag(name)?.unwrap_or(supported) != supported {
                let reason = format!("{} is not supported, {supported} is", !supported);
                return Err(fields.error(name, reason));
            }
        }
    }
    Ok(())
}

fn heads(fields: Fields<'_>, family: &Family, hidden: usize) -> Result<Heads, LoadError> {
    let query = fields.required_size(&["num_attention_heads", "n_head"], MAX_HEADS)?;
    let defaults_apply = |name: &str| !fields.is_written(name);
    let kv = match fields.size("num_key_value_heads", MAX_HEADS)? {
        Some(kv) => kv,
        None => family.kv_heads.filter(|_| defaults_apply("num_key_value_heads")).unwrap_or(query),
    };
    if !query.is_multiple_of(kv) {
        let reason = format!("{kv} does not divide the {query} query heads");
        return Err(fields.error("num_key_value_heads", reason));
    }
    let dim = fields.size("head_dim", MAX_HEAD_DIM)?;
    let dim = dim.or_else(|| family.head_dim.filter(|_| defaults_apply("head_dim")));
    let dim = match dim {
        Some(dim) => dim,
        None if !hidden.is_multiple_of(query) => {
            let reason = format!("{query} heads do not divide the width of {hidden}");
            return Err(fields.error("num_attention_heads", reason));
        }
        None => hidden / query,
    };
    if dim as u64 > MAX_HEAD_DIM {
        return Err(fields.error("head_dim", format!("{dim} is above {MAX_HEAD_DIM}")));
    }
    Ok(Heads { query, kv, dim })
}

fn rotary_dim(
    fields: Fields<'_>,
    family: &Family,
    head_dim: usize,
    partial: f32,
) -> Result<usize, LoadError> {
    let rotary_dim = (head_dim as f32 * partial) as usize;
    if family.rotary && (rotary_dim == 0 || !rotary_dim.is_multiple_of(2)) {
        let reason = format!(
            "{rotary_dim} of {head_dim} values of a head cannot be rotated: an even number can"
        );
        return Err(fields.error("head_dim", reason));
    }
    Ok(rotary_dim)
}

fn intermediate_size(
    fields: Fields<'_>,
    family: &Family,
    hidden: usize,
) -> Result<usize, LoadError> {
    let names = ["intermediate_size", "n_inner"];
    let given = names.iter().any(|name| fields.get(name).is_some());
    if family.derived_mlp && !given {
        return Ok(4 * hidden);
    }
    fields.required_size(&names, 4 * MAX_WIDTH)
}

fn max_position(fields: Fields<'_>) -> Result<u32, LoadError> {
    let mut smallest = None;
    for name in LENGTH_FIELDS {
        if let Some(length) = fields.integer(name, 1..=u64::from(MAX_POSITION))? {
            smallest = Some(smallest.map_or(length, |found: u64| found.min(length)));
        }
    }
    Ok(smallest.map_or(DEFAULT_POSITIONS, |length| length as u32))
}

fn sliding_window(fields: Fields<'_>, family: &Family) -> Result<Option<u32>, LoadError> {
    let name = "sliding_window";
    let default = match family.window {
        WindowRule::Never => return Ok(None),
        WindowRule::Default(window) => window,
        WindowRule::IfUsed(window) => {
            if !fields.flag("use_sliding_window")?.unwrap_or(false) {
                return Ok(None);
            }
            window
        }
    };
    if !fields.is_written(name) {
        return Ok(Some(default));
    }
    Ok(fields.integer(name, 1..=u64::from(MAX_POSITION))?.map(|window| window as u32))
}

/// The beginning token and the ending ones, in the order given.
fn ends(
    config: Fields<'_>,
    generation: Fields<'_>,
    family: &Family,
) -> Result<(Option<u32>, Vec<u32>), LoadError> {
    let (bos, eos) = ("bos_token_id", "eos_token_id");
    let first = |tokens: Option<Vec<u32>>| tokens.and_then(|tokens| tokens.first().copied());
    let mut bos_token = first(config.tokens(bos)?).or(first(generation.tokens(bos)?));
    if bos_token.is_none() && !config.is_written(bos) {
        bos_token = family.bos;
    }
    let given = match generation.tokens(eos)? {
        Some(tokens) => Some(tokens),
        None => config.tokens(eos)?,
    };
    let mut eos_tokens = match given {
        Some(tokens) => tokens,
        None if config.is_written(eos) => Vec::new(),
        None => family.eos.into_iter().collect(),
    };
    let mut seen = BTreeSet::new();
    eos_tokens.retain(|id| seen.insert(*id));
    Ok((bos_token, eos_tokens))
}

/// `dtype` of newer files, `torch_dtype` of older ones.
fn dtype(fields: Fields<'_>) -> Result<String, LoadError> {
    let name = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    let dtype = fields.text(name)?.unwrap_or("float32");
    Ok(dtype.strip_prefix("torch.").unwrap_or(dtype).to_owned())
}

#[cfg(test)]
mod tests;
