//! Repositories behind `git http-backend`, with and without a password.

use std::io::Write;
use std::process::Command as Program;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::StatusCode as Code;
use axum::response::{IntoResponse, Response};
use base64::Engine;

use super::*;
use crate::config::storage::Secret;
use crate::storage::loopback::{Asked, Loopback, status};

fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("tokenmill-git-{}-{number}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// Whether the program and its server are here; without them, only that it is missed can be tested.
fn is_here() -> bool {
    let Ok(path) = Program::new(PROGRAM).arg("--exec-path").output() else { return false };
    let path = String::from_utf8(path.stdout).unwrap();
    let here = Path::new(path.trim()).join("git-http-backend").exists();
    if !here {
        println!("skipped: no git http-backend");
    }
    here
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = Program::new(PROGRAM)
        .current_dir(directory)
        .args(["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A bare repository `model.git` whose last commit is what `make` leaves.
fn repository(make: impl Fn(&Path)) -> PathBuf {
    let root = directory();
    let work = root.join("work");
    fs::create_dir(&work).unwrap();
    git(&work, &["init", "--quiet"]);
    for commit in ["first", "second"] {
        fs::write(work.join("commit"), commit).unwrap();
        make(&work);
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--message", commit]);
    }
    git(&root, &["clone", "--quiet", "--bare", "work", "model.git"]);
    root
}

/// What `git http-backend`, a CGI program, answers.
fn backend(root: &Path, asked: &Asked) -> Response {
    let mut child = Program::new(PROGRAM)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", asked.header("git-protocol").unwrap_or_default())
        .env("REQUEST_METHOD", asked.method.as_str())
        .env("PATH_INFO", &asked.path)
        .env("QUERY_STRING", &asked.query)
        .env("CONTENT_TYPE", asked.header("content-type").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&asked.body).unwrap();
    let output = child.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(output[..end].to_vec()).unwrap();
    let mut answer = output[end + 4..].to_vec().into_response();
    for line in head.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name == "Status" {
            *answer.status_mut() = value[..3].parse::<u16>().unwrap().try_into().unwrap();
        } else {
            let name: axum::http::HeaderName = name.parse().unwrap();
            answer.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    answer
}

fn open(host: &str, user: &str, settings: &GitSettings) -> Repository {
    let address = format!("http://{user}{host}/model.git");
    Repository::new("https://x/model.git", &address, settings).unwrap()
}

async fn clone(repository: &Repository) -> Result<PathBuf, StorageError> {
    let version = repository.version().await?;
    assert!(version.len() == 40, "{version}");
    let tree = directory();
    repository.write(&version, &tree, &|_, _| {}).await?;
    Ok(tree)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_commit_comes_without_its_history() {
    if !is_here() {
        return;
    }
    let root = repository(|work| {
        fs::create_dir_all(work.join("a b")).unwrap();
        fs::write(work.join("a b/x"), "x").unwrap();
        let _ = std::os::unix::fs::symlink("a b/x", work.join("link"));
    });
    let server = Loopback::start(move |asked| backend(&root, asked)).await;
    let tree = clone(&open(&server.host, "", &GitSettings::default())).await.unwrap();
    assert_eq!(fs::read_to_string(tree.join("commit")).unwrap(), "second");
    assert_eq!(fs::read_to_string(tree.join("link")).unwrap(), "x");
    assert!(!tree.join(".git").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_shown_to_their_host_alone() {
    if !is_here() {
        return;
    }
    let root = repository(|_| {});
    let guarded = move |asked: &Asked| {
        let pair = base64::engine::general_purpose::STANDARD.encode("me:pass word$(x)'\"");
        if asked.header("authorization") == Some(&format!("Basic {pair}")) {
            return backend(&root, asked);
        }
        (Code::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"r\"")]).into_response()
    };
    let server = Loopback::start(guarded).await;
    let secret = |text: &str| Some(Secret(text.to_owned()));
    let right =
        GitSettings { username: Some("me".to_owned()), password: secret("pass word$(x)'\"") };
    clone(&open(&server.host, "", &right)).await.unwrap();
    let of_address = GitSettings { username: Some("not".to_owned()), ..right.clone() };
    clone(&open(&server.host, "me:ignored@", &of_address)).await.unwrap();
    for settings in [
        GitSettings::default(),
        GitSettings { username: Some("me".to_owned()), password: secret("wrong") },
    ] {
        let error = clone(&open(&server.host, "", &settings)).await.unwrap_err();
        assert!(matches!(error, StorageError::Unauthorized { .. }), "{error}");
        assert!(error.to_string().contains("GIT_PASSWORD"), "{error}");
    }
    // Another host that wants a password gets none.
    let host = server.host.clone();
    let other = Loopback::start(move |asked| {
        let to = format!("http://{host}{}?{}", asked.path, asked.query);
        (Code::FOUND, [("location", to)]).into_response()
    })
    .await;
    let before = server.seen("").len();
    assert!(clone(&open(&other.host, "", &right)).await.is_err());
    let shown = server.seen("");
    assert!(shown.len() > before);
    assert!(shown[before..].iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_told() {
    if !is_here() {
        return;
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    type Make = fn(&Path);
    let cases: &[(Make, &str)] = &[
        (
            |work| drop(std::os::unix::fs::symlink("/etc/passwd", work.join("l"))),
            "l is a link that leads out",
        ),
        (
            |work| drop(std::os::unix::fs::symlink("../x", work.join("l"))),
            "l is a link that leads out",
        ),
    ];
    for (make, part) in cases {
        let root = repository(make);
        let server = Loopback::start(move |asked| backend(&root, asked)).await;
        let error =
            clone(&open(&server.host, "", &GitSettings::default())).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    let root = repository(move |work| fs::write(work.join("w.bin"), pointer).unwrap());
    let server = Loopback::start(move |asked| backend(&root, asked)).await;
    let error =
        clone(&open(&server.host, "", &GitSettings::default())).await.unwrap_err().to_string();
    assert!(error.contains("w.bin is a pointer of Git LFS"), "{error}");

    let server = Loopback::start(|_| status(404)).await;
    let error = clone(&open(&server.host, "", &GitSettings::default())).await.unwrap_err();
    assert!(matches!(error, StorageError::NotFound { .. }), "{error}");
    let error = clone(&open("127.0.0.1:1", "", &GitSettings::default())).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn the_program_is_told_no_secrets_in_words() {
    let settings = GitSettings {
        username: Some("me".to_owned()),
        password: Some(Secret("secret".to_owned())),
    };
    let repository = open("h:1", "you:word@", &settings);
    assert_eq!(repository.url.as_str(), "http://h:1/model.git");
    let command = repository.command();
    let words: Vec<_> = command.as_std().get_args().map(|word| word.to_string_lossy()).collect();
    assert!(
        words.iter().any(|word| word.starts_with("credential.http://h:1.helper=")),
        "{words:?}"
    );
    assert!(
        !words.iter().any(|word| word.contains("secret") || word.contains("word@")),
        "{words:?}"
    );
    let lines = GitSettings { username: Some("a\nb".to_owned()), password: None };
    let error = Repository::new("u", "https://h/x.git", &lines).err().expect("two lines");
    assert!(error.to_string().starts_with("GIT_USERNAME"), "{error}");
}
