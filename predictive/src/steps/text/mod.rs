//! Text vectorisers: tokens of texts, counted or hashed, and their weights.

mod analyse;
mod hash;
mod stop_words;
mod vectorise;

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::PredictError;
use crate::steps::Row;
use crate::table::{Column, Table};

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "CountVectorizer", build: vectorise::count },
    Row { class: "TfidfVectorizer", build: vectorise::tfidf },
    Row { class: "TfidfTransformer", build: vectorise::weights },
    Row { class: "HashingVectorizer", build: hash::vectorizer },
    Row { class: "FeatureHasher", build: hash::hasher },
    Row { class: "DictVectorizer", build: hash::dictionary },
];

/// The texts of a list, or of a table of one column of them.
///
/// # Errors
/// When it holds something else or a text is absent.
fn texts(x: &Table) -> Result<Cow<'_, [Arc<str>]>, PredictError> {
    match x {
        Table::Texts(texts) => Ok(Cow::Borrowed(texts)),
        Table::Frame(frame) if matches!(frame.columns.as_slice(), [Column::Texts(_)]) => {
            let [Column::Texts(texts)] = frame.columns.as_slice() else { return Err(not_texts()) };
            let absent = || PredictError::input("a document is missing; each must be a text");
            texts.iter().map(|text| text.clone().ok_or_else(absent)).collect()
        }
        _ => Err(not_texts()),
    }
}

fn not_texts() -> PredictError {
    PredictError::input("expected a list of texts: a BYTES tensor of shape [n] or [n, 1]")
}
