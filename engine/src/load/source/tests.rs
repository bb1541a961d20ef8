//! Tests of opening models, with files the tests write.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::*;
use crate::weights::Container;
use crate::weights::gguf::testing::tiny_llama;
use crate::weights::testing::TempDir;

fn write(directory: &Path, name: &str, value: &Value) {
    std::fs::write(directory.join(name), value.to_string()).unwrap();
}

/// A directory with a configuration and weights of one tensor.
fn checkpoint() -> TempDir {
    let path = TempDir::new();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "eos_token_id": 2,
    });
    write(&path, "config.json", &config);
    let tensor = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("model.norm.weight", tensor)], None).unwrap();
    std::fs::write(path.join("model.safetensors"), bytes).unwrap();
    path
}

fn fails(path: &Path, want: &str) {
    let error = open(path).unwrap_err().to_string();
    assert!(error.contains(want), "{error:?} does not contain {want:?}");
}

#[test]
fn a_checkpoint_directory_opens() {
    let path = checkpoint();
    let generation = json!({"eos_token_id": [3, 4], "temperature": 0.6, "top_k": 20});
    write(&path, "generation_config.json", &generation);
    let tokenizer = json!({
        "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>",
        "add_bos_token": true, "chat_template": "{{ messages }}",
    });
    write(&path, "tokenizer_config.json", &tokenizer);
    write(&path, "special_tokens_map.json", &json!({"unk_token": "<unk>", "eos_token": "no"}));
    let model = open(&path).unwrap();
    assert_eq!(model.config.eos_tokens, [3, 4]);
    assert_eq!((model.generation.temperature, model.generation.top_k), (Some(0.6), Some(20)));
    assert_eq!(model.tensors.names(), ["model.norm.weight"]);
    assert_eq!(model.tensors.container(), Container::Safetensors);
    assert_eq!(model.chat_templates.default.as_deref(), Some("{{ messages }}"));
    let tokens = &model.special_tokens;
    assert_eq!(tokens.bos.as_deref(), Some("<s>"));
    assert_eq!((tokens.eos.as_deref(), tokens.unk.as_deref()), (Some("</s>"), Some("<unk>")));
    assert_eq!((tokens.add_bos, tokens.add_eos), (Some(true), None));
    assert!(matches!(&model.tokenizer, TokenizerFiles::Directory(found) if **found == *path));
}

#[test]
fn chat_templates_have_an_order() {
    let path = checkpoint();
    let templates = || open(&path).unwrap().chat_templates;
    assert_eq!(templates(), ChatTemplates::default());
    write(&path, "chat_template.json", &json!({"chat_template": "third"}));
    assert_eq!(templates().default.as_deref(), Some("third"));
    let named = json!({"chat_template": [
        {"name": "default", "template": "second"},
        {"name": "tool_use", "template": "tools"},
        {"name": "rag", "template": "rag"},
    ]});
    write(&path, "tokenizer_config.json", &named);
    let both = templates();
    assert_eq!(
        (both.default.as_deref(), both.tool_use.as_deref()),
        (Some("second"), Some("tools"))
    );
    std::fs::write(path.join("chat_template.jinja"), "first").unwrap();
    assert_eq!(templates(), ChatTemplates { default: Some("first".into()), tool_use: None });
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    write(&path, "tokenizer_config.json", &json!({"chat_template": [1]}));
    fails(&path, "tokenizer_config.json: chat_template: a template or a list");
}

#[test]
fn a_gguf_file_opens_alone_and_in_a_directory() {
    let path = TempDir::new();
    let file = path.write("tiny.gguf", tiny_llama().build());
    for given in [file.as_path(), &*path] {
        let model = open(given).unwrap();
        assert_eq!(model.path, file);
        assert_eq!(model.tensors.container(), Container::Gguf);
        assert_eq!(model.special_tokens.bos.as_deref(), Some("<|endoftext|>"));
        assert_eq!(model.chat_templates.default.as_deref(), Some("{{ messages }}"));
        assert!(matches!(&model.tokenizer, TokenizerFiles::Gguf(found) if found.model == "gpt2"));
    }
    path.write("other.gguf", tiny_llama().build());
    fails(&path, "2 .gguf files in the directory");
}

#[test]
fn what_is_not_a_model_is_said() {
    let path = checkpoint();
    fails(&path.join("none"), "none");
    fails(&path.join("config.json"), "a directory or a .gguf file is needed");
    fails(&path.join("model.safetensors"), "give the directory, with config.json");
    let text = "{\"architectures\": [\"Strange\"]}";
    std::fs::write(path.join("config.json"), text).unwrap();
    fails(&path, "config.json: architecture Strange is not supported");
    std::fs::write(path.join("config.json"), "{").unwrap();
    fails(&path, "config.json: not a JSON object");
    std::fs::write(path.join("config.json"), [0xff, 0xfe]).unwrap();
    fails(&path, "config.json: not UTF-8");
    fails(&TempDir::new(), "no config.json and no .gguf file");
    let path = checkpoint();
    write(&path, "generation_config.json", &json!({"top_p": 2}));
    fails(&path, "generation_config.json: top_p: 2 is not a number above 0, at most 1");
    let path = checkpoint();
    std::fs::write(path.join("model.safetensors"), [0; 7]).unwrap();
    fails(&path, "model.safetensors: 7 bytes are too short");
}
