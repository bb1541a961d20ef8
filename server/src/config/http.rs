//! Settings of the HTTP server and of what its answers contain.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arguments::whole;
use super::{Arguments, Environment, UsageError, small};
use crate::app::{CorsConfig, ServerConfig};
use crate::keys::KeyFile;
use crate::kserve::grpc::GrpcConfig;
use crate::kserve::{CloudEventConfig, KserveConfig};
use crate::tls::{ClientCertificates, Tls, TlsFiles};

/// KServe's port.
const PORT: u64 = 8080;
/// A day, in seconds: longer is a mistake.
const LONGEST: u64 = 86_400;

pub(super) fn http(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<ServerConfig, UsageError> {
    let defaults = ServerConfig::default();
    let on = |name, default| arguments.switch(name).unwrap_or(default);
    let seconds = |name| arguments.seconds(name, LONGEST);
    let openai = environment.raw("KSERVE_OPENAI_ROUTE_PREFIX").unwrap_or("/openai");
    let body = arguments.whole("max-body-bytes", 1, u64::from(u32::MAX))?;
    let header = arguments.whole("h11-max-incomplete-event-size", 8192, 1 << 20)?;
    let headers = arguments.whole("h11-max-header-count", 1, 4096)?;
    let unlogged = arguments.text("disable-access-log-for-endpoints").unwrap_or_default();
    let idle = arguments.whole("timeout-keep-alive", 1, LONGEST)?.map(Duration::from_secs);
    let write = arguments.whole("write-timeout", 1, LONGEST)?.map(Duration::from_secs);
    let default_max_tokens = arguments.whole("default-max-tokens", 1, u64::from(u32::MAX))?;
    let message = |name: &str| -> Result<usize, UsageError> {
        let bytes = arguments.whole(name, 1, u64::from(u32::MAX))?;
        Ok(bytes.map_or(64 << 20, |bytes| bytes as usize))
    };
    Ok(ServerConfig {
        host: host(arguments)?,
        port: port(arguments, environment)?,
        api_keys: api_keys(arguments, environment),
        api_key_file: api_key_file(arguments)?,
        admin_keys: arguments.list("admin-api-key"),
        tls: tls(arguments)?,
        metrics_need_key: on("metrics-need-key", defaults.metrics_need_key),
        cors: cors(arguments)?,
        body_limit: body.map_or(defaults.body_limit, |bytes| bytes as usize),
        max_header_bytes: header.map_or(defaults.max_header_bytes, |bytes| bytes as usize),
        max_headers: headers.map_or(defaults.max_headers, |count| count as usize),
        prefixes: Some(prefix(openai)).filter(|prefix| !prefix.is_empty()).into_iter().collect(),
        root_path: prefix(arguments.text("root-path").unwrap_or_default()),
        sse_keep_alive: seconds("sse-keep-alive-interval")?.unwrap_or(defaults.sse_keep_alive),
        keep_alive_timeout: idle.unwrap_or(defaults.keep_alive_timeout),
        write_timeout: write.unwrap_or(defaults.write_timeout),
        request_timeout: seconds("request-timeout")?,
        max_queued_requests: arguments.whole("max-num-queued-reqs", 1, u64::MAX)?,
        max_queued_tokens: arguments.whole("max-num-queued-tokens", 1, u64::MAX)?,
        drain_grace: seconds("shutdown-grace")?.unwrap_or(defaults.drain_grace),
        drain_timeout: seconds("shutdown-timeout")?.unwrap_or(defaults.drain_timeout),
        return_tokens_as_token_ids: on("return-tokens-as-token-ids", false),
        max_logprobs: match arguments.text("max-logprobs") {
            Some("-1") => None,
            _ => Some(small(arguments, "max-logprobs", 0, 20)?),
        },
        response_role: arguments.text("response-role").unwrap_or("assistant").to_owned(),
        chat_template_kwargs: arguments.object("default-chat-template-kwargs")?.unwrap_or_default(),
        trust_request_chat_template: on("trust-request-chat-template", false),
        default_max_tokens: default_max_tokens.map(|tokens| tokens as u32),
        force_include_usage: on("enable-force-include-usage", false),
        strict_params: on("strict-params", false),
        request_id_headers: on("enable-request-id-headers", true),
        docs: on("enable-docs-url", true) && !on("disable-fastapi-docs", false),
        tokenizer_info: on("enable-tokenizer-info-endpoint", false),
        access_log: on("access-log", true) && !on("disable-uvicorn-access-log", false),
        unlogged: unlogged
            .split(',')
            .map(str::trim)
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
        kserve: KserveConfig {
            strict: on("strict-kserve", false),
            grpc: GrpcConfig {
                port: None,
                max_receive: message("grpc-max-receive-message-length")?,
                max_send: message("grpc-max-send-message-length")?,
            },
            triton_metrics: on("triton-metrics", false),
            cloud_events: CloudEventConfig {
                merge: environment.is_true("CE_MERGE"),
                kind: environment.get("CE_TYPE").map(str::to_owned),
                source: environment.get("CE_SOURCE").map(str::to_owned),
            },
        },
    })
}

fn host(arguments: &Arguments) -> Result<String, UsageError> {
    let host = arguments.text("host").unwrap_or("0.0.0.0");
    let inner = host.trim_start_matches('[').trim_end_matches(']');
    if inner == "localhost" || inner.parse::<IpAddr>().is_ok() {
        return Ok(inner.to_owned());
    }
    let typed = arguments.typed("host");
    Err(UsageError(format!("{typed}: {host:?} is not an IP address (as 0.0.0.0, 127.0.0.1 or ::)")))
}

fn port(arguments: &Arguments, environment: &Environment) -> Result<u16, UsageError> {
    let max = u64::from(u16::MAX);
    let port = match arguments.whole("http-port", 0, max)? {
        Some(port) => port,
        None => match environment.first(&["HTTP_PORT", "PORT"]) {
            Some((name, text)) => whole(name, text, 0, max)?,
            None => PORT,
        },
    };
    Ok(u16::try_from(port).expect("bounded by u16::MAX"))
}

/// Keys of the flag; where there is neither flag nor file, the environment's.
fn api_keys(arguments: &Arguments, environment: &Environment) -> Vec<String> {
    let keys = arguments.list("api-key");
    if keys.is_empty() && arguments.text("api-key-file").is_none() {
        return environment.get("VLLM_API_KEY").map(str::to_owned).into_iter().collect();
    }
    keys
}

fn api_key_file(arguments: &Arguments) -> Result<Option<KeyFile>, UsageError> {
    let Some(path) = arguments.text("api-key-file") else { return Ok(None) };
    KeyFile::read(Path::new(path)).map(Some).map_err(|error| {
        UsageError(format!("{}: {path}: {error}", arguments.typed("api-key-file")))
    })
}

/// The files of TLS, read: a server that cannot use them does not start.
fn tls(arguments: &Arguments) -> Result<Option<Tls>, UsageError> {
    let path = |name| arguments.text(name).map(PathBuf::from);
    let needs = |name, other| Err(UsageError(format!("{} needs {other}", arguments.typed(name))));
    let clients = match arguments.whole("ssl-cert-reqs", 0, 2)? {
        None | Some(0) => ClientCertificates::Ignored,
        Some(1) => ClientCertificates::Optional,
        Some(_) => ClientCertificates::Required,
    };
    let authorities = path("ssl-ca-certs");
    let Some(certificate) = path("ssl-certfile") else {
        return match ["ssl-keyfile", "ssl-ca-certs"].iter().find(|name| path(name).is_some()) {
            Some(name) => needs(name, "--ssl-certfile"),
            None if clients != ClientCertificates::Ignored => {
                needs("ssl-cert-reqs", "--ssl-certfile")
            }
            None => Ok(None),
        };
    };
    match (clients, &authorities) {
        (ClientCertificates::Ignored, Some(_)) => {
            return needs(
                "ssl-ca-certs",
                "--ssl-cert-reqs 1 or 2: no certificate would be checked",
            );
        }
        (ClientCertificates::Optional | ClientCertificates::Required, None) => {
            return needs("ssl-cert-reqs", "--ssl-ca-certs");
        }
        _ => {}
    }
    let key = path("ssl-keyfile").unwrap_or_else(|| certificate.clone());
    let refresh = arguments.switch("enable-ssl-refresh").unwrap_or(false);
    Tls::load(TlsFiles { certificate, key, authorities, clients, refresh })
        .map(Some)
        .map_err(|error| UsageError(format!("{}: {error}", arguments.typed("ssl-certfile"))))
}

/// `/a/b` from any of `a/b`, `/a/b`, `/a/b/`; empty stays empty.
fn prefix(text: &str) -> String {
    let inner = text.trim().trim_matches('/');
    if inner.is_empty() { String::new() } else { format!("/{inner}") }
}

fn cors(arguments: &Arguments) -> Result<CorsConfig, UsageError> {
    let any = || vec!["*".to_owned()];
    Ok(CorsConfig {
        origins: arguments.texts("allowed-origins")?.unwrap_or_else(any),
        methods: arguments.texts("allowed-methods")?.unwrap_or_else(any),
        headers: arguments.texts("allowed-headers")?.unwrap_or_else(any),
        credentials: arguments.switch("allow-credentials").unwrap_or(false),
    })
}
