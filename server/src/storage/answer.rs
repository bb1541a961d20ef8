//! What every source that speaks HTTP shares: one request, its status, a bounded body, or the bytes as they come.

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::{Protocol, StorageError};

/// Most bytes of an answer that is not a file.
const LARGEST: usize = 64 << 20;
/// Most bytes of an answer that says why not.
const LARGEST_REFUSAL: usize = 64 << 10;

/// Who is asked, and how its answers are told about.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    /// The address without secrets.
    pub(super) uri: String,
    /// What the body of a refusal says.
    pub(super) explain: fn(&str) -> Option<String>,
}

impl Asked {
    /// The answer to a request, when its status is a success.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, StorageError> {
        let answer = request.send().await.map_err(|error| self.network(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
    }

    /// What an answer that is no success means.
    pub(super) async fn refusal(&self, answer: Response) -> StorageError {
        let status = answer.status().as_u16();
        let body = self.body(answer, LARGEST_REFUSAL).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let detail = (self.explain)(&text).unwrap_or_else(|| text.trim().to_owned());
        StorageError::of_status(self.protocol, &self.uri, status, &detail)
    }

    /// The body of an answer that is not a file.
    pub(super) async fn bytes(&self, answer: Response) -> Result<Vec<u8>, StorageError> {
        self.body(answer, LARGEST).await
    }

    /// The same, read as JSON.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        answer: Response,
    ) -> Result<T, StorageError> {
        let body = self.bytes(answer).await?;
        serde_json::from_slice(&body).map_err(|error| self.malformed(error.to_string()))
    }

    /// The bytes of a file as they come. An answer that ends before its announced length is an error.
    pub(super) fn stream(
        &self,
        answer: Response,
    ) -> BoxStream<'static, Result<Bytes, StorageError>> {
        let asked = self.clone();
        answer.bytes_stream().map(move |bytes| bytes.map_err(|error| asked.network(&error))).boxed()
    }

    pub(super) fn network(&self, error: &reqwest::Error) -> StorageError {
        StorageError::network(self.protocol, &self.uri, error)
    }

    pub(super) fn malformed(&self, reason: impl Into<String>) -> StorageError {
        StorageError::malformed(self.protocol, &self.uri, reason)
    }

    async fn body(&self, mut answer: Response, most: usize) -> Result<Vec<u8>, StorageError> {
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(|error| self.network(&error))? {
            if body.len() + bytes.len() > most {
                return Err(self.malformed(format!("an answer of more than {most} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }
}

/// What an address has as it is, in a part of a path or of a query.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same in a whole path.
const PATH: &AsciiSet = &PART.remove(b'/');

/// A part of a path or of a query as an address has it.
pub(super) fn escaped(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

/// A path as an address has it.
pub(super) fn escaped_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}
