//! What every outgoing HTTP client shares: the TLS implementation and the text of errors.

/// Makes `ring` the process's TLS implementation; done before the first HTTPS client is built.
pub(crate) fn use_ring() {
    // An error says that another one was installed before, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Why a request failed, without the address (our errors name it first): the causes, outermost first.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// Whether an answer goes on at byte `start`.
pub(crate) fn continues(answer: &reqwest::Response, start: u64) -> bool {
    let range =
        answer.headers().get(reqwest::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    answer.status() == reqwest::StatusCode::PARTIAL_CONTENT
        && range.is_some_and(|range| range.trim_start().starts_with(&format!("bytes {start}-")))
}
