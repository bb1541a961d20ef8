//! Repository rules as a test: who may depend on whom, which names stay out of which crate, and that
//! what the tables list is tested and documented.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A crate, the workspace crates it may use, and identifiers that must not occur in its sources.
struct Rule {
    package: &'static str,
    folder: &'static str,
    may_use: &'static [&'static str],
    outside: Option<&'static [&'static str]>,
    forbidden: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        package: "tokenmill-scheduler",
        folder: "scheduler/src",
        may_use: &[],
        outside: Some(&["thiserror"]),
        forbidden: &["std::time", "Instant::", "SystemTime", "tokio", "tracing", "rand::", "HashMap<", "println!"],
    },
    Rule {
        package: "tokenmill-kernels",
        folder: "kernels/src",
        may_use: &[],
        outside: Some(&["half", "libc", "thiserror"]),
        forbidden: &["candle", "serde", "tokio"],
    },
    Rule {
        package: "tokenmill-engine",
        folder: "engine/src",
        may_use: &["tokenmill-scheduler", "tokenmill-kernels"],
        outside: None,
        forbidden: &["axum", "hyper::", "http::", "std::env::var"],
    },
    Rule {
        package: "tokenmill-predictive",
        folder: "predictive/src",
        may_use: &["tokenmill-kernels"],
        outside: None,
        forbidden: &["candle", "axum", "tokenmill_engine", "tokenmill_scheduler"],
    },
    Rule {
        package: "tokenmill",
        folder: "server/src",
        may_use: &["tokenmill-engine", "tokenmill-predictive"],
        outside: None,
        forbidden: &["candle_core", "cudarc"],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for rule in RULES {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == rule.package).unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let name = dependency["name"].as_str().unwrap();
            let ours = name.starts_with("tokenmill");
            let allowed = match rule.outside {
                _ if ours => rule.may_use.contains(&name),
                Some(outside) => outside.contains(&name),
                None => true,
            };
            assert!(allowed, "{} must not depend on {name} (xtask/tests/tidy.rs)", rule.package);
        }
    }
}

#[test]
fn forbidden_names_stay_out() {
    for rule in RULES {
        let mut files = Vec::new();
        sources(&root().join(rule.folder), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap();
                for name in rule.forbidden {
                    let place = format!("{}:{}", file.display(), number + 1);
                    assert!(!code.contains(name), "{place}: {name} has no place in {}", rule.package);
                }
            }
        }
    }
}

#[test]
fn unsafe_code_stays_in_kernels_and_mapped_files() {
    for folder in ["scheduler/src", "engine/src", "predictive/src", "server/src", "xtask/src"] {
        let mut files = Vec::new();
        sources(&root().join(folder), &mut files);
        for file in files.iter().filter(|file| !file.ends_with("weights/mmap.rs")) {
            let text = fs::read_to_string(file).unwrap();
            let uses = text.lines().any(|line| {
                let code = line.split("//").next().unwrap();
                code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl")
            });
            assert!(!uses, "{}: unsafe belongs in kernels", file.display());
        }
    }
}

#[test]
fn every_architecture_has_a_fixture_and_a_document_row() {
    let table = fs::read_to_string(root().join("engine/src/models/mod.rs")).unwrap();
    let document = fs::read_to_string(root().join("docs/models.md")).unwrap();
    let names = table.lines().filter_map(|line| line.split("Architecture { name: \"").nth(1));
    let names: Vec<&str> = names.map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(names.len() >= 6, "the table was not understood: {names:?}");
    for name in names {
        assert!(document.contains(name), "docs/models.md has no row for {name}");
        let fixtures = fs::read_dir(root().join("engine/tests/fixtures/models")).unwrap();
        let tested = fixtures.filter_map(Result::ok).any(|folder| {
            let config = folder.path().join("config.json");
            fs::read_to_string(config).is_ok_and(|config| config.contains(name))
        });
        assert!(tested, "no fixture in engine/tests/fixtures/models for {name}");
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for folder in ["scheduler", "kernels", "engine", "predictive", "server", "benches", "xtask", "tests"] {
        let mut files = Vec::new();
        sources(&root().join(folder).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
        }
    }
}
