//! `{% generation %}` marks what the assistant wrote, for training. Here it means nothing.
//!
//! The tags become `{% with %}` and `{% endwith %}`: they scope variables and take white space as the original
//! ones do. Comments, strings and raw blocks stay as they are.

/// `source` without generation tags.
pub(super) fn remove(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = match rest.as_bytes().get(1) {
            Some(b'#') if !raw => rest.find("#}").map_or(rest.len(), |end| end + 2),
            Some(b'{') if !raw => delimited(rest, "}}"),
            Some(b'%') => delimited(rest, "%}"),
            _ => 1,
        };
        let part = &rest[..len];
        match tag_name(part) {
            "raw" => raw = true,
            "endraw" => raw = false,
            _ => {}
        }
        match tag_name(part) {
            name @ ("generation" | "endgeneration") if !raw => {
                out.push_str(&part.replacen(name, &name.replace("generation", "with"), 1));
            }
            _ if raw && tag_name(part) != "raw" => {
                // Within a raw block, quotes and the like mean nothing: go on after the brace.
                out.push('{');
                rest = &rest[1..];
                continue;
            }
            _ => out.push_str(part),
        }
        rest = &rest[len..];
    }
    out.push_str(rest);
    out
}

/// The most code in one tag or expression of `source`, in bytes; text in quotes does not count.
pub(super) fn longest_code(source: &str) -> usize {
    let mut longest = 0;
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let len = match rest.as_bytes().get(1) {
            Some(b'{') => delimited(rest, "}}"),
            Some(b'%') => delimited(rest, "%}"),
            _ => 1,
        };
        longest = longest.max(code_len(&rest[..len]));
        rest = &rest[len..];
    }
    longest
}

/// Bytes outside of quotes.
fn code_len(part: &str) -> usize {
    let (mut quote, mut escaped, mut len) = (None, false, 0);
    for byte in part.bytes() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(q) if byte == q => quote = None,
            Some(_) => {}
            None => {
                len += 1;
                quote = (byte == b'"' || byte == b'\'').then_some(byte);
            }
        }
    }
    len
}

/// Length of a tag or an expression, its closing delimiter included; strings may contain that.
fn delimited(text: &str, close: &str) -> usize {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(q), b) if q == b => quote = None,
            (None, b @ (b'"' | b'\'')) => quote = Some(b),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return at + close.len(),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The only word of a tag; empty for anything else.
fn tag_name(part: &str) -> &str {
    let inner = part.strip_prefix("{%").and_then(|p| p.strip_suffix("%}")).unwrap_or_default();
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner).trim();
    match inner.bytes().all(|b| b.is_ascii_alphanumeric()) {
        true => inner,
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_replaced_and_nothing_else() {
        for (source, expected) in [
            ("a{% generation %}b{%- endgeneration -%}c", "a{% with %}b{%- endwith -%}c"),
            ("{%-generation%}", "{%-with%}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            (
                "{% raw %}{% generation %}' {{ {% endraw %}{% generation %}",
                "{% raw %}{% generation %}' {{ {% endraw %}{% with %}",
            ),
            (
                "{% set generation = 1 %}{{ generation }}",
                "{% set generation = 1 %}{{ generation }}",
            ),
            ("{% if x == '%}' %}{% generation %}", "{% if x == '%}' %}{% with %}"),
            ("{", "{"),
            ("{%", "{%"),
            ("{{ '\\", "{{ '\\"),
            ("é{%é", "é{%é"),
        ] {
            assert_eq!(remove(source), expected, "{source}");
        }
    }
}
