//! Files from strangers: `serve` and `inspect` refuse them within seconds, with a message that names
//! the file or the field, and never by a crash.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokenmill_tests::files::{self, Folder};
use tokenmill_tests::program;

const LIMIT: Duration = Duration::from_secs(30);

/// Both commands refuse `path`; each message contains one of `parts`.
fn check_refused(what: &str, path: &Path, parts: &[&str]) {
    check_command(what, &["inspect", &path.to_string_lossy()], parts);
    check_served(what, path, parts);
}

fn check_served(what: &str, path: &Path, parts: &[&str]) {
    let path = path.to_string_lossy();
    check_command(what, &["serve", &path, "--host", "127.0.0.1", "--port", "0"], parts);
}

/// One of `parts` is in the line that says what went wrong.
fn check_command(what: &str, arguments: &[&str], parts: &[&str]) {
    let ended = program::run(arguments, LIMIT).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let output = &ended.stderr;
    assert_eq!(ended.code, Some(1), "{what}, {arguments:?}: {output}");
    assert!(!output.contains("panicked"), "{what}, {arguments:?}: {output}");
    let error = output.lines().find(|line| line.contains("error: "));
    let error = error.unwrap_or_else(|| panic!("{what}: no error line in {output}"));
    let named = parts.iter().any(|part| error.contains(part));
    assert!(named, "{what}: none of {parts:?} in {error}");
}

#[test]
fn truncated_gguf_files() {
    let folder = Folder::new().expect("a folder");
    let head = files::gguf_head().expect("the real model");
    for length in [0, 3, 4, 7, 12, 23, 24, 31, 40, 1000, 64 << 10, 1 << 20, 1_780_000] {
        let path = folder.write("cut.gguf", &head[..length]).expect("written");
        check_refused(&format!("{length} bytes"), &path, &["cut.gguf"]);
    }
    // The whole header, and too little behind it for the tensors.
    let path = folder.write("no-weights.gguf", &head).expect("written");
    check_refused("without weights", &path, &["no-weights.gguf"]);
}

#[test]
fn hostile_gguf_headers() {
    let folder = Folder::new().expect("a folder");
    let head = files::gguf_head().expect("the real model");
    let most = u64::MAX.to_le_bytes();
    let many = (1_u64 << 40).to_le_bytes();
    for (what, at, bytes) in [
        ("wrong magic", 0, &b"GGML"[..]),
        ("version 99", 4, &99_u32.to_le_bytes()),
        ("version 0", 4, &[0; 4]),
        ("2^64-1 tensors", 8, &most),
        ("2^40 tensors", 8, &many),
        ("2^64-1 metadata entries", 16, &most),
        ("2^40 metadata entries", 16, &many),
        ("a key of 2^64-1 bytes", 24, &most),
        ("a key of 2^40 bytes", 24, &many),
        ("a value of an unknown type", 52, &[255, 255, 255, 255]),
        ("a string of 2^64-1 bytes", 56, &most),
        ("a key that is not UTF-8", 32, &[0xff, 0xfe]),
    ] {
        let mut bytes_of_file = head[..64 << 10].to_vec();
        bytes_of_file[at..at + bytes.len()].copy_from_slice(bytes);
        let path = folder.write("hostile.gguf", &bytes_of_file).expect("written");
        check_refused(what, &path, &["hostile.gguf"]);
    }
}

/// The real header with `from` replaced, in front of weights that are a hole in the file.
fn patched(folder: &Folder, name: &str, from: &[u8], to: &[u8]) -> std::path::PathBuf {
    let mut head = files::gguf_head().expect("the real model");
    files::patch(&mut head, from, to);
    let path = folder.write(name, &head).expect("written");
    let file = File::options().write(true).open(&path).expect("opened");
    file.set_len(files::gguf_len().expect("the real model")).expect("a hole");
    path
}

#[test]
fn gguf_files_that_contradict_themselves() {
    let folder = Folder::new().expect("a folder");
    let blocks = |count: u32| {
        let mut bytes = b"llama.block_count\x04\0\0\0".to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes
    };
    for (what, from, to, parts) in [
        ("unknown architecture", b"\0llama".to_vec(), b"\0lxxma".to_vec(), &["lxxma"][..]),
        (
            "no architecture",
            b"general.architecture".into(),
            b"general.architectuxx".into(),
            &["general.architecture"],
        ),
        (
            "a missing tensor",
            b"blk.3.attn_q.weight".into(),
            b"blk.3.attn_x.weight".into(),
            &["layers.3.self_attn.q_proj.weight"],
        ),
        (
            "a tensor twice",
            b"blk.3.attn_q.weight".into(),
            b"blk.4.attn_q.weight".into(),
            &["blk.4.attn_q.weight", "blk.3.attn_q.weight"],
        ),
        (
            "no embedding",
            b"token_embd.weight".into(),
            b"token_embx.weight".into(),
            &["token_embd.weight"],
        ),
        ("no layer", blocks(30), blocks(0), &["block_count"]),
        ("31 layers of 30", blocks(30), blocks(31), &["layers.30."]),
        ("2^32-1 layers", blocks(30), blocks(u32::MAX), &["block_count"]),
        (
            "no tokens",
            b"tokenizer.ggml.tokens".into(),
            b"tokenizer.ggml.tokenx".into(),
            &["tokenizer.ggml.token"],
        ),
    ] {
        let path = patched(&folder, "patched.gguf", &from, &to);
        check_refused(what, &path, parts);
    }
}

#[test]
fn broken_safetensors_files() {
    let file = |shape: Value, offsets: [u64; 2], data| {
        let tensor = json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
        let header = json!({"model.embed_tokens.weight": tensor}).to_string();
        files::safetensors(&header, data)
    };
    let mut long = u64::MAX.to_le_bytes().to_vec();
    long.extend_from_slice(b"{}");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("7 bytes", vec![0; 7]),
        ("a header of 2^64-1 bytes", long),
        ("a header longer than the file", 1000_u64.to_le_bytes().to_vec()),
        ("a header that is no JSON", files::safetensors("{\"a\":", 0)),
        ("a header that is an array", files::safetensors("[]", 0)),
        ("a header 100000 levels deep", files::safetensors(&deep, 0)),
        ("a tensor beyond the file", file(json!([32, 64]), [0, 8192], 64)),
        ("offsets backwards", file(json!([32, 64]), [8192, 0], 8192)),
        ("offsets that overflow", file(json!([32, 64]), [u64::MAX - 8191, u64::MAX], 8192)),
        ("a shape that is not its bytes", file(json!([32, 65]), [0, 8192], 8192)),
        ("a shape that overflows", file(json!([u64::MAX, u64::MAX]), [0, 8192], 8192)),
        ("a negative shape", file(json!([-32, 64]), [0, 8192], 8192)),
        ("no tensors", files::safetensors("{}", 0)),
        ("one tensor only", file(json!([32, 64]), [0, 8192], 8192)),
        ("one tensor of another shape", file(json!([64, 32]), [0, 8192], 8192)),
    ] {
        let folder = Folder::new().expect("a folder");
        let config = files::tiny_config().to_string();
        folder.write("config.json", config.as_bytes()).expect("written");
        folder.write("model.safetensors", &bytes).expect("written");
        check_refused(what, folder.path(), &[&folder.path().to_string_lossy()]);
    }
}

#[test]
fn configurations_that_make_no_model() {
    let set = |name: &str, value: Value| {
        let mut config = files::tiny_config();
        config[name] = value;
        config.to_string()
    };
    for (what, config, parts) in [
        ("no JSON", "{".to_owned(), &["config.json"][..]),
        ("an array", "[]".to_owned(), &["config.json"]),
        (
            "an unknown architecture",
            set("architectures", json!(["NoSuchForCausalLM"])),
            &["NoSuchForCausalLM"],
        ),
        ("a width of 0", set("hidden_size", json!(0)), &["hidden_size"]),
        ("a negative width", set("hidden_size", json!(-64)), &["hidden_size"]),
        ("a width of 2^63", set("hidden_size", json!(1_u64 << 63)), &["hidden_size"]),
        ("a width of text", set("hidden_size", json!("wide")), &["hidden_size"]),
        ("no layers", set("num_hidden_layers", json!(0)), &["num_hidden_layers"]),
        (
            "10^9 layers",
            set("num_hidden_layers", json!(1_000_000_000)),
            &["num_hidden_layers", "model.layers."],
        ),
        ("no heads", set("num_attention_heads", json!(0)), &["num_attention_heads"]),
        (
            "heads that do not divide",
            set("num_key_value_heads", json!(3)),
            &["num_key_value_heads"],
        ),
        ("no vocabulary", set("vocab_size", json!(0)), &["vocab_size"]),
        ("no positions", set("max_position_embeddings", json!(0)), &["max_position_embeddings"]),
        ("an unknown activation", set("hidden_act", json!("magic")), &["magic"]),
    ] {
        let folder = Folder::new().expect("a folder");
        folder.write("config.json", config.as_bytes()).expect("written");
        folder.write("model.safetensors", &files::tiny_weights()).expect("written");
        check_refused(what, folder.path(), parts);
    }
}

#[test]
fn shards_stay_inside_the_model() {
    for (what, shard) in [
        ("a shard that is not there", "model-00001-of-00001.safetensors"),
        ("a shard above the model", "../../../../../../etc/passwd"),
        ("an absolute shard", "/etc/passwd"),
    ] {
        let folder = Folder::new().expect("a folder");
        let config = files::tiny_config().to_string();
        folder.write("config.json", config.as_bytes()).expect("written");
        let index = json!({"weight_map": {"model.embed_tokens.weight": shard}}).to_string();
        folder.write("model.safetensors.index.json", index.as_bytes()).expect("written");
        check_refused(what, folder.path(), &[shard, "model.safetensors.index.json"]);
    }
}

#[test]
fn weights_without_a_tokenizer() {
    let folder = Folder::new().expect("a folder");
    let config = files::tiny_config().to_string();
    folder.write("config.json", config.as_bytes()).expect("written");
    folder.write("model.safetensors", &files::tiny_weights()).expect("written");
    check_refused("no tokenizer", folder.path(), &["tokenizer.json"]);
    for (what, tokenizer) in [("no JSON", "{"), ("no tokenizer", "{}"), ("an array", "[]")] {
        folder.write("tokenizer.json", tokenizer.as_bytes()).expect("written");
        check_refused(what, folder.path(), &["tokenizer.json"]);
    }
}

#[test]
fn empty_directories_are_no_models() {
    let folder = Folder::new().expect("a folder");
    let name = folder.path().to_string_lossy().into_owned();
    check_refused("an empty directory", folder.path(), &[&name]);
}

#[test]
fn invalid_chat_templates() {
    let folder = Folder::new().expect("a folder");
    let model = tokenmill_tests::server::model_path();
    for (what, template) in [
        ("an open block", "{% for message in messages %}{{ message.content }}"),
        ("an unknown tag", "{% explode %}"),
        ("half an expression", "{{ messages["),
    ] {
        let path = folder.write("bad.jinja", template.as_bytes()).expect("written");
        let (model, path) = (model.to_string_lossy(), path.to_string_lossy());
        for arguments in [
            &["inspect", &*model, "--chat-template", &*path][..],
            &["serve", &*model, "--chat-template", &*path, "--port", "0"],
        ] {
            check_command(what, arguments, &["bad.jinja"]);
        }
    }
    let path = folder.path().join("missing.jinja");
    let (model, path) = (model.to_string_lossy(), path.to_string_lossy());
    check_command(
        "a missing file",
        &["serve", &*model, "--chat-template", &*path, "--port", "0"],
        &["missing.jinja"],
    );
}
