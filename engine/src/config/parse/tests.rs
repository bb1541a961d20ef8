//! Tests of `config.json` parsing.

use serde_json::json;

use super::*;
use crate::config::RopeScaling;

fn parse(config: Value) -> Result<ModelConfig, String> {
    parse_with(config, json!({}))
}

fn parse_with(config: Value, generation: Value) -> Result<ModelConfig, String> {
    let object = |value: Value| value.as_object().cloned().expect("tests pass objects");
    ModelConfig::from_json(object(config), &object(generation)).map_err(|error| error.to_string())
}

/// A small valid configuration, with changes; null removes a field.
fn config(architecture: &str, changes: Value) -> Value {
    let mut config = json!({
        "architectures": [architecture],
        "vocab_size": 100,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    });
    let fields = config.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => fields.remove(name),
            value => fields.insert(name.clone(), value.clone()),
        };
    }
    config
}

fn refused(architecture: &str, changes: Value, want: &str) {
    let error = parse(config(architecture, changes)).unwrap_err();
    assert!(error.contains(want), "{error:?} does not contain {want:?}");
}

#[test]
fn llama_has_the_defaults_of_transformers() {
    let got = parse(config("LlamaForCausalLM", json!({"rms_norm_eps": 1e-5}))).unwrap();
    assert_eq!((got.head_dim, got.rotary_dim, got.num_kv_heads), (16, 16, 2));
    assert_eq!((got.norm_eps, got.rope_theta), (1e-5, 10_000.0));
    assert_eq!((got.bos_token, got.eos_tokens.as_slice()), (Some(1), &[2][..]));
    assert_eq!((got.hidden_act.as_str(), got.dtype.as_str()), ("silu", "float32"));
    assert!(!got.tie_word_embeddings && got.sliding_window.is_none());
    assert_eq!((got.rope_scaling, got.max_position), (RopeScaling::None, 256));
    let full = parse(config("LlamaForCausalLM", json!({"num_key_value_heads": null}))).unwrap();
    assert_eq!(full.num_kv_heads, 4);
}

#[test]
fn families_differ_in_their_defaults() {
    let gemma = parse(config("Gemma2ForCausalLM", json!({}))).unwrap();
    assert_eq!((gemma.head_dim, gemma.sliding_window), (256, Some(4096)));
    assert_eq!(gemma.hidden_act, "gelu_pytorch_tanh");
    assert!(gemma.tie_word_embeddings);
    assert_eq!(gemma.raw["attn_logit_softcapping"], 50.0);
    let qwen3 = parse(config("Qwen3ForCausalLM", json!({}))).unwrap();
    assert_eq!((qwen3.head_dim, qwen3.sliding_window, qwen3.bos_token), (128, None, None));
    assert!(qwen3.eos_tokens.is_empty());
    let mistral = parse(config("MistralForCausalLM", json!({}))).unwrap();
    assert_eq!(mistral.sliding_window, Some(4096));
}

#[test]
fn sliding_windows_follow_each_familys_rule() {
    let window = |architecture: &str, changes: Value| {
        parse(config(architecture, changes)).unwrap().sliding_window
    };
    assert_eq!(window("LlamaForCausalLM", json!({"sliding_window": 8})), None);
    assert_eq!(window("MistralForCausalLM", json!({"sliding_window": 8})), Some(8));
    assert_eq!(window("Qwen2ForCausalLM", json!({"sliding_window": 8})), None);
    let used = json!({"sliding_window": 8, "use_sliding_window": true});
    assert_eq!(window("Qwen2ForCausalLM", used.clone()), Some(8));
    let parsed = parse(config("Qwen2ForCausalLM", used)).unwrap();
    assert_eq!(parsed.raw["max_window_layers"], 28);
    let mut null = config("MistralForCausalLM", json!({}));
    null["sliding_window"] = Value::Null;
    assert_eq!(parse(null).unwrap().sliding_window, None);
}

#[test]
fn gpt2_has_its_own_names() {
    let gpt2 = json!({
        "architectures": ["GPT2LMHeadModel"], "vocab_size": 50, "n_embd": 24, "n_layer": 2,
        "n_head": 8, "n_positions": 32, "n_inner": null, "layer_norm_epsilon": 1e-4,
        "activation_function": "relu", "eos_token_id": 3,
    });
    let got = parse(gpt2.clone()).unwrap();
    assert_eq!((got.hidden_size, got.intermediate_size, got.num_layers), (24, 96, 2));
    // Heads of 3 values: nothing is rotated, so an odd width is fine.
    assert_eq!((got.num_heads, got.num_kv_heads, got.head_dim), (8, 8, 3));
    assert_eq!((got.max_position, got.norm_eps, got.hidden_act.as_str()), (32, 1e-4, "relu"));
    assert!(got.tie_word_embeddings);
    // The family's beginning, 50256, is no token of this vocabulary.
    assert_eq!((got.bos_token, got.eos_tokens.as_slice()), (None, &[3][..]));
    let mut scaled = gpt2;
    scaled["scale_attn_by_inverse_layer_idx"] = true.into();
    let error = parse(scaled).unwrap_err();
    assert_eq!(error, "scale_attn_by_inverse_layer_idx: true is not supported, false is");
}

#[test]
fn the_generation_configuration_wins_for_the_end() {
    let ends = |config: Value, generation: Value| parse_with(config, generation).unwrap();
    let base = config("LlamaForCausalLM", json!({"eos_token_id": 5, "bos_token_id": 4}));
    let both = ends(base.clone(), json!({"eos_token_id": [9, 7, 9], "bos_token_id": 1}));
    assert_eq!((both.bos_token, both.eos_tokens.as_slice()), (Some(4), &[9, 7][..]));
    assert_eq!(ends(base, json!({})).eos_tokens, [5]);
    let mut none = config("LlamaForCausalLM", json!({}));
    none["eos_token_id"] = Value::Null;
    assert!(ends(none, json!({})).eos_tokens.is_empty());
}

#[test]
fn rope_scalings_are_read_in_both_spellings() {
    let check = |changes: Value, want: RopeScaling, length: u32| {
        let got = parse(config("LlamaForCausalLM", changes)).unwrap();
        assert_eq!((got.rope_scaling, got.max_position), (want, length));
    };
    check(
        json!({"rope_scaling": {"type": "linear", "factor": 2}}),
        RopeScaling::Linear { factor: 2.0 },
        512,
    );
    check(
        json!({"rope_parameters": {"rope_type": "dynamic", "factor": 1.5, "rope_theta": 5e5}}),
        RopeScaling::Dynamic { factor: 1.5, original_max_position: 256 },
        384,
    );
    check(
        json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 32,
        },
        256,
    );
    check(
        json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 1.0,
            "mscale_all_dim": 0.5, "original_max_position_embeddings": 128}}),
        RopeScaling::Yarn {
            factor: 4.0,
            original_max_position: 128,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: None,
            mscale: Some((1.0, 0.5)),
            truncate: true,
        },
        512,
    );
    check(json!({"rope_parameters": {"rope_type": "default"}}), RopeScaling::None, 256);
    let theta = |changes| parse(config("LlamaForCausalLM", changes)).unwrap().rope_theta;
    assert_eq!(theta(json!({"rope_parameters": {"rope_theta": 5e5}})), 5e5);
    assert_eq!(theta(json!({"rope_theta": 1e6, "partial_rotary_factor": 0.5})), 1e6);
}

#[test]
fn wrong_rope_scalings_are_named() {
    let check = |scaling: Value, want: &str| {
        refused("LlamaForCausalLM", json!({ "rope_scaling": scaling }), want);
    };
    check(json!({"type": "su", "factor": 2.0}), "rope_scaling.type: su is not supported");
    check(json!({"factor": 2.0}), "rope_scaling.rope_type: a factor is given");
    check(json!({"type": "linear"}), "rope_scaling.factor: the field is missing");
    check(json!({"type": "linear", "factor": 0.5}), "rope_scaling.factor: 0.5 is below 1");
    check(json!({"type": "linear", "factor": 1e30}), "rope_scaling.factor: 1e+30 is not");
    check(json!({"type": "linear", "factor": 999_999}), "factor: the length");
    check(json!({"rope_type": "llama3", "factor": 8}), "low_freq_factor: the field is missing");
    check(json!([1]), "rope_scaling: [1] is not an object");
    check(json!({"full_attention": {"rope_type": "default"}}), "per kind of layer");
}

#[test]
fn the_length_is_the_smallest_one_given() {
    let length = |changes| parse(config("LlamaForCausalLM", changes)).unwrap().max_position;
    assert_eq!(length(json!({"model_max_length": 100})), 100);
    assert_eq!(length(json!({"seq_length": 1000})), 256);
    assert_eq!(length(json!({"max_position_embeddings": null})), 2048);
}

#[test]
fn text_config_and_model_type_are_understood() {
    let mut inner = config("LlamaForCausalLM", json!({"architectures": null}));
    inner["model_type"] = "llama".into();
    let nested = json!({"architectures": ["Wrapped"], "hidden_size": 1, "text_config": inner});
    let got = parse(nested).unwrap();
    assert_eq!((got.architecture.as_str(), got.hidden_size), ("Wrapped", 64));
    assert_eq!(parse(inner).unwrap().architecture, "LlamaForCausalLM");
    let dtype = |changes| parse(config("LlamaForCausalLM", changes)).unwrap().dtype;
    assert_eq!(dtype(json!({"torch_dtype": "torch.bfloat16"})), "bfloat16");
    assert_eq!(dtype(json!({"torch_dtype": "float16", "dtype": "bfloat16"})), "bfloat16");
}

#[test]
fn fields_out_of_range_are_named() {
    let check = |changes: Value, want: &str| refused("LlamaForCausalLM", changes, want);
    check(json!({"hidden_size": 0}), "hidden_size: 0 is not a whole number from 1 to 1048576");
    check(json!({"hidden_size": -64}), "hidden_size: -64 is not");
    check(json!({"hidden_size": 64.5}), "hidden_size: 64.5 is not");
    check(json!({"hidden_size": "64"}), "hidden_size: \"64\" is not");
    check(json!({"hidden_size": null}), "hidden_size: the field is missing (or n_embd)");
    check(json!({"num_hidden_layers": 1e12}), "num_hidden_layers: 1000000000000.0 is not");
    check(json!({"vocab_size": u64::MAX}), "vocab_size: 18446744073709551615 is not");
    check(json!({"num_attention_heads": 5, "num_key_value_heads": 5}), "5 heads do not divide");
    check(json!({"num_key_value_heads": 3}), "num_key_value_heads: 3 does not divide the 4");
    check(json!({"head_dim": 15}), "head_dim: 15 of 15 values of a head cannot be rotated");
    check(json!({"rms_norm_eps": 0}), "rms_norm_eps: 0 is not a number above 0");
    check(json!({"rms_norm_eps": -1e-6}), "rms_norm_eps: -1e-6 is not");
    check(json!({"rms_norm_eps": "nan"}), "rms_norm_eps: \"nan\" is not");
    check(json!({"rope_theta": 1e-300}), "rope_theta: 1e-300 is not");
    check(json!({"sliding_window": 0, "architectures": ["MistralForCausalLM"]}), "sliding_window");
    check(json!({"tie_word_embeddings": 1}), "tie_word_embeddings: 1 is not true or false");
    check(json!({"eos_token_id": [-1]}), "eos_token_id: [-1] is not a token id");
    check(json!({"architectures": "x"}), "architectures: \"x\" is not a list");
    check(json!({"architectures": null}), "architectures: the field is missing");
    check(
        json!({"quantization_config": {"quant_method": "gptq"}}),
        "quantization_config: weights quantised with gptq are not supported",
    );
}
