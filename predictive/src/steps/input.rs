//! Input checks that estimators share: columns and their names, numbers out of tables, NaN and infinities, labels.
//!
//! Frames are matched by name, in any order. Texts are read as numbers as Python reads them; what is none is refused.

use std::borrow::Cow;
use std::sync::Arc;

use crate::array::{Array, Values};
use crate::error::Fault;
use crate::model::PredictError;
use crate::pickle::{Node, Object, Value};
use crate::steps::InputSpec;
use crate::table::{Column, Frame, Matrix, Numbers, Table};
use crate::tensor::DataType;

/// What an estimator thinks of values that are not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nan {
    /// NaN and infinities are refused.
    Refuse,
    /// NaN is "missing"; infinities are refused.
    Allow,
    /// Nothing is refused.
    Any,
}

/// `n_features_in_` (before 0.24 and in some classes `n_features_`) and `feature_names_in_` of an estimator.
///
/// # Errors
/// When they are there and no count and no texts of that count.
pub(crate) fn spec(object: Object<'_>) -> Result<InputSpec, Fault> {
    let columns = match (object.some("n_features_in_"), object.some("n_features_")) {
        (Some(_), _) => Some(object.usize("n_features_in_")?),
        (None, Some(_)) => Some(object.usize("n_features_")?),
        (None, None) => None,
    };
    let Some(value) = object.some("feature_names_in_") else {
        return Ok(InputSpec { columns, ..InputSpec::default() });
    };
    let names = texts(value)
        .ok_or_else(|| object.wrong("feature_names_in_", "expected a list of texts"))?;
    let columns = columns.unwrap_or(names.len());
    if columns != names.len() {
        let reason = format!("{} names, but n_features_in_ is {columns}", names.len());
        return Err(object.wrong("feature_names_in_", reason));
    }
    let names = names.iter().map(|name| name.to_string()).collect();
    Ok(InputSpec { columns: Some(columns), names: Some(names), ..InputSpec::default() })
}

/// The texts of an array, a list or an object array; `None` when something is no text.
pub(crate) fn texts(value: Value<'_>) -> Option<Vec<Arc<str>>> {
    if let Some(array) = value.as_array() {
        return match array.values() {
            Values::Text(values) => Some(values.clone()),
            _ => None,
        };
    }
    value.as_list()?.into_iter().map(|item| item.as_str().map(Arc::from)).collect()
}

/// Labels of one output: an array of one dimension with at least one element, texts as BYTES.
///
/// # Errors
/// When the attribute is missing or something else.
pub(crate) fn labels(object: Object<'_>, name: &str) -> Result<Array, Fault> {
    let value = object.attribute(name)?;
    label_array(value)
        .filter(|labels| !labels.is_empty())
        .ok_or_else(|| object.wrong(name, format!("expected labels, found {}", value.describe())))
}

/// `classes_` of a classifier: one array, or one an output where it has several.
///
/// # Errors
/// When the attribute is missing or something else.
pub(crate) fn classes(object: Object<'_>) -> Result<Vec<Array>, Fault> {
    let value = object.attribute("classes_")?;
    if let Some(classes) = label_array(value) {
        return Ok(vec![classes]);
    }
    let wrong = || {
        let reason = format!("expected labels, or a list of them, found {}", value.describe());
        object.wrong("classes_", reason)
    };
    let several: Option<Vec<Array>> =
        value.as_list().ok_or_else(wrong)?.into_iter().map(label_array).collect();
    several.filter(|several| !several.is_empty()).ok_or_else(wrong)
}

/// A value as labels: an array, or a list or object array of scalars of one kind.
pub(crate) fn label_array(value: Value<'_>) -> Option<Array> {
    if let Some(array) = value.as_array() {
        return (array.shape().len() == 1 && !array.is_empty()).then(|| array.clone());
    }
    let items = value.as_list()?;
    let shape = vec![items.len()];
    let scalar = |item: &Value<'_>| match item.node() {
        Node::Array(array) if array.len() == 1 && array.shape().is_empty() => array.dtype(),
        Node::Bool(_) => DataType::Bool,
        Node::Int(_) => DataType::Int64,
        Node::Float(_) => DataType::Fp64,
        _ => DataType::Bytes,
    };
    let dtype = scalar(items.first()?);
    if items.iter().any(|item| scalar(item) != dtype) {
        return None;
    }
    let values = match dtype {
        DataType::Bytes => Values::Text(
            items.iter().map(|item| item.as_str().map(Arc::from)).collect::<Option<_>>()?,
        ),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            let values = items.iter().map(|item| item.as_f64()).collect::<Option<_>>()?;
            return Some(Array::f64(shape, values));
        }
        _ => Values::Int(items.iter().map(|item| item.as_i64()).collect::<Option<_>>()?),
    };
    Some(Array::new(dtype, shape, values))
}

/// Column numbers below `columns` of an array or a list (a mask picks where it is true); `None` for anything else.
pub(crate) fn indices(value: Value<'_>, columns: usize) -> Option<Vec<usize>> {
    if let Some(array) = value.as_array() {
        let Values::Int(values) = array.values() else { return None };
        if array.dtype() == DataType::Bool {
            let picked = values.iter().enumerate().filter(|(_, value)| **value != 0);
            return (values.len() == columns).then(|| picked.map(|(index, _)| index).collect());
        }
        let index = |&value: &i64| usize::try_from(value).ok().filter(|index| *index < columns);
        return values.iter().map(index).collect();
    }
    let index = |item: Value<'_>| item.as_usize().filter(|index| *index < columns);
    value.as_list()?.into_iter().map(index).collect()
}

/// The table with as many columns as `spec` says, those of a frame in the order of `spec`'s names.
///
/// # Errors
/// When columns are missing or left over.
pub(crate) fn align<'a>(x: &'a Table, spec: &InputSpec) -> Result<Cow<'a, Table>, PredictError> {
    if let (Table::Frame(frame), Some(wanted)) = (x, &spec.names)
        && let Some(names) = &frame.names
    {
        let same = names.len() == wanted.len()
            && names.iter().zip(wanted).all(|(name, wanted)| **name == **wanted);
        return if same { Ok(Cow::Borrowed(x)) } else { reorder(frame, names, wanted) };
    }
    let found = x.columns();
    match spec.columns {
        Some(wanted) if wanted != found => Err(PredictError::input(format!(
            "X has {found} features, but the model is expecting {wanted} features as input"
        ))),
        _ => Ok(Cow::Borrowed(x)),
    }
}

/// The columns of `frame` in the order of `wanted`.
fn reorder<'a>(
    frame: &Frame,
    names: &[Arc<str>],
    wanted: &[String],
) -> Result<Cow<'a, Table>, PredictError> {
    let position: std::collections::HashMap<&str, usize> =
        names.iter().enumerate().map(|(index, name)| (&**name, index)).collect();
    let missing: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|name| !position.contains_key(name)).collect();
    let unseen: Vec<&str> = names
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| !wanted.iter().any(|wanted| wanted == name))
        .collect();
    if !missing.is_empty() || !unseen.is_empty() || names.len() != wanted.len() {
        let mut reason =
            "the feature names should match those that were passed during fit".to_owned();
        if !missing.is_empty() {
            reason += &format!("; missing: {}", missing.join(", "));
        }
        if !unseen.is_empty() {
            reason += &format!("; unseen at fit time: {}", unseen.join(", "));
        }
        return Err(PredictError::input(reason));
    }
    let columns = wanted.iter().map(|name| frame.columns[position[name.as_str()]].clone());
    Ok(Cow::Owned(Table::Frame(Frame {
        rows: frame.rows,
        names: Some(wanted.iter().map(|name| name.as_str().into()).collect()),
        columns: columns.collect(),
    })))
}

/// The table as a dense matrix in the precision it came in, columns checked and aligned.
///
/// # Errors
/// When columns do not fit, a text is no number, or a value is not finite that has to be.
pub(crate) fn dense<'a>(
    x: &'a Table,
    spec: &InputSpec,
    nan: Nan,
) -> Result<Cow<'a, Matrix>, PredictError> {
    let matrix = match align(x, spec)? {
        Cow::Borrowed(Table::Dense(matrix)) => Cow::Borrowed(matrix),
        other => Cow::Owned(to_matrix(other.into_owned())?),
    };
    check_finite(&matrix, nan)?;
    Ok(matrix)
}

/// As [`dense`], rounded to single precision, in which a value may become infinite: that is refused as well.
///
/// # Errors
/// As [`dense`].
pub(crate) fn single<'a>(
    x: &'a Table,
    spec: &InputSpec,
    nan: Nan,
) -> Result<Cow<'a, Matrix>, PredictError> {
    let matrix = dense(x, spec, Nan::Any)?;
    let matrix = match matrix.is_single() {
        true => matrix,
        false => Cow::Owned(Matrix::f32(matrix.rows, matrix.columns, matrix.to_f32().into_owned())),
    };
    check_finite(&matrix, nan)?;
    Ok(matrix)
}

/// The numbers of any table, rows by columns, without a check.
///
/// # Errors
/// When a text is no number.
pub(crate) fn to_matrix(x: Table) -> Result<Matrix, PredictError> {
    let frame = match x {
        Table::Dense(matrix) => return Ok(matrix),
        Table::Sparse(sparse) => return Ok(sparse.to_dense()),
        Table::Frame(frame) => frame,
        Table::Texts(texts) => {
            let (rows, column) = (texts.len(), texts.into_iter().map(Some).collect());
            Frame { rows, names: None, columns: vec![Column::Texts(column)] }
        }
    };
    let (rows, width) = (frame.rows, frame.columns.len());
    let mut values = vec![0.0; rows * width];
    for (index, column) in frame.columns.iter().enumerate() {
        let name = || match &frame.names {
            Some(names) => format!("column {}", names[index]),
            None => format!("column {index}"),
        };
        let cells = values.iter_mut().skip(index).step_by(width);
        match column {
            Column::Numbers(numbers) => cells.zip(numbers).for_each(|(cell, value)| *cell = *value),
            Column::Texts(texts) => {
                for (cell, text) in cells.zip(texts) {
                    *cell = text.as_deref().map_or(Some(f64::NAN), number).ok_or_else(|| {
                        let text = text.as_deref().unwrap_or_default();
                        PredictError::input(format!(
                            "{}: could not convert string to float: {text:?}",
                            name()
                        ))
                    })?;
                }
            }
        }
    }
    Ok(Matrix::f64(rows, width, values))
}

/// A text as Python's `float` reads it.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

/// Refuses values that are not finite, with the library's sentences.
///
/// # Errors
/// As `nan` says.
pub(crate) fn check_finite(matrix: &Matrix, nan: Nan) -> Result<(), PredictError> {
    let (has_nan, has_infinity, dtype) = match &matrix.values {
        Numbers::F32(values) => (
            values.iter().any(|value| value.is_nan()),
            values.iter().any(|value| value.is_infinite()),
            "float32",
        ),
        Numbers::F64(values) => (
            values.iter().any(|value| value.is_nan()),
            values.iter().any(|value| value.is_infinite()),
            "float64",
        ),
    };
    if nan == Nan::Refuse && has_nan {
        return Err(PredictError::input("Input X contains NaN."));
    }
    if nan != Nan::Any && has_infinity {
        return Err(PredictError::input(format!(
            "Input X contains infinity or a value too large for dtype('{dtype}')."
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(columns: &[(&str, Column)]) -> Table {
        Table::Frame(Frame {
            rows: columns[0].1.len(),
            names: Some(columns.iter().map(|(name, _)| (*name).into()).collect()),
            columns: columns.iter().map(|(_, column)| column.clone()).collect(),
        })
    }

    fn two_names() -> InputSpec {
        let names = Some(vec!["a".into(), "b".into()]);
        InputSpec { columns: Some(2), names, ..InputSpec::default() }
    }

    #[test]
    fn frames_are_matched_by_name_and_texts_of_numbers_read() {
        let texts = Column::Texts(vec![Some("1.5".into()), None]);
        let x = named(&[("b", Column::Numbers(vec![3.0, 4.0])), ("a", texts)]);
        let matrix = dense(&x, &two_names(), Nan::Allow).unwrap();
        let values = matrix.to_f64().into_owned();
        assert_eq!(values[..2], [1.5, 3.0]);
        assert!(values[2].is_nan() && values[3] == 4.0);
        let error = dense(&x, &two_names(), Nan::Refuse).unwrap_err();
        assert_eq!(error, PredictError::input("Input X contains NaN."));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |x: &Table, wanted: &str| {
            let error = dense(x, &two_names(), Nan::Refuse).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        let ones = Column::Numbers(vec![1.0]);
        check(
            &named(&[("a", ones.clone()), ("c", ones.clone())]),
            "missing: b; unseen at fit time: c",
        );
        let red = Column::Texts(vec![Some("red".into())]);
        check(
            &named(&[("b", ones), ("a", red)]),
            "column a: could not convert string to float: \"red\"",
        );
        check(&Table::Dense(Matrix::f64(1, 3, vec![0.0; 3])), "X has 3 features");
        check(&Table::Dense(Matrix::f64(1, 2, vec![0.0, f64::INFINITY])), "dtype('float64')");
    }

    #[test]
    fn a_value_beyond_single_precision_is_refused() {
        let x = Table::Dense(Matrix::f64(1, 2, vec![0.0, 1e39]));
        let error = single(&x, &two_names(), Nan::Allow).unwrap_err().to_string();
        assert!(error.contains("too large for dtype('float32')"), "{error}");
    }
}
