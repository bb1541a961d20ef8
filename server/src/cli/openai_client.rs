//! A small client of OpenAI-compatible servers, for `chat` and `bench`: requests whose answers stream.

use std::time::Duration;

use reqwest::header;
use serde_json::Value;

/// Characters of a foreign error text that are shown.
const SHOWN: usize = 400;

/// Why a request got no complete answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No connection, or one that broke.
    #[error("{url}: {reason}")]
    Network {
        /// What was asked.
        url: String,
        /// Every cause, outermost first.
        reason: String,
    },
    /// The server refused.
    #[error("{status}: {message}")]
    Status {
        /// Status code.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// An error inside the stream.
    #[error("the stream ended with an error: {0}")]
    Event(String),
    /// The stream ended before its last event.
    #[error("the stream was cut before its end")]
    Cut,
    /// An answer that is not what such servers send.
    #[error("{url}: unexpected answer: {reason}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A server and the key for it.
#[derive(Clone, Debug)]
pub(super) struct OpenAiClient {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

impl OpenAiClient {
    /// A client of the server at `url`, with or without `/v1` at its end.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(super) fn new(url: &str, key: Option<String>) -> Result<Self, ClientError> {
        crate::outgoing::use_ring();
        let trimmed = url.trim_end_matches('/');
        let scheme = if trimmed.contains("://") { "" } else { "http://" };
        let version = if trimmed.ends_with("/v1") { "" } else { "/v1" };
        let base = format!("{scheme}{trimmed}{version}");
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(usize::MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| network(&base, &error))?;
        Ok(Self { http, base, key })
    }

    /// The address that requests go to.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The first model that the server lists.
    ///
    /// # Errors
    /// When there is none, or no answer.
    pub(super) async fn first_model(&self) -> Result<String, ClientError> {
        let url = format!("{}/models", self.base);
        let answer = self.send(self.http.get(&url), &url).await?;
        let body = answer.bytes().await.map_err(|error| network(&url, &error))?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        match list["data"][0]["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(ClientError::Malformed { url, reason: "no model is listed".to_owned() }),
        }
    }

    /// Posts `body` to a route below `/v1` and hands over each event of the streamed answer.
    ///
    /// # Errors
    /// When the answer is refused, broken or cut.
    pub(super) async fn stream(
        &self,
        route: &str,
        body: &Value,
        mut on_event: impl FnMut(&Value),
    ) -> Result<(), ClientError> {
        let url = format!("{}/{route}", self.base);
        let request = self
            .http
            .post(&url)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream")
            .body(body.to_string());
        let mut answer = self.send(request, &url).await?;
        let mut events = EventLines::default();
        while let Some(bytes) = answer.chunk().await.map_err(|error| network(&url, &error))? {
            for data in events.push(&bytes) {
                if data == "[DONE]" {
                    return Ok(());
                }
                let event: Value = serde_json::from_str(&data).map_err(|error| {
                    ClientError::Malformed { url: url.clone(), reason: error.to_string() }
                })?;
                if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
                    return Err(ClientError::Event(message(error)));
                }
                on_event(&event);
            }
        }
        Err(ClientError::Cut)
    }

    async fn send(
        &self,
        mut request: reqwest::RequestBuilder,
        url: &str,
    ) -> Result<reqwest::Response, ClientError> {
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(|error| network(url, &error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap_or_default();
        let parsed: Value = serde_json::from_str(&text).unwrap_or_default();
        let message = match parsed.get("error") {
            Some(error) => message(error),
            None => shown(&text),
        };
        Err(ClientError::Status { status, message })
    }
}

/// The text of an event's first choice: of a chat delta (reasoning included) or of a completion.
pub(super) fn event_text(event: &Value) -> String {
    let choice = &event["choices"][0];
    let delta = &choice["delta"];
    let parts =
        [&delta["reasoning_content"], &delta["reasoning"], &delta["content"], &choice["text"]];
    parts.into_iter().filter_map(Value::as_str).collect()
}

/// The data of events, from bytes that are cut anywhere.
#[derive(Debug, Default)]
struct EventLines {
    rest: Vec<u8>,
}

impl EventLines {
    /// The data of every line that ends in `bytes`.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let data = |line: &[u8]| {
            let data = line.strip_prefix(b"data:")?;
            Some(String::from_utf8_lossy(data).trim().to_owned())
        };
        whole.split(|&byte| byte == b'\n').filter_map(data).collect()
    }
}

fn message(error: &Value) -> String {
    let text = error.as_str().or_else(|| error["message"].as_str());
    text.map_or_else(|| shown(&error.to_string()), shown)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\n').take(SHOWN).collect()
}

fn network(url: &str, error: &reqwest::Error) -> ClientError {
    let reason = crate::outgoing::causes(error);
    ClientError::Network { url: url.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let text = ": note\r\ndata: {\"a\":\"\u{e9}\"}\r\n\r\nevent: x\ndata:[DONE]\n\n";
        for cut in 0..text.len() {
            let mut lines = EventLines::default();
            let mut found = lines.push(&text.as_bytes()[..cut]);
            found.extend(lines.push(&text.as_bytes()[cut..]));
            assert_eq!(found, ["{\"a\":\"\u{e9}\"}", "[DONE]"], "cut at {cut}");
        }
    }

    #[test]
    fn the_address_is_completed() {
        for (url, want) in [
            ("localhost:8080", "http://localhost:8080/v1"),
            ("http://a/", "http://a/v1"),
            ("https://a/openai/v1/", "https://a/openai/v1"),
        ] {
            assert_eq!(OpenAiClient::new(url, None).expect(url).base(), want);
        }
    }

    #[test]
    fn text_of_chat_and_completions() {
        let chat = serde_json::json!({"choices": [{"delta": {"content": "a"}}]});
        let completion = serde_json::json!({"choices": [{"text": "b"}]});
        let usage = serde_json::json!({"choices": []});
        assert_eq!(
            [event_text(&chat), event_text(&completion), event_text(&usage)],
            ["a", "b", ""]
        );
    }
}
