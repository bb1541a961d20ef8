//! Support vector machines of libsvm: kernels against support vectors, one versus one.
//!
//! The file's private attributes (`_dual_coef_`, `_intercept_`) have libsvm's signs; of two classes the public ones are
//! the negatives, and so is the public decision.

use crate::array::Array;
use crate::error::Fault;
use crate::model::{Method, PredictError};
use crate::pickle::Object;
use crate::steps::numeric::{Answer, Base, Points, Rule, best, dot, matrix, sparse};
use crate::steps::pairwise::Kernel;
use crate::steps::{Builder, Estimator, Row};
use crate::table::Sparse;

/// Support vectors.
enum Vectors {
    Dense {
        values: Vec<f64>,
        count: usize,
    },
    /// With the squared norm of each.
    Sparse {
        rows: Sparse,
        norms: Vec<f64>,
    },
    /// Columns of a precomputed kernel.
    Columns(Vec<usize>),
}

/// A kernel and the vectors it is taken against.
struct Machine {
    kernel: Kernel,
    vectors: Vectors,
    columns: usize,
    /// `[outputs, vectors]`.
    duals: Vec<f64>,
    intercepts: Vec<f64>,
}

impl Machine {
    fn read(object: Object<'_>, base: &mut Base) -> Result<Self, Fault> {
        let fitted = base.input.columns.unwrap_or(1);
        let kernel = Kernel::read(object, fitted)?;
        let supported = matches!(
            kernel,
            Kernel::Linear
                | Kernel::Polynomial { .. }
                | Kernel::Rbf { .. }
                | Kernel::Sigmoid { .. }
                | Kernel::Precomputed
        );
        if !supported {
            return Err(
                object.wrong("kernel", "is none of linear, poly, rbf, sigmoid, precomputed")
            );
        }
        let vectors = Self::vectors(object, base, kernel)?;
        let count = match &vectors {
            Vectors::Dense { count, .. } => *count,
            Vectors::Sparse { rows, .. } => rows.rows,
            Vectors::Columns(columns) => columns.len(),
        };
        // The private attributes are there from 0.16 on.
        let (outputs, found, duals) = matrix(object, "_dual_coef_")?;
        if found != count {
            let reason = format!("has {found} columns for {count} support vectors");
            return Err(object.wrong("_dual_coef_", reason));
        }
        let intercepts = object.vector("_intercept_", None)?;
        if outputs == 0 || intercepts.len() != (outputs + 1).saturating_mul(outputs) / 2 {
            let reason =
                format!("has {} values for {outputs} rows of coefficients", intercepts.len());
            return Err(object.wrong("_intercept_", reason));
        }
        let columns = base.input.columns.unwrap_or(fitted);
        Ok(Self { kernel, vectors, columns, duals, intercepts })
    }

    fn vectors(object: Object<'_>, base: &mut Base, kernel: Kernel) -> Result<Vectors, Fault> {
        let name = "support_vectors_";
        if matches!(kernel, Kernel::Precomputed) {
            let columns = base.input.columns.unwrap_or(0);
            let support = object.vector("support_", None)?;
            if support.iter().any(|&index| !(0.0..columns as f64).contains(&index)) {
                return Err(object.wrong("support_", "is outside of the kernel's columns"));
            }
            return Ok(Vectors::Columns(support.into_iter().map(|index| index as usize).collect()));
        }
        if let Some(inner) = object.attribute(name)?.as_object() {
            let rows = sparse(object, name, inner)?;
            base.columns(object, name, rows.columns)?;
            let norm = |row| rows.row(row).map(|(_, value)| value * value).sum();
            let norms = (0..rows.rows).map(norm).collect();
            return Ok(Vectors::Sparse { rows, norms });
        }
        let (count, columns, values) = matrix(object, name)?;
        base.columns(object, name, columns)?;
        Ok(Vectors::Dense { values, count })
    }

    /// Kernel values of a row against every support vector.
    fn kernels(&self, row: &[f64], answer: &mut Vec<f64>) {
        answer.clear();
        match &self.vectors {
            Vectors::Columns(columns) => answer.extend(columns.iter().map(|&column| row[column])),
            Vectors::Dense { values, count } => {
                answer.extend((0..*count).map(|index| {
                    self.kernel.at(row, &values[index * self.columns..][..self.columns])
                }))
            }
            Vectors::Sparse { rows, norms } => {
                let norm = dot(row, row);
                answer.extend((0..rows.rows).map(|index| {
                    let product: f64 =
                        rows.row(index).map(|(column, value)| value * row[column]).sum();
                    match self.kernel {
                        Kernel::Rbf { gamma } => {
                            (-gamma * (norm + norms[index] - 2.0 * product).max(0.0)).exp()
                        }
                        kernel => kernel.of_product(product),
                    }
                }));
            }
        }
    }

    fn vector_count(&self) -> usize {
        self.duals.len() / self.outputs().max(1)
    }

    fn outputs(&self) -> usize {
        // n (n + 1) / 2 intercepts for n rows of coefficients.
        (((8 * self.intercepts.len() + 1) as f64).sqrt() as usize).saturating_sub(1) / 2
    }

    /// The one decision of a machine without classes.
    fn decide(&self, x: &Points<'_>) -> Vec<f64> {
        x.map(1, |row, answer| {
            let mut kernels = Vec::with_capacity(self.vector_count());
            self.kernels(row, &mut kernels);
            answer[0] = dot(&kernels, &self.duals) + self.intercepts[0];
        })
    }
}

/// SVR and NuSVR.
struct Regressor(Machine);

impl Rule for Regressor {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.0.decide(x)))
    }
}

/// OneClassSVM.
struct OneClass {
    machine: Machine,
    offset: f64,
}

impl Rule for OneClass {
    fn predict(&self, _: &Base, x: &Points<'_>) -> Answer {
        let inlier = |value: f64| if value > 0.0 { 1 } else { -1 };
        Ok(Array::i64(vec![x.rows], self.machine.decide(x).into_iter().map(inlier).collect()))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        Ok(Array::f64(vec![x.rows], self.machine.decide(x)))
    }

    fn scores(&self, _: &Base, x: &Points<'_>) -> Answer {
        let scores = self.machine.decide(x).into_iter().map(|value| value + self.offset);
        Ok(Array::f64(vec![x.rows], scores.collect()))
    }
}

/// SVC and NuSVC.
struct Classifier {
    machine: Machine,
    /// First support vector of each class, and their number.
    starts: Vec<usize>,
    /// One decision per pair of classes instead of one per class.
    pairwise: bool,
    break_ties: bool,
    /// Slope and offset of each pair's probabilities.
    platt: Option<(Vec<f64>, Vec<f64>)>,
}

impl Classifier {
    fn classes(&self) -> usize {
        self.starts.len() - 1
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let classes = self.classes();
        (0..classes).flat_map(move |i| (i + 1..classes).map(move |j| (i, j)))
    }

    /// libsvm's decision of each pair, `[rows, pairs]`.
    fn pair_decisions(&self, x: &Points<'_>) -> Vec<f64> {
        let (machine, vectors) = (&self.machine, self.machine.vector_count());
        x.map(machine.intercepts.len(), |row, answer| {
            let mut kernels = Vec::with_capacity(vectors);
            machine.kernels(row, &mut kernels);
            for (pair, (i, j)) in self.pairs().enumerate() {
                let part = |of: usize, output: usize| {
                    let range = self.starts[of]..self.starts[of + 1];
                    dot(&machine.duals[output * vectors..][range.clone()], &kernels[range])
                };
                answer[pair] = part(i, j - 1) + part(j, i) + machine.intercepts[pair];
            }
        })
    }

    /// Votes and summed decisions as one value per class.
    fn per_class(&self, decisions: &[f64]) -> Vec<f64> {
        let classes = self.classes();
        let row = |decisions: &[f64]| {
            let (mut votes, mut sums) = (vec![0.0; classes], vec![0.0; classes]);
            for (&decision, (i, j)) in decisions.iter().zip(self.pairs()) {
                votes[if decision < 0.0 { j } else { i }] += 1.0;
                sums[i] += decision;
                sums[j] -= decision;
            }
            let confidence = |(vote, sum): (f64, f64)| vote + sum / (3.0 * (sum.abs() + 1.0));
            votes.into_iter().zip(sums).map(confidence).collect::<Vec<f64>>()
        };
        decisions.chunks_exact(self.machine.intercepts.len()).flat_map(row).collect()
    }
}

impl Rule for Classifier {
    fn predict(&self, base: &Base, x: &Points<'_>) -> Answer {
        let decisions = self.pair_decisions(x);
        if self.break_ties && !self.pairwise && self.classes() > 2 {
            return Ok(best(base.labels(), x.rows, &self.per_class(&decisions)));
        }
        let votes = decisions.chunks_exact(self.machine.intercepts.len()).flat_map(|row| {
            let mut votes = vec![0.0; self.classes()];
            for (&decision, (i, j)) in row.iter().zip(self.pairs()) {
                votes[if decision > 0.0 { i } else { j }] += 1.0;
            }
            votes
        });
        Ok(best(base.labels(), x.rows, &votes.collect::<Vec<f64>>()))
    }

    fn decision(&self, _: &Base, x: &Points<'_>) -> Answer {
        let decisions = self.pair_decisions(x);
        if self.classes() == 2 {
            let values = decisions.into_iter().map(|decision| -decision).collect();
            return Ok(Array::f64(vec![x.rows], values));
        }
        let values = if self.pairwise { decisions } else { self.per_class(&decisions) };
        Ok(Array::f64(vec![x.rows, values.len() / x.rows.max(1)], values))
    }

    fn proba(&self, base: &Base, x: &Points<'_>) -> Result<Vec<Array>, PredictError> {
        let Some((slopes, offsets)) = &self.platt else {
            return Err(PredictError::Internal(format!("{} has no probabilities", base.name)));
        };
        let classes = self.classes();
        let decisions = self.pair_decisions(x);
        let row = |decisions: &[f64]| {
            let mut shares = vec![0.0; classes * classes];
            for (pair, (i, j)) in self.pairs().enumerate() {
                let margin = decisions[pair] * slopes[pair] + offsets[pair];
                let share = (1.0 / (1.0 + margin.exp())).clamp(1e-7, 1.0 - 1e-7);
                shares[i * classes + j] = share;
                shares[j * classes + i] = 1.0 - share;
            }
            couple(classes, &shares)
        };
        let values = decisions.chunks_exact(self.machine.intercepts.len()).flat_map(row).collect();
        Ok(vec![Array::f64(vec![x.rows, classes], values)])
    }
}

/// Probabilities of classes from those of pairs (Wu, Lin and Weng 2004, the second method, as libsvm iterates it).
fn couple(classes: usize, shares: &[f64]) -> Vec<f64> {
    let share = |i: usize, j: usize| shares[i * classes + j];
    let mut q = vec![0.0; classes * classes];
    for t in 0..classes {
        for j in (0..classes).filter(|&j| j != t) {
            q[t * classes + t] += share(j, t) * share(j, t);
            q[t * classes + j] = -share(j, t) * share(t, j);
        }
    }
    let mut p = vec![1.0 / classes as f64; classes];
    for _ in 0..classes.max(100) {
        let mut qp: Vec<f64> = q.chunks_exact(classes).map(|row| dot(row, &p)).collect();
        let mut pqp = dot(&p, &qp);
        let error = qp.iter().map(|value| (value - pqp).abs()).fold(0.0, f64::max);
        if error < 0.005 / classes as f64 {
            break;
        }
        for t in 0..classes {
            let own = q[t * classes + t];
            let step = (pqp - qp[t]) / own;
            p[t] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[t])) / (1.0 + step) / (1.0 + step);
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[t * classes + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

/// An attribute under its private name or, before 0.23, its public one.
fn either(object: Object<'_>, new: &'static str, old: &'static str) -> &'static str {
    if object.get(new).is_some() { new } else { old }
}

fn classifier(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let mut base = Base::classifier(object, &[Method::Predict, Method::DecisionFunction])?;
    let machine = Machine::read(object, &mut base)?;
    let classes = base.labels().len();
    let name = either(object, "_n_support", "n_support_");
    let counts = object.vector(name, Some(classes))?;
    let mut starts = vec![0usize];
    for &count in &counts {
        let start = starts[starts.len() - 1].checked_add(count.max(0.0) as usize);
        starts.push(start.ok_or_else(|| object.wrong(name, "the sum is too large"))?);
    }
    if starts[classes] != machine.vector_count() || classes < 2 || machine.outputs() != classes - 1
    {
        let reason = format!("does not add up to {} support vectors", machine.vector_count());
        return Err(object.wrong(name, reason));
    }
    let pairs = machine.intercepts.len();
    let slopes = either(object, "_probA", "probA_");
    let fitted = object.get(slopes).and_then(|value| value.as_array());
    let platt = match fitted.is_some_and(|slopes| !slopes.is_empty()) {
        true => {
            let offsets = object.vector(either(object, "_probB", "probB_"), Some(pairs))?;
            Some((object.vector(slopes, Some(pairs))?, offsets))
        }
        false => None,
    };
    if platt.is_some() {
        base.methods.extend([Method::PredictProba, Method::PredictLogProba]);
    }
    let pairwise = match object.str("decision_function_shape")? {
        "ovr" => false,
        "ovo" => true,
        other => {
            let reason = format!("{other:?} is neither ovr nor ovo");
            return Err(object.wrong("decision_function_shape", reason));
        }
    };
    let break_ties = object.get("break_ties").is_some_and(|value| value.as_bool() == Some(true));
    Ok(base.with(Classifier { machine, starts, pairwise, break_ties, platt }))
}

/// A machine with one row of coefficients.
fn single(object: Object<'_>, methods: &[Method]) -> Result<(Base, Machine), Fault> {
    let mut base = Base::new(object, methods)?;
    let machine = Machine::read(object, &mut base)?;
    if machine.outputs() != 1 {
        return Err(object.wrong("_dual_coef_", "expected one row"));
    }
    Ok((base, machine))
}

fn regressor(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let (base, machine) = single(object, &[Method::Predict])?;
    Ok(base.with(Regressor(machine)))
}

fn one_class(object: Object<'_>, _: Builder) -> Result<Box<dyn Estimator>, Fault> {
    let methods = [Method::Predict, Method::DecisionFunction, Method::ScoreSamples];
    let (base, machine) = single(object, &methods)?;
    let offset = object.vector("offset_", Some(1))?[0];
    Ok(base.with(OneClass { machine, offset }))
}

/// Machines of libsvm.
pub(crate) static ESTIMATORS: &[Row] = &[
    Row { class: "NuSVC", build: classifier },
    Row { class: "NuSVR", build: regressor },
    Row { class: "OneClassSVM", build: one_class },
    Row { class: "SVC", build: classifier },
    Row { class: "SVR", build: regressor },
];
