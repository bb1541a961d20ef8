//! TLS over real sockets: certificates of both sides, clear text on the port, files that change.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokenmill::keys::KeyFile;
use tokenmill::kserve::grpc;
use tokenmill::lifecycle::{Outcome, bind, serve};
use tokenmill::tls::{ClientCertificates, Tls, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Server, Setup, chat_body};

fn file(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls")).join(name)
}

fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file(name)).expect("a certificate of the tests")
}

fn files(directory: &Path, clients: ClientCertificates) -> TlsFiles {
    TlsFiles {
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
        authorities: Some(file("authority.pem")),
        clients,
        refresh: false,
    }
}

/// A listening server.
struct Live {
    address: std::net::SocketAddr,
    grpc: Option<std::net::SocketAddr>,
    stop: mpsc::Sender<()>,
    ended: JoinHandle<Outcome>,
}

async fn start(mut setup: Setup, files: TlsFiles) -> Live {
    setup.config.tls = Some(Tls::load(files).expect("files of the tests"));
    let server = Server::new(setup);
    let listener = bind(&server.app).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let second = grpc::bind(&server.app).await.expect("a free port");
    let grpc = second.as_ref().map(|listener| listener.local_addr().expect("bound"));
    let (stop, receiver) = mpsc::channel(4);
    let ended = tokio::spawn(serve(server.app.clone(), listener, second, receiver));
    Live { address, grpc, stop, ended }
}

/// Connects, with the certificate of this name if there is one.
async fn connect(
    address: std::net::SocketAddr,
    inside: &str,
    own: Option<&str>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate("authority.pem")).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).expect("a key");
            let chain = vec![certificate(&format!("{name}.pem"))];
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    };
    config.alpn_protocols = vec![inside.as_bytes().to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

/// Sends a request and reads until `end`.
async fn ask(
    stream: &mut TlsStream<TcpStream>,
    request: &str,
    end: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
        let text = String::from_utf8_lossy(&bytes);
        if text.contains(end) {
            return Ok(text.into_owned());
        }
    }
}

fn get(path: &str, key: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n")
}

fn peer(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().expect("the server has one")[0].clone().into_owned()
}

#[tokio::test]
async fn streams_come_over_tls_and_clear_text_does_not() {
    let mut setup = Setup::default();
    setup.config.kserve.grpc.port = Some(0);
    let live = start(setup, files(&file(""), ClientCertificates::Ignored)).await;
    let mut stream = connect(live.address, "http/1.1", None).await.expect("an open port");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let body = chat_body(json!({"stream": true})).to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let text = ask(&mut stream, &request, "[DONE]").await.expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");

    let mut clear = TcpStream::connect(live.address).await.expect("an open port");
    clear.write_all(get("/health", "").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    // One that says nothing holds nobody.
    let _silent = TcpStream::connect(live.address).await.expect("an open port");

    let grpc = live.grpc.expect("asked for");
    let _silent_too = TcpStream::connect(grpc).await.expect("an open port");
    let mut http2 = connect(grpc, "h2", None).await.expect("an open port");
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    let mut frame = [0; 9];
    http2.read_exact(&mut frame).await.expect("a frame");
    assert_eq!(frame[3], 4, "the server's settings come first: {frame:?}");
    drop((http2, stream));

    live.stop.send(()).await.expect("it runs");
    assert_eq!(live.ended.await.expect("no panic"), Outcome::Drained);
}

#[tokio::test]
async fn clients_show_certificates_where_they_must() {
    for (clients, own, welcome) in [
        (ClientCertificates::Required, Some("client"), true),
        (ClientCertificates::Required, Some("stranger"), false),
        (ClientCertificates::Required, None, false),
        (ClientCertificates::Optional, Some("client"), true),
        (ClientCertificates::Optional, Some("stranger"), false),
        (ClientCertificates::Optional, None, true),
        (ClientCertificates::Ignored, Some("stranger"), true),
    ] {
        let live = start(Setup::default(), files(&file(""), clients)).await;
        // In TLS 1.3 the client learns of a refusal with its first read.
        let answer = match connect(live.address, "http/1.1", own).await {
            Ok(mut stream) => ask(&mut stream, &get("/version", ""), "version").await,
            Err(error) => Err(error),
        };
        assert_eq!(answer.is_ok(), welcome, "{clients:?} {own:?}: {answer:?}");
    }
}

#[tokio::test]
async fn files_are_read_again_on_a_signal() {
    let directory = std::env::temp_dir().join(format!("tokenmill-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let put = |name: &str| {
        for end in ["pem", "key"] {
            let to = directory.join(format!("server.{end}"));
            std::fs::copy(file(&format!("{name}.{end}")), to).expect("a copy");
        }
    };
    put("server");
    let keys = directory.join("keys");
    std::fs::write(&keys, "old\n").expect("written");
    let mut setup = Setup::default();
    setup.config.api_key_file = Some(KeyFile::read(&keys).expect("a key"));
    let live = start(setup, files(&directory, ClientCertificates::Ignored)).await;
    let mut first = connect(live.address, "http/1.1", None).await.expect("an open port");
    assert_eq!(peer(&first), certificate("server.pem"));
    let ok = |text: String| text.starts_with("HTTP/1.1 200");
    assert!(ok(ask(&mut first, &get("/version", "old"), "}").await.expect("an answer")));

    let hang_up = || {
        let pid = std::process::id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("kill").success());
    };
    put("second");
    std::fs::write(&keys, "new\n").expect("written");
    hang_up();
    let mut tries = 0..500;
    loop {
        let mut fresh = connect(live.address, "http/1.1", None).await.expect("an open port");
        if peer(&fresh) == certificate("second.pem") {
            assert!(ok(ask(&mut fresh, &get("/version", "new"), "}").await.expect("an answer")));
            assert!(!ok(ask(&mut fresh, &get("/version", "old"), "}").await.expect("an answer")));
            break;
        }
        tries.next().expect("the files are read again");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // What was open goes on; what cannot be used changes nothing.
    assert!(ok(ask(&mut first, &get("/version", "new"), "}").await.expect("an answer")));
    std::fs::write(directory.join("server.key"), "no key").expect("written");
    std::fs::write(&keys, "\n").expect("written");
    hang_up();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let mut fresh = connect(live.address, "http/1.1", None).await.expect("an open port");
    assert_eq!(peer(&fresh), certificate("second.pem"));
    assert!(ok(ask(&mut fresh, &get("/version", "new"), "}").await.expect("an answer")));
    std::fs::remove_dir_all(&directory).expect("it was made above");
}
