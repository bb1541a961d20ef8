//! From GGUF tensor names to those of the Hugging Face checkpoints, per architecture.
//!
//! The tables are those of `gguf-py/gguf/tensor_mapping.py`, read backwards. A name without a row
//! keeps its GGUF name, and so shows up as unread.

/// How one `general.architecture` is translated.
#[derive(Debug)]
pub(super) struct Naming {
    /// `general.architecture`.
    pub(super) gguf: &'static str,
    /// Class in `architectures` of config.json.
    pub(super) architecture: &'static str,
    /// Query and key rows are interleaved (see [`crate::weights::RowOrder::Interleaved`]).
    pub(super) interleaved: bool,
    /// Before the layer number.
    layers: &'static str,
    /// Names outside of the layers, without `.weight` or `.bias`.
    outer: &'static [(&'static str, &'static str)],
    /// Names within a layer.
    inner: &'static [(&'static str, &'static str)],
}

const OUTER: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

const INNER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const GEMMA2_INNER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const GPT2_OUTER: &[(&str, &str)] = &[
    ("token_embd", "transformer.wte"),
    ("position_embd", "transformer.wpe"),
    ("output_norm", "transformer.ln_f"),
    ("output", "lm_head"),
];

const GPT2_INNER: &[(&str, &str)] = &[
    ("attn_norm", "ln_1"),
    ("attn_qkv", "attn.c_attn"),
    ("attn_output", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("ffn_up", "mlp.c_fc"),
    ("ffn_down", "mlp.c_proj"),
];

/// One row per architecture.
pub(super) static NAMINGS: &[Naming] = &[
    Naming {
        gguf: "llama",
        architecture: "LlamaForCausalLM",
        interleaved: true,
        layers: "model.layers.",
        outer: OUTER,
        inner: INNER,
    },
    Naming {
        gguf: "qwen2",
        architecture: "Qwen2ForCausalLM",
        interleaved: false,
        layers: "model.layers.",
        outer: OUTER,
        inner: INNER,
    },
    Naming {
        gguf: "qwen3",
        architecture: "Qwen3ForCausalLM",
        interleaved: false,
        layers: "model.layers.",
        outer: OUTER,
        inner: INNER,
    },
    Naming {
        gguf: "gemma2",
        architecture: "Gemma2ForCausalLM",
        interleaved: false,
        layers: "model.layers.",
        outer: OUTER,
        inner: GEMMA2_INNER,
    },
    Naming {
        gguf: "gpt2",
        architecture: "GPT2LMHeadModel",
        interleaved: false,
        layers: "transformer.h.",
        outer: GPT2_OUTER,
        inner: GPT2_INNER,
    },
];

impl Naming {
    /// The row of a `general.architecture`.
    pub(super) fn find(gguf: &str) -> Option<&'static Self> {
        NAMINGS.iter().find(|naming| naming.gguf == gguf)
    }

    /// The Hugging Face name, when there is one.
    pub(super) fn translate(&self, gguf: &str) -> Option<String> {
        let (stem, kind) = gguf.rsplit_once('.')?;
        if kind != "weight" && kind != "bias" {
            return None;
        }
        let find = |table: &[(&str, &'static str)], name: &str| {
            table.iter().find(|row| row.0 == name).map(|row| row.1)
        };
        let Some(block) = stem.strip_prefix("blk.") else {
            return find(self.outer, stem).map(|name| format!("{name}.{kind}"));
        };
        let (layer, name) = block.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        find(self.inner, name).map(|name| format!("{}{layer}.{name}.{kind}", self.layers))
    }
}

/// Whether the GGUF name is a query or key projection (weight or bias).
pub(super) fn is_rotated_projection(gguf: &str) -> bool {
    gguf.rsplit('.').nth(1).is_some_and(|name| name == "attn_q" || name == "attn_k")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated() {
        let check = |architecture: &str, gguf: &str, want: Option<&str>| {
            let got = Naming::find(architecture).unwrap().translate(gguf);
            assert_eq!(got.as_deref(), want, "{architecture} {gguf}");
        };
        check("llama", "token_embd.weight", Some("model.embed_tokens.weight"));
        check("llama", "blk.12.attn_q.weight", Some("model.layers.12.self_attn.q_proj.weight"));
        check("qwen2", "blk.0.attn_k.bias", Some("model.layers.0.self_attn.k_proj.bias"));
        check("qwen3", "blk.3.attn_q_norm.weight", Some("model.layers.3.self_attn.q_norm.weight"));
        check(
            "gemma2",
            "blk.3.ffn_norm.weight",
            Some("model.layers.3.pre_feedforward_layernorm.weight"),
        );
        check("gpt2", "position_embd.weight", Some("transformer.wpe.weight"));
        check("gpt2", "blk.1.attn_qkv.bias", Some("transformer.h.1.attn.c_attn.bias"));
        check("llama", "blk.x.attn_q.weight", None);
        check("llama", "rope_freqs.weight", None);
        check("llama", "blk.1.ffn_gate_exps.weight", None);
        assert!(Naming::find("bert").is_none());
    }
}
