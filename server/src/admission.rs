//! Who may come in: keys, request ids, deadlines, and the limits of the queue.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, header};

use crate::app::App;
use crate::error::{ApiError, Cause};
use crate::random;

/// Longest request id taken over from a client.
const MAX_REQUEST_ID: usize = 256;

/// Whether an id can be echoed in a header and in JSON without surprises.
pub(crate) fn is_request_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the head of a request says, made before its body is read.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    pub(crate) id: String,
    /// The id came from the client's header.
    pub(crate) id_given: bool,
    pub(crate) arrival: Instant,
    pub(crate) timeout: Result<Option<Duration>, &'static str>,
    pub(crate) priority: Result<Option<i64>, &'static str>,
}

impl RequestContext {
    /// Reads `X-Request-Id`, `X-Request-Timeout-Ms` and `X-Vllm-Priority`.
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let given = text("x-request-id").filter(|id| is_request_id(id));
        let parse_timeout = |text: &str| match text.trim().parse::<u64>() {
            Ok(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
            _ => Err("X-Request-Timeout-Ms: expected milliseconds, a whole number above 0"),
        };
        let parse_priority = |text: &str| {
            text.trim().parse().map_err(|_| "X-Vllm-Priority: expected a 64-bit integer")
        };
        Self {
            id: given.map_or_else(random::id, str::to_owned),
            id_given: given.is_some(),
            arrival: Instant::now(),
            timeout: text("x-request-timeout-ms").map(parse_timeout).transpose(),
            priority: text("x-vllm-priority").map(parse_priority).transpose(),
        }
    }

    /// The deadline of the header, else `field`, else the server's default.
    ///
    /// # Errors
    /// When the header is no number.
    pub(crate) fn timeout(
        &self,
        field: Option<Duration>,
        default: Option<Duration>,
    ) -> Result<Option<Duration>, ApiError> {
        let header = self.timeout.map_err(ApiError::bad_request)?;
        Ok(header.or(field).or(default))
    }

    /// The priority of the header.
    ///
    /// # Errors
    /// When it is no number.
    pub(crate) fn priority(&self) -> Result<Option<i64>, ApiError> {
        self.priority.map_err(ApiError::bad_request)
    }
}

/// Equality in a time that depends on the presented key alone.
fn equals(secret: &[u8], presented: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != presented.len());
    for (index, byte) in presented.iter().enumerate() {
        difference |= byte ^ secret.get(index).copied().unwrap_or(0);
    }
    black_box(difference) == 0
}

/// Whether a path can be asked without a key.
fn is_open(path: &str, metrics_need_key: bool) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/ping")
        || matches!(path, "/" | "/v2/health/live" | "/v2/health/ready")
        || (path == "/metrics" && !metrics_need_key)
}

/// Whether a path (of HTTP or gRPC) changes which models are served.
fn is_admin(path: &str) -> bool {
    let http = path.strip_prefix("/v2/repository/models/").map(|rest| rest.trim_end_matches('/'));
    http.is_some_and(|rest| rest.ends_with("/load") || rest.ends_with("/unload"))
        || path.ends_with("/RepositoryModelLoad")
        || path.ends_with("/RepositoryModelUnload")
}

/// Checks the key of a request.
///
/// # Errors
/// 401 without a valid key where one is needed.
pub(crate) fn authorize(
    app: &App,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let (keys, admin) = (app.keys.current(), &app.config.admin_keys);
    let admin_only = !admin.is_empty() && is_admin(path);
    if (keys.is_empty() && !admin_only)
        || method == Method::OPTIONS
        || is_open(path, app.config.metrics_need_key)
    {
        return Ok(());
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    let presented = bearer.or_else(|| Some(headers.get("x-api-key")?.as_bytes()));
    let presented = presented.ok_or_else(ApiError::unauthorized)?;
    // Every key is compared, so that the time does not tell which one was close.
    let keys = keys.iter().filter(|_| !admin_only).chain(admin);
    let matches = keys.fold(false, |found, key| found | equals(key.as_bytes(), presented));
    if matches { Ok(()) } else { Err(ApiError::unauthorized()) }
}

/// The token of `Bearer TOKEN`, the scheme in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Requests and prompt tokens that are in the house.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    requests: AtomicU64,
    tokens: AtomicU64,
}

/// A place in the queue, returned on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    app: Arc<App>,
    requests: u64,
    tokens: u64,
}

impl Permit {
    /// Takes places for `sequences` sequences of `tokens` prompt tokens altogether.
    ///
    /// # Errors
    /// 503 when a limit is reached, or the server stops.
    pub(crate) fn take(app: &Arc<App>, sequences: u64, tokens: u64) -> Result<Self, ApiError> {
        if app.is_draining() {
            return Err(ApiError::draining());
        }
        let queue = &app.queue;
        let requests_before = queue.requests.fetch_add(sequences, AcqRel);
        let tokens_before = queue.tokens.fetch_add(tokens, AcqRel);
        let permit = Self { app: Arc::clone(app), requests: sequences, tokens };
        let checks = [
            (requests_before, sequences, app.config.max_queued_requests, "sequences are in flight"),
            (tokens_before, tokens, app.config.max_queued_tokens, "prompt tokens wait for prefill"),
        ];
        for (index, (before, wanted, limit, what)) in checks.into_iter().enumerate() {
            if let Some(limit) = limit.filter(|&limit| before.saturating_add(wanted) > limit) {
                app.metrics.queue_rejections[index].fetch_add(1, Relaxed);
                let message = format!(
                    "{before} {what}, {wanted} more would pass the limit of {limit}: try again later."
                );
                return Err(ApiError::unavailable(Cause::QueueFull, message));
            }
        }
        Ok(permit)
    }

    /// Every prompt was computed: its tokens no longer count as queued.
    pub(crate) fn prefill_done(&mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        if tokens > 0 {
            self.app.queue.tokens.fetch_sub(tokens, AcqRel);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.prefill_done();
        self.app.queue.requests.fetch_sub(self.requests, AcqRel);
    }
}

impl Queue {
    /// Sequences in the house.
    pub(crate) fn sequences(&self) -> u64 {
        self.requests.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_only_when_every_byte_is() {
        for (secret, presented, want) in [
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("abc", "ab", false),
            ("ab", "ab\0", false),
            ("", "", true),
        ] {
            assert_eq!(equals(secret.as_bytes(), presented.as_bytes()), want, "{presented:?}");
        }
    }

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        assert_eq!(bearer(b"Bearer abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b""), None);
    }
}
