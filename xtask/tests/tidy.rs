//! Repository rules as a test: who may depend on whom, which names stay out of which crate, that what
//! the tables list is tested and documented, and that documents name files that exist.

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
        forbidden: &[
            "std::time",
            "Instant::",
            "SystemTime",
            "tokio",
            "tracing",
            "rand::",
            "HashMap<",
            "println!",
        ],
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
        // The scheduler for its plain types alone: what a sequence is, why it ended.
        may_use: &["tokenmill-engine", "tokenmill-predictive", "tokenmill-scheduler"],
        outside: None,
        forbidden: &["candle_core", "cudarc"],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("source folders can be listed") {
        let path = entry.expect("source folders can be read").path();
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
                    assert!(
                        !code.contains(name),
                        "{place}: {name} has no place in {}",
                        rule.package
                    );
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
                code.contains("unsafe {")
                    || code.contains("unsafe fn")
                    || code.contains("unsafe impl")
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
        let row = format!("| `{name}` |");
        let documented = document.lines().any(|line| line.starts_with(&row));
        assert!(documented, "docs/models.md has no row that starts with {row}");
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
    for folder in
        ["scheduler", "kernels", "engine", "predictive", "server", "benches", "xtask", "tests"]
    {
        let mut files = Vec::new();
        sources(&root().join(folder).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
        }
    }
}

/// Folders of the repository that documents name files of.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    "benches",
    "deploy",
    "docs",
    "engine",
    "fuzz",
    "kernels",
    "predictive",
    "scheduler",
    "server",
    "tests",
    "xtask",
];

/// Words of a document that are written as code and are paths of this repository.
fn named_paths(document: &str) -> Vec<&str> {
    let words = document.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        let (top, _) = word.split_once('/').unwrap_or((word, ""));
        // Recipes have places to fill in: `engine/src/models/<arch>.rs`.
        TOP.contains(&top) && word.contains('/') && !word.contains(['<', '*', ' '])
    };
    words.filter(is_path).collect()
}

fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .iter()
            .map(|name| root().join(name))
            .collect();
    for entry in fs::read_dir(root().join("docs")).expect("docs can be listed") {
        let path = entry.expect("docs can be read").path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents
}

#[test]
fn paths_that_documents_name_exist() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for path in named_paths(&text) {
            assert!(root().join(path).exists(), "{}: there is no {path}", document.display());
        }
    }
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let named = named_paths(&architecture).len();
    assert!(named > 100, "ARCHITECTURE.md was not understood: it names {named} paths");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            let found = file.is_empty() || target.contains("://") || folder.join(file).exists();
            assert!(found, "{}: the link to {target} leads nowhere", document.display());
        }
    }
}

#[test]
fn the_code_map_has_every_module() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in ["scheduler/src", "kernels/src", "engine/src", "predictive/src", "server/src"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let module = format!("`{folder}/{name}");
            assert!(map.contains(&module), "the code map of ARCHITECTURE.md lacks {folder}/{name}");
        }
    }
}

#[test]
fn generated_documents_exist() {
    for name in ["docs/flags.md", "docs/metrics.md", "docs/predictive.md"] {
        let text = fs::read_to_string(root().join(name)).unwrap_or_default();
        assert!(text.contains("Generated from"), "{name} does not say what it is generated from");
    }
}

#[test]
fn tasks_are_tracked_and_the_environment_is_read_in_one_file() {
    let mut files = Vec::new();
    sources(&root().join("server/src"), &mut files);
    // The signal handlers outlive every connection, so the tracker of connections must not wait for them.
    let may_spawn = |file: &Path| file.ends_with("server/src/lifecycle.rs");
    let may_read = |file: &Path| file.ends_with("server/src/config/environment.rs");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines() {
            let code = line.split("//").next().unwrap();
            let place = file.display();
            assert!(
                !code.contains("tokio::spawn(") || may_spawn(&file),
                "{place}: use the task tracker"
            );
            assert!(
                !code.contains("env::var") || may_read(&file),
                "{place}: the environment is read in config"
            );
        }
    }
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let document = fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let foreign: Vec<&str> = names.filter(|name| !name.starts_with("tokenmill")).collect();
    assert!(foreign.len() > 20, "the manifest was not understood: {foreign:?}");
    for name in foreign {
        let row = format!("| `{name}` |");
        let documented = document.lines().any(|line| line.starts_with(&row));
        assert!(documented, "docs/dependencies.md has no row that starts with {row}");
    }
}
