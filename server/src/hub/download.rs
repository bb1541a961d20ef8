//! One file: resumed where it was cut, checked against the hub's checksum, moved into place whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use reqwest::StatusCode;

use super::cache::{RepositoryCache, is_name, make_parent};
use super::client::{HubClient, TRIES};
use super::files::RemoteFile;
use super::{HubError, HubId};
use crate::outgoing::continues;

/// A content that is not complete yet, locked against other processes.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
}

impl HubClient {
    /// Brings one file into the cache and links it.
    pub(super) async fn file(
        &self,
        id: &HubId,
        cache: &RepositoryCache,
        commit: &str,
        file: &RemoteFile,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HubError> {
        let path: Vec<String> = file.path.split('/').map(escape).collect();
        let endpoint = &self.config.endpoint;
        let url = format!("{endpoint}/{}/resolve/{commit}/{}", id.repository(), path.join("/"));
        let etag = match &file.etag {
            Some(etag) => etag.clone(),
            None => self.etag(id, &url, &file.path).await?,
        };
        let blob = cache.blob(&etag);
        if !blob.exists() {
            let mut part = open_part(&blob).await?;
            if blob.exists() {
                // Another process finished it while we waited for its lock.
                let _ = fs::remove_file(&part.path);
            } else {
                self.fill(id, &url, file, &mut part, advance).await?;
                finish(file, part, &blob).await?;
                return cache.link(commit, &file.path, &etag);
            }
        }
        advance(file.size.unwrap_or(0));
        cache.link(commit, &file.path, &etag)
    }

    /// The checksum of a file that the listing gave none for.
    async fn etag(&self, id: &HubId, url: &str, path: &str) -> Result<String, HubError> {
        let answer = self.with_tries(TRIES, || self.get(url, Some(0), id, path.to_owned())).await?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let raw = header("x-linked-etag").or_else(|| header("etag")).unwrap_or_default();
        let etag = raw.trim_start_matches("W/").trim_matches('"').to_owned();
        let malformed = || HubError::Malformed {
            url: url.to_owned(),
            reason: format!("{raw:?} is no usable ETag"),
        };
        if is_name(&etag) { Ok(etag) } else { Err(malformed()) }
    }

    /// Downloads until the content is complete; only tries without a new byte count.
    async fn fill(
        &self,
        id: &HubId,
        url: &str,
        file: &RemoteFile,
        part: &mut Part,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HubError> {
        advance(part.length);
        let mut tried = 0;
        loop {
            if file.size == Some(part.length) && part.length > 0 {
                return Ok(());
            }
            let before = part.length;
            let error = match self.append(id, url, file, part, advance).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            tried = if part.length > before { 1 } else { tried + 1 };
            if !error.is_transient() || tried >= TRIES {
                return Err(error);
            }
            self.wait(tried, &error).await;
        }
    }

    /// One request for the rest of a content.
    async fn append(
        &self,
        id: &HubId,
        url: &str,
        file: &RemoteFile,
        part: &mut Part,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(), HubError> {
        let from = Some(part.length).filter(|&length| length > 0);
        let what = format!("{} in {}", file.path, id.repository());
        let mut answer = self.get(url, from, id, what).await?;
        if from.is_some() && !continues(&answer, part.length) {
            // The server starts over (200), or our part is longer than the content (416).
            advance(0u64.wrapping_sub(part.length));
            part.restart()?;
            if answer.status() != StatusCode::OK {
                let what = format!("{} in {}", file.path, id.repository());
                answer = self.get(url, None, id, what).await?;
            }
        }
        let announced = answer.content_length().and_then(|rest| part.length.checked_add(rest));
        loop {
            match answer.chunk().await {
                Ok(Some(bytes)) => {
                    part.file.write_all(&bytes).map_err(HubError::io(&part.path))?;
                    part.length += bytes.len() as u64;
                    advance(bytes.len() as u64);
                }
                Ok(None) => break,
                Err(error) => return Err(HubError::network(url, &error)),
            }
        }
        match file.size.or(announced) {
            Some(size) if size != part.length => {
                let reason = format!("got {} of {size} bytes", part.length);
                if part.length > size {
                    part.restart()?;
                }
                Err(HubError::Network { url: url.to_owned(), reason })
            }
            _ => Ok(()),
        }
    }
}

impl Part {
    fn restart(&mut self) -> Result<(), HubError> {
        self.length = 0;
        self.file.set_len(0).map_err(HubError::io(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(HubError::io(&self.path))?;
        Ok(())
    }
}

/// Opens what there is of a content, waiting while another process downloads it.
async fn open_part(blob: &Path) -> Result<Part, HubError> {
    make_parent(blob)?;
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    let path = PathBuf::from(name);
    let opened = path.clone();
    let open = move || {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&opened)?;
        file.lock()?;
        Ok(file)
    };
    let result = match tokio::task::spawn_blocking(open).await {
        Ok(result) => result,
        Err(panic) => Err(std::io::Error::other(panic)),
    };
    let mut file = result.map_err(HubError::io(&path))?;
    let length = file.seek(SeekFrom::End(0)).map_err(HubError::io(&path))?;
    Ok(Part { path, file, length })
}

/// Checks a complete content and moves it into place.
async fn finish(file: &RemoteFile, part: Part, blob: &Path) -> Result<(), HubError> {
    let Part { path, file: mut content, .. } = part;
    content.flush().and_then(|()| content.sync_all()).map_err(HubError::io(&path))?;
    if let Some(expected) = file.sha256.clone() {
        let hashed = tokio::task::spawn_blocking(move || {
            content.seek(SeekFrom::Start(0)).and_then(|_| sha256(&mut content))
        });
        let found = match hashed.await {
            Ok(result) => result,
            Err(panic) => Err(std::io::Error::other(panic)),
        };
        let found = found.map_err(HubError::io(&path))?;
        if !found.eq_ignore_ascii_case(&expected) {
            fs::remove_file(&path).map_err(HubError::io(&path))?;
            return Err(HubError::Corrupt { file: file.path.clone(), found, expected });
        }
    }
    fs::rename(&path, blob).map_err(HubError::io(blob))
}

/// The checksum of a reader's bytes, in hexadecimal digits.
pub(crate) fn sha256(reader: &mut impl Read) -> std::io::Result<String> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A part of a path as an address has it.
fn escape(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
