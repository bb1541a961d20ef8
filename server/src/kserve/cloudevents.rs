//! CloudEvents around V1: attributes in headers, or an envelope around the body.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use crate::body::write_json;
use crate::random;

/// Attributes of answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudEventConfig {
    /// Attributes of the request are copied (`CE_MERGE`).
    pub merge: bool,
    /// `ce-type` (`CE_TYPE`).
    pub kind: Option<String>,
    /// `ce-source` (`CE_SOURCE`).
    pub source: Option<String>,
}

/// Attributes without which there is no event.
const MANDATORY: [&str; 4] = ["specversion", "id", "source", "type"];

/// The event that a request came as.
#[derive(Debug)]
pub(super) struct Event {
    attributes: Map<String, Value>,
    structured: bool,
}

impl Event {
    /// The event of a request and what the body says besides it; `None` for plain requests.
    ///
    /// # Errors
    /// When an envelope is not one.
    pub(super) fn read(headers: &HeaderMap, body: Bytes) -> Result<(Option<Self>, Bytes), Failure> {
        let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let structured = media.is_some_and(|media| {
            media.trim_start().to_ascii_lowercase().starts_with("application/cloudevents+json")
        });
        if structured {
            let (event, data) = Self::of_envelope(&body)?;
            return Ok((Some(event), data));
        }
        Ok((Self::of_headers(headers), body))
    }

    fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut attributes = Map::new();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
            attributes.insert(name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into());
        }
        let whole = MANDATORY.iter().all(|name| attributes.contains_key(*name));
        whole.then_some(Self { attributes, structured: false })
    }

    fn of_envelope(body: &[u8]) -> Result<(Self, Bytes), Failure> {
        let unrecognized = |why: String| {
            Failure::invalid(format!("Unrecognized request format: CloudEvent: {why}"))
        };
        let mut envelope: std::collections::BTreeMap<String, &RawValue> =
            serde_json::from_slice(body).map_err(|error| unrecognized(error.to_string()))?;
        let data = envelope.remove("data").ok_or_else(|| unrecognized("it has no data".into()))?;
        let mut attributes = Map::new();
        for (name, value) in envelope {
            let value = serde_json::from_str(value.get());
            attributes.insert(name, value.map_err(|error| unrecognized(error.to_string()))?);
        }
        if let Some(missing) = MANDATORY.iter().find(|name| !attributes.contains_key(**name)) {
            return Err(unrecognized(format!("the attribute {missing} is missing")));
        }
        let data = Bytes::copy_from_slice(data.get().as_bytes());
        Ok((Self { attributes, structured: true }, data))
    }

    /// The answer `body` as an event.
    pub(super) fn answer(self, config: &CloudEventConfig, model: &str, body: Bytes) -> Response {
        let mut attributes = if config.merge { self.attributes } else { Map::new() };
        for (name, value) in [
            ("specversion", json!("1.0")),
            ("id", random::uuid().into()),
            ("source", config.source.clone().unwrap_or_else(|| source(model)).into()),
            ("type", config.kind.as_deref().unwrap_or("io.kserve.inference.response").into()),
            ("time", now().into()),
        ] {
            attributes.insert(name.to_owned(), value);
        }
        attributes.remove("datacontenttype");
        if self.structured {
            let mut out = BytesMut::with_capacity(body.len() + 256);
            write_json(&mut out, &attributes);
            out.truncate(out.len() - 1);
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(&body);
            out.extend_from_slice(b"}");
            let media = "application/cloudevents+json";
            return ([(header::CONTENT_TYPE, media)], out.freeze()).into_response();
        }
        let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
        for (name, value) in &attributes {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let name = HeaderName::try_from(format!("ce-{name}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&text)) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn source(model: &str) -> String {
    format!("io.kserve.inference.{model}")
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(now.as_secs(), now.subsec_micros())
}

/// Seconds since the epoch as RFC 3339, in UTC.
fn timestamp(seconds: u64, micros: u32) -> String {
    // Days from civil, backwards: years begin in March, so that the leap day is their last.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000007+00:00"),
            (951_782_400, "2000-02-29T00:00:00.000007+00:00"),
            (1_764_071_999, "2025-11-25T11:59:59.000007+00:00"),
            (4_107_542_400, "2100-03-01T00:00:00.000007+00:00"),
        ] {
            assert_eq!(timestamp(seconds, 7), want);
        }
    }
}
