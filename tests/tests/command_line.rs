//! What the binary says to people who type: help, usage errors, their exit codes.

use std::time::Duration;

use tokenmill_tests::{Ended, program};

fn run(arguments: &[&str]) -> Ended {
    program::run(arguments, Duration::from_secs(20)).expect("it ends by itself")
}

#[test]
fn every_command_has_help() {
    for (arguments, parts) in [
        (&["--help"][..], &["serve", "inspect", "chat", "bench", "completions"][..]),
        (&["serve", "--help"], &["--port", "--max-model-len", "tokenmill serve ./model.gguf"]),
        (&["inspect", "--help"], &["--json", "tokenmill inspect"]),
        (&["chat", "--help"], &["--url", "--message"]),
        (&["bench", "--help"], &["--concurrency", "--rate"]),
        (&["completions", "--help"], &["bash", "tokenmill completions"]),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        for part in parts {
            assert!(ended.stdout.contains(part), "{arguments:?}: no {part} in\n{}", ended.stdout);
        }
    }
}

#[test]
fn version_is_one_line() {
    let ended = run(&["--version"]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1), "{ended:?}");
    assert!(ended.stdout.starts_with("tokenmill "), "{ended:?}");
}

#[test]
fn usage_errors_exit_with_2_and_say_what_to_type() {
    for (arguments, part) in [
        (&[][..], "tokenmill serve"),
        (&["serve"], "tokenmill serve ./"),
        (&["inspect"], "tokenmill inspect "),
        (&["no-such-command"], "no-such-command"),
        (&["serve", "m.gguf", "--port", "eighty"], "--port"),
        (&["serve", "m.gguf", "--port", "65536"], "--port"),
        (&["serve", "m.gguf", "--max-num-seqs", "0"], "--max-num-seqs"),
        (&["serve", "m.gguf", "--block-size", "17"], "--block-size"),
        (&["serve", "m.gguf", "--dtype", "int3"], "--dtype"),
        (&["serve", "m.gguf", "--tensor-parallel-size", "2"], "--tensor-parallel-size"),
    ] {
        let ended = run(arguments);
        let output = format!("{}{}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {output}");
        assert!(output.contains(part), "{arguments:?}: no {part} in\n{output}");
    }
}

#[test]
fn failures_exit_with_1_and_name_the_cause() {
    for (arguments, part) in [
        (&["serve", "/no/such/model.gguf", "--port", "0"][..], "/no/such/model.gguf"),
        (&["inspect", "/no/such/model.gguf"], "/no/such/model.gguf"),
        (&["inspect", "/no/such/model.gguf", "--no-such-flag", "1"], "--no-such-flag"),
        (&["chat", "--url", "http://127.0.0.1:1", "--message", "hi"], "127.0.0.1:1"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(part), "{arguments:?}: no {part} in\n{}", ended.stderr);
    }
}
