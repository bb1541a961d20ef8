//! Regressors of transformed targets.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::meta::{spec, unexpected, wrapped};
use crate::steps::{Builder, Estimator, InputSpec, OutputSpec, Row, input};
use crate::table::{Matrix, Table};
use crate::tensor::DataType;

/// Transformed targets.
pub(crate) static ESTIMATORS: &[Row] = &[Row { class: "TransformedTargetRegressor", build }];

/// A fitted regressor and what undoes the transformation of its targets.
struct TransformedTarget {
    name: String,
    spec: InputSpec,
    regressor: Box<dyn Estimator>,
    transformer: Box<dyn Estimator>,
    dimensions: usize,
}

fn build(object: Object<'_>, builder: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let regressor = builder.build(object.object("regressor_")?)?;
    let transformer = builder.build(object.object("transformer_")?)?;
    let dimensions = object.usize("_training_dim")?;
    let spec = spec(object, regressor.as_ref())?;
    let name = wrapped(object.class, regressor.as_ref());
    Ok(Box::new(TransformedTarget { name, spec, regressor, transformer, dimensions }))
}

impl Estimator for TransformedTarget {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn input(&self) -> &InputSpec {
        &self.spec
    }

    fn methods(&self) -> &[Method] {
        &[Method::Predict]
    }

    fn output_specs(&self, method: Method) -> Vec<OutputSpec> {
        let inner = self.regressor.output_specs(method);
        let columns = match inner.first().map(|output| output.sizes.as_slice()) {
            Some([columns]) => *columns,
            _ => Some(1),
        };
        vec![match (self.dimensions, columns) {
            (1, Some(1)) => OutputSpec::values(DataType::Fp64),
            _ => OutputSpec::columns(DataType::Fp64, columns),
        }]
    }

    fn predict(&self, x: &Table) -> Result<Array, PredictError> {
        let answer = self.regressor.predict(input::align(x, &self.spec)?.as_ref())?;
        let (rows, columns) = match *answer.shape() {
            [rows] => (rows, 1),
            [rows, columns] => (rows, columns),
            _ => return Err(unexpected("values", &answer)),
        };
        let values = answer.to_f64().ok_or_else(|| unexpected("values", &answer))?;
        let values = Table::Dense(Matrix::f64(rows, columns, values));
        let values = input::to_matrix(self.transformer.inverse_transform(&values)?)?;
        let squeezed = self.dimensions == 1 && values.columns == 1;
        let shape = if squeezed { vec![rows] } else { vec![values.rows, values.columns] };
        Ok(Array::f64(shape, values.to_f64().into_owned()))
    }
}
