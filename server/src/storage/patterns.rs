//! Shell patterns as Python's `fnmatch` reads them: `*` and `?` also match slashes.

/// Whether a path is wanted: some pattern of `allow` matches it (or there is none) and no pattern of `ignore` does.
pub(crate) fn wants(allow: &[String], ignore: &[String], path: &str) -> bool {
    let matched = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, path));
    (allow.is_empty() || matched(allow)) && !matched(ignore)
}

/// First and last characters.
type Ranges = Vec<(char, char)>;

/// One step of a pattern.
enum Step {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character.
    Exact(char),
    /// `[...]`: ranges, and whether they are those that do not match.
    Set(Ranges, bool),
}

/// Whether the whole text matches. Takes time in proportion to both lengths multiplied.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let steps = steps(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut step, mut at) = (0, 0);
    // The last `*`, and where the text behind what it takes begins.
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        let fits = match steps.get(step) {
            Some(Step::Any) => {
                star = Some((step, at));
                step += 1;
                continue;
            }
            Some(Step::One) => true,
            Some(Step::Exact(c)) => *c == text[at],
            Some(Step::Set(ranges, negated)) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&text[at])) != *negated
            }
            None => false,
        };
        match (fits, &mut star) {
            (true, _) => (step, at) = (step + 1, at + 1),
            (false, Some((any, taken))) => {
                *taken += 1;
                (step, at) = (*any + 1, *taken);
            }
            (false, None) => return false,
        }
    }
    steps[step..].iter().all(|step| matches!(step, Step::Any))
}

fn steps(pattern: &str) -> Vec<Step> {
    let pattern: Vec<char> = pattern.chars().collect();
    let mut steps = Vec::with_capacity(pattern.len());
    let mut at = 0;
    while let Some(&c) = pattern.get(at) {
        at += 1;
        match c {
            '*' => steps.push(Step::Any),
            '?' => steps.push(Step::One),
            '[' => match set(&pattern[at..]) {
                Some((ranges, negated, length)) => {
                    steps.push(Step::Set(ranges, negated));
                    at += length;
                }
                None => steps.push(Step::Exact('[')),
            },
            _ => steps.push(Step::Exact(c)),
        }
    }
    steps
}

/// What follows a `[`, and how long it is with its `]`; `None` without one. A `]` at the beginning stands for itself.
fn set(rest: &[char]) -> Option<(Ranges, bool, usize)> {
    let negated = rest.first() == Some(&'!');
    let from = usize::from(negated);
    let end = rest.iter().skip(from + 1).position(|&c| c == ']')? + from + 1;
    let mut ranges = Vec::new();
    let mut at = from;
    while at < end {
        if at + 2 < end && rest[at + 1] == '-' {
            ranges.push((rest[at], rest[at + 2]));
            at += 3;
        } else {
            ranges.push((rest[at], rest[at]));
            at += 1;
        }
    }
    Some((ranges, negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, text, want) in [
            ("*.json", "config.json", true),
            ("*.json", "sub/config.json", true),
            ("sub/*", "sub/a/b.bin", true),
            ("sub/*", "other/a", false),
            ("model-?.bin", "model-1.bin", true),
            ("model-?.bin", "model-10.bin", false),
            ("model-[0-3].bin", "model-2.bin", true),
            ("model-[0-3].bin", "model-4.bin", false),
            ("[!a]x", "bx", true),
            ("[!a]x", "ax", false),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[a-]", "-", true),
            ("[", "[", true),
            ("[ab", "[ab", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c", "xxaxxbxxcxx", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("JSON", "json", false),
            ("\u{e9}?", "\u{e9}\u{e9}", true),
        ] {
            assert_eq!(matches(pattern, text), want, "{pattern} {text}");
        }
        // Backtracking does not explode.
        let long = "a".repeat(4000);
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &long));
    }

    #[test]
    fn what_is_allowed_and_not_ignored_is_wanted() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (allow, ignore, path, want) in [
            (&[][..], &[][..], "a", true),
            (&["*.json"], &[], "a.bin", false),
            (&["*.bin", "*.json"], &[], "a.json", true),
            (&["*.json"], &["tokenizer*"], "tokenizer.json", false),
            (&[], &["*.bin"], "sub/a.bin", false),
        ] {
            assert_eq!(
                wants(&list(allow), &list(ignore), path),
                want,
                "{allow:?} {ignore:?} {path}"
            );
        }
    }
}
