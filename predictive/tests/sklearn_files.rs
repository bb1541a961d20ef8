//! Files and folders that hold a pickle: which are recognised, which are refused, and how.

use std::path::{Path, PathBuf};

use tokenmill_predictive::{LoadOptions, ModelFiles, load, recognise};

/// A folder of this test with files of a fixture's bytes, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[&str], bytes: &[u8]) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sklearn-files-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the folder can be made");
        for file in files {
            std::fs::write(path.join(file), bytes).expect("a file can be written");
        }
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refusal(path: &Path) -> String {
    let options = LoadOptions { format: Some("sklearn".into()), method: None };
    match load(path, &options) {
        Ok(_) => panic!("{} was loaded", path.display()),
        Err(error) => error.to_string(),
    }
}

/// `LogisticRegression` of a version that never was, without its attributes.
const UNFITTED: &[u8] = b"\x80\x02csklearn.linear_model\nLogisticRegression\n)\x81}b.";

#[test]
fn files_are_recognised_by_name_and_content() {
    let check = |name: &str, files: &[&str], bytes: &[u8], wanted: Option<&str>| {
        let folder = Folder::new(name, files, bytes);
        let files = ModelFiles::open(&folder.0).expect("the folder can be listed");
        assert_eq!(recognise(&files).map(|format| format.name()), wanted, "{name}");
    };
    check("named", &["model.joblib", "requirements.txt"], UNFITTED, Some("sklearn"));
    check("upper", &["MODEL.PKL"], UNFITTED, Some("sklearn"));
    check("protocol-0", &["model.pickle"], b"N.", Some("sklearn"));
    check("content", &["classifier"], UNFITTED, Some("sklearn"));
    check("neither", &["classifier"], b"\x80\x02N.", None);
    check("hidden", &[".model.pkl"], UNFITTED, None);
}

#[test]
fn refusals_name_the_file_and_what_is_right() {
    let check = |name: &str, files: &[&str], bytes: &[u8], wanted: &[&str]| {
        let folder = Folder::new(name, files, bytes);
        let text = refusal(&folder.0);
        assert!(wanted.iter().all(|wanted| text.contains(wanted)), "{name}: {text}");
    };
    let several = ["More than one model file is detected in directory", "a.pkl", "b.joblib"];
    check("several", &["a.pkl", "b.joblib"], UNFITTED, &several);
    check("pair", &["vectorizer.pkl", "model.pkl"], UNFITTED, &["model.pkl", "classes_"]);
    check("none", &["notes.txt"], b"", &["no model file", ".joblib", "notes.txt"]);
    check("list", &["a.pkl"], b"]I1\na.", &["a.pkl", "list of 1", "save the estimator itself"]);
    check("system", &["a.pkl"], b"cposix\nsystem\n.", &["a.pkl", "posix.system"]);
    check("cut", &["a.pkl"], &UNFITTED[..20], &["a.pkl", "byte 20"]);
    let text = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n";
    let wanted = [
        "a.joblib: byte 0: the file is text that begins with \"version https://git-lfs",
        "joblib.dump",
    ];
    check("pointer", &["a.joblib"], text, &wanted);
    check("csv", &["a.pkl"], b"colour,size\n1,2\n", &["is text that begins with \"colour,size\""]);
    check(
        "protocol 0",
        &["a.pkl"],
        b"ccopy_reg\n_reconstr",
        &["a.pkl", "the file ends before the pickle does"],
    );
    let unknown = b"\x80\x02csklearn.new\nNewEstimator\n)\x81}b.";
    check("unknown", &["a.pkl"], unknown, &["a.pkl", "sklearn.new.NewEstimator", "not supported"]);
}
