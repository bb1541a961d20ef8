//! Least angle regression (Efron and others 2004) on products: one coefficient path, walked for a number of steps.
//!
//! The library's steps are taken one by one, also where atoms depend on each other, so that ties and roundings fall as there.

use crate::steps::numeric::dot;
use crate::steps::sparse_coding::fitted;

/// Below it a path is at its end, and the pivot of an atom that depends on those in use.
const END: f64 = f32::EPSILON as f64;
const DEPENDENT: f64 = 1e-7;
/// Keeps quotients finite.
const TINY: f64 = f32::MIN_POSITIVE as f64;
/// Attempts to solve for a direction, each with twice as much added to the diagonal.
const ATTEMPTS: i32 = 64;

/// A point on the path.
struct Path<'a> {
    /// Products of atoms, `[count, count]`.
    gram: &'a [f64],
    /// Atoms; those in use come first.
    order: Vec<usize>,
    /// Products with what is left, in that order.
    left: Vec<f64>,
    /// Rows of the lower Cholesky factor of the atoms in use.
    factor: Vec<Vec<f64>>,
    signs: Vec<f64>,
    weights: Vec<f64>,
}

/// The weights of `products.len()` atoms after at most `steps` steps; `values` is the length of the row they explain.
pub(super) fn least_angle(gram: &[f64], products: &[f64], values: usize, steps: usize) -> Vec<f64> {
    let count = products.len();
    let (order, left) = ((0..count).collect(), products.to_vec());
    let (factor, signs, weights) = (Vec::new(), Vec::new(), Vec::new());
    let mut path = Path { gram, order, left, factor, signs, weights };
    let mut turned = false;
    let mut step = 0;
    loop {
        let (chosen, greatest) = path.greatest();
        if greatest / values as f64 <= END || step >= steps || path.factor.len() >= count {
            break;
        }
        if !turned && !path.take(chosen) {
            continue;
        }
        let Some((direction, scale)) = path.direction() else { break };
        turned = path.walk(&direction, scale, greatest);
        step += 1;
    }
    let mut code = vec![0.0; count];
    path.order.iter().zip(path.weights).for_each(|(&atom, weight)| code[atom] = weight);
    code
}

impl Path<'_> {
    fn gram(&self, a: usize, b: usize) -> f64 {
        self.gram[self.order[a] * self.order.len() + self.order[b]]
    }

    /// The place of the atom most like what is left, and how much.
    fn greatest(&self) -> (usize, f64) {
        let active = self.factor.len();
        (active..self.left.len()).fold((active, 0.0), |(best, most), place| {
            let size = self.left[place].abs();
            if size > most { (place, size) } else { (best, most) }
        })
    }

    /// Takes the atom at `chosen` into use; false where it depends on those in use, which never looks at it again.
    fn take(&mut self, chosen: usize) -> bool {
        let active = self.factor.len();
        self.order.swap(active, chosen);
        self.left.swap(active, chosen);
        let mut line: Vec<f64> = Vec::with_capacity(active + 1);
        for (at, above) in self.factor.iter().enumerate() {
            line.push((self.gram(active, at) - dot(&above[..at], &line)) / above[at]);
        }
        let rest = self.gram(active, active) - dot(&line, &line);
        let pivot = rest.abs().sqrt().max(f64::EPSILON);
        if pivot < DEPENDENT {
            // The library moves the products back, and not the atoms.
            self.left[active] = 0.0;
            self.left.swap(active, chosen);
            return false;
        }
        line.push(pivot);
        self.factor.push(line);
        self.signs.push(self.left[active].signum());
        self.weights.push(0.0);
        true
    }

    /// The direction of equal angles with every atom in use, and its scale.
    fn direction(&self) -> Option<(Vec<f64>, f64)> {
        let mut direction = fitted(&self.factor, self.signs.iter().copied());
        if direction == [0.0] {
            return Some((vec![1.0], 1.0));
        }
        let mut scale = 1.0 / dot(&direction, &self.signs).sqrt();
        let mut factor = Vec::new();
        for attempt in 0..ATTEMPTS {
            if scale.is_finite() {
                direction.iter_mut().for_each(|value| *value *= scale);
                return Some((direction, scale));
            }
            if factor.is_empty() {
                factor.clone_from(&self.factor);
            }
            for line in &mut factor {
                line.iter_mut().last().into_iter().for_each(|own| {
                    *own += f64::EPSILON * f64::powi(2.0, attempt);
                });
            }
            direction = fitted(&factor, self.signs.iter().copied());
            scale = 1.0 / dot(&direction, &self.signs).max(f64::EPSILON).sqrt();
        }
        None
    }

    /// Walks until another atom is as much like what is left; whether a weight would have changed its sign before.
    fn walk(&mut self, direction: &[f64], scale: f64, greatest: f64) -> bool {
        let (active, count) = (self.factor.len(), self.order.len());
        let along = |place: usize| {
            let terms = direction.iter().enumerate();
            let along: f64 = terms.map(|(at, value)| self.gram(at, place) * value).sum();
            // Equal products stay equal, whatever the order in which they are summed.
            (along * 1e15).round_ties_even() / 1e15
        };
        let along: Vec<f64> = (active..count).map(along).collect();
        let left = || self.left[active..].iter().zip(&along);
        let falling = left().map(|(left, along)| (greatest - left) / (scale - along + TINY));
        let rising = left().map(|(left, along)| (greatest + left) / (scale + along + TINY));
        let length = least_positive(falling.chain(rising)).min(greatest / scale);
        let turns = |(weight, value): (&f64, &f64)| -weight / (value + TINY);
        let turns: Vec<f64> = self.weights.iter().zip(direction).map(turns).collect();
        let first = least_positive(turns.iter().copied());
        let turned = first < length;
        if turned {
            let turning = self.signs.iter_mut().zip(&turns).filter(|(_, turn)| **turn == first);
            turning.for_each(|(sign, _)| *sign = -*sign);
        }
        self.weights.iter_mut().zip(direction).for_each(|(weight, by)| *weight += length * by);
        let rest = self.left[active..].iter_mut().zip(along);
        rest.for_each(|(left, along)| *left -= length * along);
        turned
    }
}

fn least_positive(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|&value| value > 0.0).fold(f64::MAX, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_at_right_angles_are_taken_in_their_order() {
        let gram = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let one = least_angle(&gram, &[1.0, -3.0, 2.0], 3, 1);
        assert_eq!(one, [0.0, -1.0, 0.0], "until the second is as much like what is left");
        let all = least_angle(&gram, &[1.0, -3.0, 2.0], 3, 3);
        let near = all.iter().zip([1.0, -3.0, 2.0]).all(|(got, want)| (got - want).abs() < 1e-12);
        assert!(near, "{all:?}");
    }

    #[test]
    fn what_is_no_number_ends() {
        let nothing = [f64::NAN; 4];
        assert_eq!(least_angle(&nothing, &[f64::NAN, 1.0], 2, 9).len(), 2);
        assert_eq!(least_angle(&[1.0; 4], &[2.0, 2.0], 2, 2), [2.0, 0.0], "twice the same atom");
    }
}
