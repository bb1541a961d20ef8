//! `docs/predictive.md` against the tables it describes: formats, estimators, and versions that fixtures come from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenmill_predictive::formats::FORMATS;
use tokenmill_predictive::steps::ESTIMATORS;

const BEGIN: &str =
    "<!-- Generated from the tables of the code; see predictive/tests/documented.rs. -->\n";
const END: &str = "<!-- End of the generated part. -->\n";

fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/predictive.md")
}

/// Versions that cases below a folder name, by library.
fn find_versions(folder: &Path, versions: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).expect("fixtures can be listed") {
        let path = entry.expect("fixtures can be listed").path();
        if path.is_dir() {
            find_versions(&path, versions);
        } else if path.to_string_lossy().ends_with(".case.json") {
            let text = std::fs::read_to_string(&path).expect("a case is a text");
            let case: Value = serde_json::from_str(&text).expect("a case is JSON");
            let library = case["library"].as_str().expect("a case names its library");
            let (name, version) = library.split_once(' ').expect("a name and a version");
            versions.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
}

fn versions() -> String {
    let mut versions = BTreeMap::new();
    find_versions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"), &mut versions);
    let row = |(name, versions): (&String, &BTreeSet<String>)| {
        let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
        format!("| {name} | {} |\n", versions.join(", "))
    };
    let rows: String = versions.iter().map(row).collect();
    format!("| library | versions |\n|---|---|\n{rows}")
}

fn estimators() -> String {
    let mut classes: Vec<&str> =
        ESTIMATORS.iter().flat_map(|table| table.iter().map(|row| row.class)).collect();
    classes.sort_unstable();
    classes.dedup();
    let mut lines = format!("{} classes:\n", classes.len());
    for group in classes.chunk_by(|a, b| a.as_bytes()[0] == b.as_bytes()[0]) {
        let names: Vec<String> = group.iter().map(|class| format!("`{class}`")).collect();
        lines += &format!("\n* {}", names.join(", "));
    }
    lines + "\n"
}

fn generated() -> String {
    let formats: Vec<String> = FORMATS.iter().map(|row| format!("`{}`", row.name())).collect();
    let (formats, estimators, versions) = (formats.join(", "), estimators(), versions());
    format!(
        "\nValues of `--framework`, and the order in which files are looked at: {formats}.\n\n\
         ### Estimators in pickles\n\n{estimators}\n### Versions in the tests\n\n{versions}\n"
    )
}

/// Rewrites the generated part when `TOKENMILL_BLESS` is 1.
#[test]
fn the_document_is_the_tables() {
    let path = document();
    let have = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = have.split_once(BEGIN).expect("the beginning of the generated part");
    let (_, after) = rest.split_once(END).expect("the end of the generated part");
    let want = format!("{before}{BEGIN}{}{END}{after}", generated());
    if std::env::var_os("TOKENMILL_BLESS").is_some() {
        std::fs::write(&path, &want).expect("docs/ can be written");
        return;
    }
    assert_eq!(
        have, want,
        "run TOKENMILL_BLESS=1 cargo test -p tokenmill-predictive --test documented and commit"
    );
}

#[test]
fn every_format_has_a_row() {
    let text = std::fs::read_to_string(document()).unwrap();
    for format in FORMATS {
        let name = format.name();
        assert!(text.contains(&format!("\n| `{name}` |")), "docs/predictive.md: no row of {name}");
    }
}
