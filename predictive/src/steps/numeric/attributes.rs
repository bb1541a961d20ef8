//! Matrices and vectors among the attributes of a file.

use crate::error::Fault;
use crate::pickle::{Object, Value};
use crate::table::Sparse;

/// Elements of the largest sparse attribute that is written out dense (64 MiB).
const MAX_DENSE: usize = 1 << 23;

/// Rows, columns and numbers of an attribute that is a dense or a compressed sparse matrix (written out). It has
/// columns, so that the number of its rows is bounded by the file.
pub(crate) fn matrix(object: Object<'_>, name: &str) -> Result<(usize, usize, Vec<f64>), Fault> {
    let (rows, columns, values) = match object.attribute(name)?.as_object() {
        None => object.matrix(name)?,
        Some(inner) => {
            let sparse = sparse(object, name, inner)?;
            if sparse.rows.saturating_mul(sparse.columns) > MAX_DENSE {
                let reason = "is a sparse matrix too large to be written out";
                return Err(object.wrong(name, reason));
            }
            let values = sparse.to_dense().to_f64().into_owned();
            (sparse.rows, sparse.columns, values)
        }
    };
    if columns == 0 || (rows == 0 && columns > MAX_DENSE) {
        return Err(object.wrong(name, format!("has {rows} rows of {columns} columns")));
    }
    Ok((rows, columns, values))
}

/// A compressed sparse row matrix of a file.
pub(crate) fn sparse(owner: Object<'_>, name: &str, inner: Object<'_>) -> Result<Sparse, Fault> {
    if !inner.class.starts_with("csr_") {
        let reason = format!("expected an array or a csr matrix, found {}", inner.class);
        return Err(owner.wrong(name, reason));
    }
    let wrong = |reason: &str| owner.wrong(name, reason);
    let shape = inner.attribute("_shape")?.as_list().unwrap_or_default();
    let sizes: Option<Vec<usize>> = shape.into_iter().map(Value::as_usize).collect();
    let [rows, columns] = sizes.unwrap_or_default()[..] else {
        return Err(wrong("the sparse matrix has no shape of two sizes"));
    };
    let whole = |field: &str| -> Result<Vec<usize>, Fault> {
        let values = inner.vector(field, None)?;
        let fits = |value: &f64| *value >= 0.0 && *value < u32::MAX.into();
        if !values.iter().all(fits) {
            return Err(wrong("an index of the sparse matrix is out of range"));
        }
        Ok(values.into_iter().map(|value| value as usize).collect())
    };
    let (starts, indices) = (whole("indptr")?, whole("indices")?);
    let values = inner.vector("data", Some(indices.len()))?;
    let ascending = starts.windows(2).all(|pair| pair[0] <= pair[1]);
    let ends = starts.first() == Some(&0) && starts.last().is_some_and(|&end| end <= indices.len());
    if starts.len() != rows.saturating_add(1) || !ascending || !ends {
        return Err(wrong("the row positions of the sparse matrix do not fit its shape"));
    }
    if indices.iter().any(|&index| index >= columns) {
        return Err(wrong("a column index of the sparse matrix is out of range"));
    }
    sorted(
        Sparse { rows, columns, starts, indices: Vec::new(), values: Vec::new() },
        &indices,
        &values,
    )
    .ok_or_else(|| wrong("the sparse matrix stores a column twice in a row"))
}

/// Fills `shell` with the entries of each row in ascending order of columns; `None` for a repeated one.
fn sorted(mut shell: Sparse, indices: &[usize], values: &[f64]) -> Option<Sparse> {
    for row in 0..shell.rows {
        let range = shell.starts[row]..shell.starts[row + 1];
        let entries = indices[range.clone()].iter().copied().zip(values[range].iter().copied());
        let mut entries: Vec<(usize, f64)> = entries.collect();
        entries.sort_by_key(|&(column, _)| column);
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        for (column, value) in entries {
            shell.indices.push(u32::try_from(column).ok()?);
            shell.values.push(value);
        }
    }
    Some(shell)
}

/// The transpose of a row-major `[rows, columns]` matrix.
pub(crate) fn transposed(rows: usize, columns: usize, values: &[f64]) -> Vec<f64> {
    let cell = |index: usize| values[index % rows.max(1) * columns + index / rows.max(1)];
    (0..rows * columns).map(cell).collect()
}

/// A vector of `length`, or one number for all of them (an intercept of 0.0).
pub(crate) fn broadcast(object: Object<'_>, name: &str, length: usize) -> Result<Vec<f64>, Fault> {
    let values = object.vector(name, None)?;
    match values.len() {
        found if found == length => Ok(values),
        1 => Ok(vec![values[0]; length]),
        found => Err(object.wrong(name, format!("expected {length} values or one, found {found}"))),
    }
}
