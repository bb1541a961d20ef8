//! CSV files as tables of named columns.

use anyhow::{Context, ensure};
use csv::StringRecord;
use tokenmill_predictive::{DataType, Model, Request, Tensor, TensorMap};

use crate::error::clip;

/// Where the names of columns come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// The first line.
    Header,
    /// The model, which knows them in order; numbers where it does not.
    Position,
}

/// The request that a CSV file makes of a tabular model: its columns, or its texts where the model reads texts.
pub(super) fn request(model: &dyn Model, text: &[u8], names: Names) -> anyhow::Result<Request> {
    ensure!(!model.methods().is_empty(), "the model's inputs are no table; give JSON or an array");
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(names == Names::Header).from_reader(text);
    let header = match names {
        Names::Header => Some(reader.headers().context("line 1")?.clone()),
        Names::Position => None,
    };
    let rows = reader.records().collect::<Result<Vec<StringRecord>, csv::Error>>()?;
    ensure!(
        !rows.is_empty(),
        "no rows: a line for each is needed{}",
        match names {
            Names::Header => " after that of the column names",
            Names::Position => "",
        }
    );
    let width = rows[0].len();
    let names: Vec<String> = match &header {
        Some(header) => header.iter().map(|name| name.trim().to_owned()).collect(),
        None => match &model.signature().columns {
            Some(known) if known.len() == width => known.clone(),
            _ => (0..width).map(|index| index.to_string()).collect(),
        },
    };
    let texts = model.signature().inputs.first().is_some_and(|spec| spec.dtype == DataType::Bytes);
    if let (true, [name]) = (texts, names.as_slice()) {
        let mut inputs = TensorMap::default();
        inputs.insert(name, as_texts(&rows, 0));
        return Ok(Request { inputs, ..Request::default() });
    }
    let mut inputs = TensorMap::default();
    for (index, name) in names.into_iter().enumerate() {
        let twice = inputs.get(&name).is_some();
        ensure!(!twice, "line 1: two columns have the name {:?}", clip(&name));
        inputs.insert(name, column(&rows, index));
    }
    Ok(Request { inputs, frame: true, ..Request::default() })
}

/// Numbers where every cell is one, 0 and 1 where every cell is a truth value, else texts.
fn column(rows: &[StringRecord], index: usize) -> Tensor {
    let all = |read: fn(&str) -> Option<f64>| {
        let cell = |row: &StringRecord| match row[index].trim() {
            "" => Some(f64::NAN),
            cell => read(cell),
        };
        rows.iter().map(cell).collect::<Option<Vec<f64>>>()
    };
    let truth = |cell: &str| match cell {
        "true" | "True" | "TRUE" => Some(1.0),
        "false" | "False" | "FALSE" => Some(0.0),
        _ => None,
    };
    match all(|cell| cell.parse().ok()).or_else(|| all(truth)) {
        Some(values) => Tensor::from_values(vec![rows.len()], &values),
        None => as_texts(rows, index),
    }
}

/// The cells as they are; empty ones are absent.
fn as_texts(rows: &[StringRecord], index: usize) -> Tensor {
    let cells: Vec<&str> = rows.iter().map(|row| &row[index]).collect();
    let nulls = cells.iter().map(|cell| cell.is_empty()).collect();
    Tensor::from_texts(vec![rows.len()], &cells).with_nulls(nulls)
}

#[cfg(test)]
mod tests {
    use tokenmill_predictive::{Description, Method, PredictError, Signature, TensorSpec};

    use super::*;

    /// Knows two columns; `texts` reads texts instead.
    struct Known(Signature, Description);

    impl Known {
        fn new(texts: bool) -> Self {
            let dtype = if texts { DataType::Bytes } else { DataType::Fp64 };
            let columns = (!texts).then(|| vec!["age".to_owned(), "city".to_owned()]);
            let spec = TensorSpec { name: "input-0".into(), dtype, shape: vec![None] };
            let signature = Signature { inputs: vec![spec], columns, ..Signature::default() };
            Self(signature, Description::default())
        }
    }

    impl Model for Known {
        fn signature(&self) -> &Signature {
            &self.0
        }

        fn description(&self) -> &Description {
            &self.1
        }

        fn methods(&self) -> &[Method] {
            &[Method::Predict]
        }

        fn predict(&self, _: &Request) -> Result<TensorMap, PredictError> {
            Err(PredictError::input("is not asked"))
        }
    }

    fn read(text: &str, names: Names) -> anyhow::Result<Request> {
        request(&Known::new(false), text.as_bytes(), names)
    }

    #[test]
    fn columns_are_numbers_truth_values_or_texts() {
        let text = "\u{feff}city,age,ok,code\nParis,30,true,1\n\"a, b\",,false,x\n";
        let request = read(text, Names::Header).unwrap();
        assert!(request.frame);
        let names: Vec<&str> = request.inputs.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["city", "age", "ok", "code"]);
        let tensor = |name: &str| request.inputs.get(name).unwrap();
        assert_eq!(tensor("city").byte_strings().unwrap(), [&b"Paris"[..], b"a, b"]);
        let age = tensor("age").to_f64().unwrap();
        assert!(age[0] == 30.0 && age[1].is_nan());
        assert_eq!(tensor("ok").to_f64().unwrap(), [1.0, 0.0]);
        assert_eq!(tensor("code").byte_strings().unwrap(), [b"1", b"x"]);
    }

    #[test]
    fn without_a_header_the_model_names_the_columns() {
        let names = |text| {
            let request = read(text, Names::Position).unwrap();
            request.inputs.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("1,a\n2,b\n"), ["age", "city"]);
        assert_eq!(names("1,a,0\n"), ["0", "1", "2"]);
    }

    #[test]
    fn a_model_of_texts_gets_texts() {
        let request =
            request(&Known::new(true), b"comment\n12\n\"so, what\"\n", Names::Header).unwrap();
        assert!(!request.frame);
        let texts = request.inputs.get("comment").and_then(Tensor::byte_strings);
        assert_eq!(texts.unwrap(), [&b"12"[..], b"so, what"]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, want) in [
            ("a,b\n1,2\n3\n", "line: 3"),
            ("a,a\n1,2\n", "line 1: two columns have the name \"a\""),
            ("a,b\n", "no rows"),
            ("", "no rows"),
        ] {
            let error = format!("{:#}", read(text, Names::Header).unwrap_err());
            assert!(error.contains(want), "{text:?}: {error}");
        }
        let error = request(&Known::new(false), b"a\n1\n\xff\n", Names::Header).unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
