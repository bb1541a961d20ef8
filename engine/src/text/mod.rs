//! Text on both sides of the engine: tokens from text, text from tokens, prompts from chats.
//!
//! [`Tokenizer`] is immutable and cheap to clone. Work that grows with the prompt (encoding, rendering
//! a chat) runs on a [`TextPool`], whose queue is bounded. Per generated token there are only a
//! [`Detokenizer`] and a [`StopMatcher`], which cost a few nanoseconds per byte and run where the
//! stream is read. Nothing here knows about requests; length limits are the server's.

mod byte_alphabet;
mod decode_style;
mod detokenizer;
mod gguf_tokenizer;
mod pool;
mod stop;
mod template;
mod tokenizer;
mod utf8_stream;
mod vocabulary;

use std::path::PathBuf;

pub use detokenizer::Detokenizer;
pub use pool::{TextPool, TextPoolOptions};
pub use stop::StopMatcher;
pub use template::{ChatTemplate, ContentFormat, TemplateError};
pub use tokenizer::Tokenizer;

/// Why text could not be processed.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A tokenizer file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder has no `tokenizer.json`.
    #[error(
        "{} has no tokenizer.json; vocab.json and tokenizer.model are not read: save the tokenizer once \
         with AutoTokenizer.from_pretrained(...).save_pretrained(...)", dir.display()
    )]
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// A tokenizer file or the tokenizer metadata of a GGUF file is not what it should be.
    #[error("{what}: {message}")]
    Invalid {
        /// The file or the metadata key.
        what: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The tokenizer failed on a text.
    #[error("the text could not be encoded: {0}")]
    Encode(String),
    /// The text pool's queue is full.
    #[error("all text threads are busy and {queue} jobs are waiting; retry later")]
    Busy {
        /// Jobs that may wait.
        queue: usize,
    },
    /// The text pool shut down before the job ran.
    #[error("the text pool is shut down")]
    Closed,
    /// The job panicked; the pool goes on.
    #[error("a text job panicked: {0}")]
    Panicked(String),
}

impl TextError {
    /// An `Invalid` error.
    pub(crate) fn invalid(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), message: message.into() }
    }
}

/// Runs `job`; a panic becomes its message. Third-party parsers of foreign files run inside.
fn catch_panic<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned())
    })
}
