//! The text formats: Prometheus 0.0.4, and OpenMetrics 1.0.0 for who asks for it.

use std::fmt::Write as _;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0: counters are named without their suffix in the header, bounds always have a fraction,
    /// and the text has an end.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` header prefers; OpenMetrics only when it is named.
    pub(crate) fn accepted(accept: &str) -> Self {
        let open = quality(accept, "application/openmetrics-text");
        if open > 0.0 && open >= quality(accept, "text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    fn bound(self, bound: f64) -> String {
        match self {
            Self::Prometheus => bound.to_string(),
            Self::OpenMetrics => format!("{bound:?}"),
        }
    }
}

/// How much a media type is wanted, 0 to 1; 0 when it is not named.
fn quality(accept: &str, media: &str) -> f32 {
    let entry = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(media) {
            return None;
        }
        let named = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        Some(named.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0)))
    };
    accept.split(',').filter_map(entry).fold(0.0, f32::max)
}

/// Labels of one sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// Samples of one family.
pub(super) struct Family<'a> {
    out: &'a mut String,
    format: Format,
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
        format: Format,
        name: &'static str,
        base: Vec<(&'a str, &'a str)>,
    ) -> Self {
        Self { out, format, name, base }
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
            let bound = buckets.bounds.get(index);
            let bound = bound.map_or("+Inf".into(), |&bound| self.format.bound(bound));
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
        let base = vec![("m", "a\"b\\c\nd")];
        let mut family = Family::new(&mut out, Format::Prometheus, "x", base);
        let buckets = Buckets { bounds: &[0.5, 1.0], counts: vec![2, 0, 1], sum: 4.25 };
        family.buckets(&[("k", "v")], &buckets);
        let labels = "m=\"a\\\"b\\\\c\\nd\",k=\"v\"";
        let want = format!(
            "x_bucket{{{labels},le=\"0.5\"}} 2\nx_bucket{{{labels},le=\"1\"}} 2\n\
             x_bucket{{{labels},le=\"+Inf\"}} 3\nx_sum{{{labels}}} 4.25\nx_count{{{labels}}} 3\n"
        );
        assert_eq!(out, want);
        let mut out = String::new();
        let mut family = Family::new(&mut out, Format::OpenMetrics, "x", Vec::new());
        family.buckets(&[], &Buckets { bounds: &[1e-6, 1.0], counts: vec![0; 3], sum: 0.0 });
        assert!(out.starts_with("x_bucket{le=\"1e-6\"} 0\nx_bucket{le=\"1.0\"} 0\n"), "{out}");
    }

    #[test]
    fn open_metrics_is_for_who_names_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, want) in [
            (prometheus, Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text, text/plain", Format::OpenMetrics),
            ("text/plain, application/openmetrics-text; q=0.9", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=x", Format::Prometheus),
            ("text/html, */*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), want, "{accept}");
        }
    }
}
