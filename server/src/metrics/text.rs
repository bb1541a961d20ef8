//! Prometheus' text format, version 0.0.4.

use std::fmt::Write as _;

/// Labels of one sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Samples of one family.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
    /// In front of every sample's own labels.
    base: Vec<(&'a str, &'a str)>,
}

/// Anything with buckets.
pub(super) struct Buckets<'a> {
    pub(super) bounds: &'a [f64],
    /// Not cumulative; one more than there are bounds.
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
}

impl<'a> Family<'a> {
    pub(super) fn new(
        out: &'a mut String,
        name: &'static str,
        base: Vec<(&'a str, &'a str)>,
    ) -> Self {
        Self { out, name, base }
    }

    /// One value.
    pub(super) fn value(&mut self, labels: Labels<'_>, value: f64) {
        self.sample("", labels, None, value);
    }

    /// One count.
    pub(super) fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.value(labels, value as f64);
    }

    /// Buckets, sum and count.
    pub(super) fn buckets(&mut self, labels: Labels<'_>, buckets: &Buckets<'_>) {
        let mut total = 0;
        for (index, count) in buckets.counts.iter().enumerate() {
            total += count;
            let bound = buckets.bounds.get(index).map_or("+Inf".into(), f64::to_string);
            self.sample("_bucket", labels, Some(&bound), total as f64);
        }
        self.sample("_sum", labels, None, buckets.sum);
        self.sample("_count", labels, None, total as f64);
    }

    /// Sum and count.
    pub(super) fn summary(&mut self, labels: Labels<'_>, sum: f64, count: u64) {
        self.sample("_sum", labels, None, sum);
        self.sample("_count", labels, None, count as f64);
    }

    fn sample(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: f64) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        let mut separator = '{';
        let bound = bound.map(|bound| ("le", bound));
        for (name, value) in self.base.iter().chain(labels).chain(bound.iter()) {
            self.out.push(separator);
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(value, self.out);
            self.out.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.out.push('}');
        }
        writeln!(self.out, " {value}").expect("a string takes everything");
    }
}

/// Backslash, quote and line feed, as the format wants them.
fn escape(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_labels_escaped() {
        let mut out = String::new();
        let mut family = Family::new(&mut out, "x", vec![("m", "a\"b\\c\nd")]);
        let buckets = Buckets { bounds: &[0.5, 1.0], counts: vec![2, 0, 1], sum: 4.25 };
        family.buckets(&[("k", "v")], &buckets);
        let labels = "m=\"a\\\"b\\\\c\\nd\",k=\"v\"";
        let want = format!(
            "x_bucket{{{labels},le=\"0.5\"}} 2\nx_bucket{{{labels},le=\"1\"}} 2\n\
             x_bucket{{{labels},le=\"+Inf\"}} 3\nx_sum{{{labels}}} 4.25\nx_count{{{labels}}} 3\n"
        );
        assert_eq!(out, want);
    }
}
