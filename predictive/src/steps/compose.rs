//! `ColumnTransformer` and `FeatureUnion`: transformers side by side.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::{Object, Value};
use crate::steps::input::{align, spec, texts};
use crate::steps::transform::{beside, framed, map, named, numbered, positions, select, to_frame};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row};
use crate::table::{Column, Frame, Numbers, Table};
use crate::tensor::DataType;

pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "ColumnTransformer", build: column_transformer },
    Row { class: "FeatureUnion", build: feature_union },
];

/// One transformer of a [`ColumnTransformer`]; `None` passes its columns through.
struct Part {
    name: String,
    estimator: Option<Box<dyn Estimator>>,
    columns: Vec<usize>,
    /// The selection was one name or position: the transformer reads a list, not a table.
    single: bool,
    weight: Option<f64>,
}

struct ColumnTransformer {
    parts: Vec<Part>,
    input: InputSpec,
    /// How many columns positions are checked against.
    columns: usize,
    sparse: bool,
    framed: bool,
    prefixed: bool,
}

fn column_transformer(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let input = spec(object)?;
    let columns = match input.columns {
        Some(columns) => columns,
        None => object.usize("_n_features")?,
    };
    let input = InputSpec { columns: Some(columns), ..input };
    let mut parts = Vec::new();
    for item in object.list("transformers_")? {
        let wrong = || object.wrong("transformers_", "expected name, transformer and columns");
        let entry = item.as_list().ok_or_else(wrong)?;
        let &[name, step, selection] = entry.as_slice() else { return Err(wrong()) };
        let name = name.as_str().ok_or_else(wrong)?;
        if step.as_str() == Some("drop") {
            continue;
        }
        let chosen = chosen(object, name, selection, &input, columns)?;
        if chosen.is_empty() {
            continue;
        }
        let estimator = match step.as_object() {
            Some(step) => Some(builder.build(step)?),
            None if step.as_str() == Some("passthrough") => None,
            None => {
                let reason = format!("{name}: {} is no transformer", step.describe());
                return Err(object.wrong("transformers_", reason));
            }
        };
        let transforms = |step: &dyn Estimator| step.methods().contains(&Method::Transform);
        if estimator.as_deref().is_some_and(|step| !transforms(step)) {
            return Err(object.wrong("transformers_", format!("{name} has no transform")));
        }
        let single = selection.as_str().is_some()
            || selection.as_array().is_none() && selection.as_i64().is_some();
        let weight = weight(object, name)?;
        parts.push(Part { name: name.to_owned(), estimator, columns: chosen, single, weight });
    }
    let inner = parts.iter().filter_map(|part: &Part| part.estimator.as_deref());
    let input = InputSpec { text_columns: reads_texts(inner), ..input };
    let sparse = object.some("sparse_output_").and_then(Value::as_bool).unwrap_or(false);
    let framed = framed(object);
    let prefixed =
        object.get("verbose_feature_names_out").is_none_or(|value| value.as_bool() != Some(false));
    Ok(Box::new(ColumnTransformer { parts, input, columns, sparse, framed, prefixed }))
}

/// Whether one of several estimators was fitted on texts.
fn reads_texts<'a>(mut parts: impl Iterator<Item = &'a dyn Estimator>) -> bool {
    parts.any(|part| part.input().texts || part.input().text_columns)
}

/// The weight of a transformer, if it has one.
fn weight(object: Object<'_>, name: &str) -> Result<Option<f64>, Fault> {
    let Some(weights) = object.some("transformer_weights") else { return Ok(None) };
    let Some(weight) = weights.key(name).filter(|weight| !weight.is_none()) else {
        return Ok(None);
    };
    let wrong = || object.wrong("transformer_weights", format!("{name}: expected a number"));
    weight.as_f64().ok_or_else(wrong).map(Some)
}

/// The columns of a transformer: those that the library noted when it fitted, else those of the selection itself.
fn chosen(
    object: Object<'_>,
    name: &str,
    selection: Value<'_>,
    input: &InputSpec,
    count: usize,
) -> Result<Vec<usize>, Fault> {
    let noted = object.some("_transformer_to_input_indices").and_then(|noted| noted.key(name));
    let found = noted.and_then(|noted| positions(noted, count));
    let found = found.or_else(|| by_name(selection, input.names.as_deref()?));
    let found = found.or_else(|| positions(selection, count));
    let one = || {
        let index = selection.as_i64()?;
        let index = if index < 0 { index + count as i64 } else { index };
        usize::try_from(index).ok().filter(|&index| index < count).map(|index| vec![index])
    };
    found.or_else(one).ok_or_else(|| {
        let found = selection.describe();
        let reason = format!("{name}: {found} is no selection of the {count} columns");
        object.wrong("transformers_", reason)
    })
}

fn by_name(selection: Value<'_>, names: &[String]) -> Option<Vec<usize>> {
    let wanted = match selection.as_str() {
        Some(name) => vec![Arc::from(name)],
        None => texts(selection)?,
    };
    wanted.iter().map(|wanted| names.iter().position(|name| **name == **wanted)).collect()
}

impl ColumnTransformer {
    /// The table with the columns of the fit in their order; columns that no part reads may be absent.
    fn arranged(&self, x: &Table) -> Result<Table, PredictError> {
        let (Some(wanted), Table::Frame(frame)) = (&self.input.names, x) else {
            return align(x, &self.input).map(|x| x.into_owned());
        };
        let Some(given) = &frame.names else {
            return align(x, &self.input).map(|x| x.into_owned());
        };
        let used: HashSet<usize> =
            self.parts.iter().flat_map(|part| part.columns.clone()).collect();
        let mut columns = Vec::with_capacity(wanted.len());
        let mut absent = Vec::new();
        for (at, name) in wanted.iter().enumerate() {
            match given.iter().position(|known| **known == **name) {
                Some(found) => columns.push(frame.columns[found].clone()),
                None => {
                    columns.push(Column::Numbers(vec![f64::NAN; frame.rows]));
                    absent.extend(used.contains(&at).then_some(name.as_str()));
                }
            }
        }
        if !absent.is_empty() {
            return Err(PredictError::input(format!("columns are missing: {}", absent.join(", "))));
        }
        let names = wanted.iter().map(|name| Arc::from(name.as_str())).collect();
        Ok(Table::Frame(Frame { rows: frame.rows, names: Some(names), columns }))
    }
}

/// One column as the list of texts that it is; numbers stay a table.
fn listed(x: Table) -> Table {
    let texts = match to_frame(&x).columns.first() {
        Some(Column::Texts(texts)) => texts.iter().cloned().collect::<Option<Vec<_>>>(),
        _ => None,
    };
    texts.map_or(x, Table::Texts)
}

fn weighted(x: Table, weight: Option<f64>) -> Result<Table, PredictError> {
    let Some(weight) = weight else { return Ok(x) };
    Ok(match x {
        Table::Sparse(mut sparse) => {
            sparse.values.iter_mut().for_each(|value| *value *= weight);
            Table::Sparse(sparse)
        }
        Table::Frame(mut frame) => {
            for column in &mut frame.columns {
                let Column::Numbers(values) = column else {
                    return Err(PredictError::input("a column of texts cannot be weighted"));
                };
                values.iter_mut().for_each(|value| *value *= weight);
            }
            Table::Frame(frame)
        }
        Table::Dense(matrix) => Table::Dense(map(&matrix, |_, value| value * weight)),
        Table::Texts(_) => return Err(PredictError::input("texts cannot be weighted")),
    })
}

/// A frame of numbers without names is an array.
fn settled(table: Table) -> Table {
    match table {
        Table::Frame(frame)
            if frame.names.is_none()
                && frame.columns.iter().all(|column| matches!(column, Column::Numbers(_))) =>
        {
            let mut values = Vec::with_capacity(frame.rows * frame.columns.len());
            for row in 0..frame.rows {
                values.extend(frame.columns.iter().map(|column| match column {
                    Column::Numbers(values) => values[row],
                    Column::Texts(_) => f64::NAN,
                }));
            }
            let (rows, columns) = (frame.rows, frame.columns.len());
            Table::Dense(crate::table::Matrix { rows, columns, values: Numbers::F64(values) })
        }
        other => other,
    }
}

impl Estimator for ColumnTransformer {
    fn name(&self) -> String {
        let name = |part: &Part| match &part.estimator {
            Some(estimator) => estimator.name(),
            None => "passthrough".into(),
        };
        let names: Vec<String> = self.parts.iter().map(name).collect();
        format!("ColumnTransformer({})", names.join(", "))
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        let inner = self.parts.iter().filter_map(|part| part.estimator.as_deref());
        vec![beside_spec(inner, self.output_names())]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let x = self.arranged(x)?;
        debug_assert_eq!(x.columns(), self.columns, "arranged tables have every column");
        let mut tables = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut chosen = select(&x, &part.columns);
            if part.single {
                chosen = listed(chosen);
            }
            let answer = match &part.estimator {
                Some(estimator) => estimator.transform(&chosen)?,
                None => chosen,
            };
            tables.push(weighted(answer, part.weight)?);
        }
        let table = beside(tables, x.rows(), self.sparse)?;
        Ok(match self.framed.then(|| self.output_names()).flatten() {
            Some(names) => named(table, names),
            None => unnamed(table),
        })
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let own = self.input.names.clone().unwrap_or_else(|| numbered(self.columns));
        let mut all = Vec::new();
        for part in &self.parts {
            let names = match &part.estimator {
                Some(estimator) => estimator.output_names()?,
                None => part.columns.iter().map(|&at| own[at].clone()).collect(),
            };
            let prefix = |name: String| match self.prefixed {
                true => format!("{}__{name}", part.name),
                false => name,
            };
            all.extend(names.into_iter().map(prefix));
        }
        Some(all)
    }
}

/// The table as the library's arrays are: without names.
fn unnamed(table: Table) -> Table {
    settled(match table {
        Table::Frame(frame) => Table::Frame(Frame { names: None, ..frame }),
        other => other,
    })
}

/// Name, transformer (`None` passes rows through) and weight.
type Member = (String, Option<Box<dyn Estimator>>, Option<f64>);

struct FeatureUnion {
    parts: Vec<Member>,
    input: InputSpec,
    framed: bool,
    prefixed: bool,
}

/// What tables beside each other hold: texts when one holds texts.
fn beside_spec<'a>(
    parts: impl Iterator<Item = &'a dyn Estimator>,
    names: Option<Vec<String>>,
) -> OutputSpec {
    let texts = |part: &dyn Estimator| {
        part.output_specs(Method::Transform).iter().any(|output| output.dtype == DataType::Bytes)
    };
    let mut parts = parts;
    let dtype = if parts.any(texts) { DataType::Bytes } else { DataType::Fp64 };
    OutputSpec::columns(dtype, names.map(|names| names.len()))
}

fn feature_union(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut parts = Vec::new();
    for item in object.list("transformer_list")? {
        let dropped = item.as_list().and_then(|entry| entry.get(1)?.as_str()) == Some("drop");
        if dropped {
            continue;
        }
        let (name, step) = super::pipeline::named_step(object, "transformer_list", item)?;
        let step = step.map(|step| builder.build(step)).transpose()?;
        if step.as_ref().is_some_and(|step| !step.methods().contains(&Method::Transform)) {
            return Err(object.wrong("transformer_list", format!("{name} has no transform")));
        }
        parts.push((name.to_owned(), step, weight(object, name)?));
    }
    let first = parts.iter().find_map(|(_, step, _)| step.as_ref());
    let input = first.map(|step| step.input().clone()).unwrap_or_default();
    let inner = parts.iter().filter_map(|(_, step, _)| step.as_deref());
    let input = InputSpec { text_columns: reads_texts(inner), ..input };
    let prefixed =
        object.get("verbose_feature_names_out").is_none_or(|value| value.as_bool() != Some(false));
    Ok(Box::new(FeatureUnion { parts, input, framed: framed(object), prefixed }))
}

impl Estimator for FeatureUnion {
    fn name(&self) -> String {
        let name = |part: &Option<Box<dyn Estimator>>| {
            part.as_ref().map_or("passthrough".into(), |step| step.name())
        };
        let names: Vec<String> = self.parts.iter().map(|(_, step, _)| name(step)).collect();
        format!("FeatureUnion({})", names.join(", "))
    }

    fn input(&self) -> &InputSpec {
        &self.input
    }

    fn methods(&self) -> &[Method] {
        &[Method::Transform]
    }

    fn output_specs(&self, _: Method) -> Vec<OutputSpec> {
        let inner = self.parts.iter().filter_map(|(_, step, _)| step.as_deref());
        vec![beside_spec(inner, self.output_names())]
    }

    fn transform(&self, x: &Table) -> Result<Table, PredictError> {
        let mut tables = Vec::with_capacity(self.parts.len());
        for (_, step, weight) in &self.parts {
            let answer = match step {
                Some(step) => step.transform(x)?,
                None => x.clone(),
            };
            tables.push(weighted(answer, *weight)?);
        }
        let sparse = tables.iter().any(|table| matches!(table, Table::Sparse(_)));
        let table = beside(tables, x.rows(), sparse)?;
        Ok(match self.framed.then(|| self.output_names()).flatten() {
            Some(names) => named(table, names),
            None => unnamed(table),
        })
    }

    fn output_names(&self) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for (name, step, _) in &self.parts {
            let names = match step {
                Some(step) => step.output_names()?,
                None => self.input.names.clone().or_else(|| self.input.columns.map(numbered))?,
            };
            let prefix = |feature: String| match self.prefixed {
                true => format!("{name}__{feature}"),
                false => feature,
            };
            all.extend(names.into_iter().map(prefix));
        }
        Some(all)
    }
}
