//! Text of a completion, token by token.
//!
//! What [`Detokenizer::push`] and [`Detokenizer::flush`] return, put together, is what decoding prompt and
//! completion gives beyond decoding the prompt. A character is never returned in part: bytes of an
//! unfinished one wait for the next token. Where text is the concatenation of token bytes, a push costs
//! the length of the token; other decoders get a window of the last few tokens.

use tokenmill_scheduler::TokenId;

use super::decode_style::DecodeStyle;
use super::tokenizer::Tokenizer;
use super::utf8_stream::Utf8Stream;

/// Last tokens of the prompt that a decoder with context sees.
const WINDOW_PROMPT_TOKENS: usize = 5;
/// A window that long ends in something that is no unfinished character.
const WINDOW_MAX_TOKENS: usize = 64;

/// Incremental decoder of one sequence.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    skip_special: bool,
    state: State,
    /// What the last call returned; kept for its capacity.
    text: String,
}

#[derive(Clone, Debug)]
enum State {
    Bytes {
        stream: Utf8Stream,
        /// Nothing was decoded yet, and the first space is not part of the text.
        strip_space: bool,
    },
    Window(Window),
}

/// Tokens not yet forgotten. `ids[..read]` is text already returned; it gives the decoder context.
#[derive(Clone, Debug)]
struct Window {
    ids: Vec<TokenId>,
    read: usize,
}

impl Detokenizer {
    /// A decoder for what follows `prompt`. `skip_special` leaves control tokens out.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, prompt: &[TokenId], skip_special: bool) -> Self {
        let state = match tokenizer.style() {
            DecodeStyle::Library => {
                let start = prompt.len().saturating_sub(WINDOW_PROMPT_TOKENS);
                let ids = prompt[start..].to_vec();
                State::Window(Window { read: ids.len(), ids })
            }
            style => {
                let tail = last_bytes(&tokenizer, prompt, skip_special);
                let strip_space = style.strips_leading_space() && tail.is_empty();
                State::Bytes { stream: Utf8Stream::after(&tail), strip_space }
            }
        };
        Self { tokenizer, skip_special, state, text: String::new() }
    }

    /// The text that `id` completes; empty when it only begins a character or is skipped.
    pub fn push(&mut self, id: TokenId) -> &str {
        self.text.clear();
        match &mut self.state {
            State::Bytes { stream, strip_space } => {
                let mut bytes = self.tokenizer.visible_bytes(id, self.skip_special);
                if *strip_space && !bytes.is_empty() {
                    *strip_space = false;
                    bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
                }
                stream.push(bytes, &mut self.text);
            }
            State::Window(window) => {
                window.ids.push(id);
                window.advance(&self.tokenizer, self.skip_special, false, &mut self.text);
            }
        }
        &self.text
    }

    /// Ends the text: an unfinished character becomes U+FFFD.
    pub fn flush(&mut self) -> &str {
        self.text.clear();
        match &mut self.state {
            State::Bytes { stream, .. } => stream.finish(&mut self.text),
            State::Window(window) => {
                window.advance(&self.tokenizer, self.skip_special, true, &mut self.text);
            }
        }
        &self.text
    }
}

impl Window {
    /// Appends what the unread tokens add to the read ones, unless it may end within a character.
    fn advance(&mut self, tokenizer: &Tokenizer, skip: bool, end: bool, out: &mut String) {
        if self.read == self.ids.len() {
            return;
        }
        let before = tokenizer.decode_by_library(&self.ids[..self.read], skip);
        let whole = tokenizer.decode_by_library(&self.ids, skip);
        let unfinished = whole.ends_with('\u{fffd}') && self.ids.len() < WINDOW_MAX_TOKENS;
        let new = whole.get(before.len()..).unwrap_or_default();
        if !end && (unfinished || new.is_empty()) && self.ids.len() < WINDOW_MAX_TOKENS {
            return;
        }
        out.push_str(new);
        self.ids.drain(..self.read);
        self.read = self.ids.len();
    }
}

/// The last bytes of the prompt's text: at least three, if there are so many.
fn last_bytes(tokenizer: &Tokenizer, prompt: &[TokenId], skip_special: bool) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut len = 0;
    for &id in prompt.iter().rev() {
        let bytes = tokenizer.visible_bytes(id, skip_special);
        pieces.push(bytes);
        len += bytes.len();
        if len >= 3 {
            break;
        }
    }
    pieces.reverse();
    pieces.concat()
}
