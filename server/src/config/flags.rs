//! What a command line flag is: its name, what follows it, and what becomes of it.
//!
//! The table itself is in `flag_table.rs`; reading, `--help` and `docs/flags.md` all use it. A flag
//! of the runtimes whose manifests we answer to is always one of three: obeyed, accepted without
//! effect for a reason that is printed, or refused because going on would serve something else than
//! what was asked for.

pub use super::flag_table::GROUPS;

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing, or a boolean; `--no-NAME` is false.
    Switch,
    /// A whole number; units as in `4k` (4000) and `4K` (4096) are understood.
    Whole,
    /// A decimal number.
    Decimal,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// JSON.
    Json,
    /// One or more texts, up to the next flag.
    List,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Does what its help says.
    Obeyed {
        /// The default, as `--help` prints it.
        default: &'static str,
        /// A value that is not the default; a test gives it and looks for the difference.
        example: &'static str,
    },
    /// Read, then left aside with a warning that says why.
    NoEffect {
        /// Why.
        because: &'static str,
    },
    /// Stops the start, unless its value asks for nothing.
    Refused {
        /// Why.
        because: &'static str,
        /// Values that ask for nothing.
        harmless: &'static [&'static str],
    },
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes, words joined by `-`.
    pub name: &'static str,
    /// Other spellings of the same setting.
    pub aliases: &'static [&'static str],
    /// What follows it.
    pub value: Value,
    /// What becomes of it.
    pub kind: Kind,
    /// What it sets.
    pub help: &'static str,
}

impl Flag {
    /// A flag that is obeyed. `default` and `example` as in [`Kind::Obeyed`].
    pub const fn obeyed(
        name: &'static str,
        value: Value,
        [default, example]: [&'static str; 2],
        help: &'static str,
    ) -> Self {
        Self { name, aliases: &[], value, kind: Kind::Obeyed { default, example }, help }
    }

    /// A flag that is accepted without effect.
    pub const fn no_effect(
        name: &'static str,
        value: Value,
        help: &'static str,
        because: &'static str,
    ) -> Self {
        Self { name, aliases: &[], value, kind: Kind::NoEffect { because }, help }
    }

    /// A flag that is refused unless its value is among `harmless`.
    pub const fn refused(
        name: &'static str,
        value: Value,
        harmless: &'static [&'static str],
        [help, because]: [&'static str; 2],
    ) -> Self {
        Self { name, aliases: &[], value, kind: Kind::Refused { because, harmless }, help }
    }

    /// The same flag with further spellings.
    #[must_use]
    pub const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// Flags of one subject, in the order of the documentation.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its heading.
    pub title: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
}

/// Every flag of the table.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|group| group.flags)
}

/// The flag with this name or alias, in which `_` is as good as `-`.
pub fn find(name: &str) -> Option<&'static Flag> {
    let name = name.replace('_', "-");
    all().find(|flag| flag.name == name || flag.aliases.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_spelling_belongs_to_one_flag() {
        let mut seen = BTreeSet::new();
        for flag in all() {
            for name in std::iter::once(&flag.name).chain(flag.aliases) {
                assert!(seen.insert(name), "--{name} is in the table twice");
                assert!(!name.contains('_') && !name.starts_with("no-"), "--{name}");
            }
            assert!(!flag.help.is_empty() && !flag.help.ends_with('.'), "--{}", flag.name);
        }
    }

    #[test]
    fn underscores_and_aliases_find_the_flag() {
        assert_eq!(find("max_model_len").map(|flag| flag.name), Some("max-model-len"));
        assert_eq!(find("max_length").map(|flag| flag.name), Some("max-model-len"));
        assert!(find("no_such_flag").is_none());
    }
}
