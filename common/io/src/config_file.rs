//! Reading TOML, and complaining about it so that the person at the keyboard can
//! put it right: file, line, column, field, what is allowed.
//!
//! The text is parsed twice. The first pass yields a tree that knows where each
//! key stands; the second fills the settings type. When the second complains, its
//! byte position is looked up in the tree, which tells the field's full name
//! (`uplink.0.role`) although the complaint itself only knows the last part.
//!
//! The parser speaks of Rust's types ("expected u16"); who typed the file is told
//! what to write instead.
//!
//! A settings type should say `#[serde(deny_unknown_fields)]`, as the complaint
//! then lists what is allowed. Where a type forgets it, an unknown field is
//! refused all the same: a setting that is silently ignored is worse than none.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::failure::{Class, Failure};

/// Larger files are refused: nobody types this much, it is some other file.
const LARGEST: u64 = 1 << 20;

/// Reads the settings in the TOML file at `path`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let cannot = |error: &std::io::Error| {
        let failure = Failure::io(format!("cannot read {}", path.display()), error);
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => failure,
            _ => failure.in_class(Class::Usage),
        }
    };
    let size = std::fs::metadata(path)
        .map_err(|error| cannot(&error))?
        .len();
    if size > LARGEST {
        return Err(Failure::usage(format!(
            "{} has {size} bytes and cannot be a configuration file",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    parse(&text, path)
}

/// Reads the settings in `text`; `path` names the file in complaints.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Failure> {
    let tree = DeTable::parse(text).map_err(|error| complaint(text, path, None, &error))?;
    let mut unknown: Option<String> = None;
    let filled = serde_ignored::deserialize(
        toml::de::Deserializer::from(tree.clone()),
        |field: serde_ignored::Path<'_>| {
            // An optional value's step is written as "?", which is no part of the name.
            unknown.get_or_insert_with(|| field.to_string().replace(".?", ""));
        },
    )
    .map_err(|error| complaint(text, path, Some(tree.get_ref()), &error))?;
    match unknown {
        None => Ok(filled),
        Some(field) => {
            let at = position_of(tree.get_ref(), &field).unwrap_or(0..0);
            Err(Failure::usage(format!(
                "{}: unknown field `{field}`",
                place(text, path, at.start)
            ))
            .with_advice("remove it or correct its name"))
        }
    }
}

/// The complaint of the parser, with file, line, column and the field's full name.
fn complaint(
    text: &str,
    path: &Path,
    tree: Option<&DeTable<'_>>,
    error: &toml::de::Error,
) -> Failure {
    // The parser spreads its message over lines; one sentence is enough here.
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let span = error.span();
    let value = span.clone().and_then(|span| text.get(span));
    let message = in_plain_words(&message, value.unwrap_or_default());
    let Some(span) = span else {
        return Failure::usage(format!("{}: {message}", path.display()));
    };
    let place = place(text, path, span.start);
    match tree.and_then(|tree| field_at(tree, &span)) {
        Some(field) => Failure::usage(format!("{place}: field `{field}`: {message}")),
        None => Failure::usage(format!("{place}: {message}")),
    }
}

/// The parser's message about what was typed, `value`, without the names of Rust's types.
fn in_plain_words(message: &str, value: &str) -> String {
    let Some((what, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    // The place of a section is its head.
    let section = value
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let wanted = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text in quotation marks",
        "a map" => "a section",
        struct_name if struct_name.starts_with("struct ") => "a section",
        "a sequence" => match section {
            Some((name, _)) if what.starts_with("invalid type: map") => {
                return format!(
                    "field `{name}`: it may be there several times: write [[{name}]], with two brackets"
                );
            }
            _ if value.starts_with('"') => {
                return format!("{what}, expected a list: write [{value}]");
            }
            _ => "a list in brackets, such as [\"one\", \"two\"]",
        },
        _ => return message.to_owned(),
    };
    format!("{what}, expected {wanted}")
}

/// The place of `field` in the file at `path`, whose text is `text`: "file:line", or the file
/// alone if the field is not there.
pub fn place_of(text: &str, path: &Path, field: &str) -> String {
    match line_of(text, field) {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}

/// The number of the first line that sets `field` or opens a table called so.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let names = |line: &str| {
        let line = line.trim_start().trim_start_matches('[').trim_start();
        line.strip_prefix(field)
            .is_some_and(|rest| matches!(rest.trim_start().chars().next(), Some('=' | ']')))
    };
    text.lines().position(names).map(|at| at + 1)
}

/// The complaint that the file `key`, which `field` of the settings at `path` names, is not there.
pub fn no_key_file(text: &str, path: &Path, field: &str, key: &Path) -> Failure {
    Failure::usage(format!(
        "{}: field `{field}`: there is no file {}",
        place_of(text, path, field),
        key.display()
    ))
}

/// "file:line:column", both counted from one, columns in characters.
fn place(text: &str, path: &Path, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("{}:{line}:{column}", path.display())
}

/// The full name of the innermost field whose key or value covers the start of `span`.
fn field_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref().as_ref();
        if let Some(inner) = field_in(value.get_ref(), span) {
            return Some(format!("{name}.{inner}"));
        }
        // A whole table is no field: what is wrong is then between its fields.
        let covered = key.span().contains(&span.start)
            || (!value.get_ref().is_table() && value.span().contains(&span.start));
        covered.then(|| name.to_owned())
    })
}

fn field_in(value: &DeValue<'_>, span: &Range<usize>) -> Option<String> {
    if let Some(table) = value.as_table() {
        return field_at(table, span);
    }
    value
        .as_array()?
        .iter()
        .enumerate()
        .find_map(|(number, item)| {
            field_in(item.get_ref(), span).map(|inner| format!("{number}.{inner}"))
        })
}

/// Where the key of the field with the full name `field` stands.
fn position_of(table: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    table.iter().find_map(|(key, value)| {
        let rest = field.strip_prefix(key.get_ref().as_ref())?;
        if rest.is_empty() {
            return Some(key.span());
        }
        position_in(value.get_ref(), rest.strip_prefix('.')?)
    })
}

fn position_in(value: &DeValue<'_>, field: &str) -> Option<Range<usize>> {
    if let Some(table) = value.as_table() {
        return position_of(table, field);
    }
    let (number, rest) = field.split_once('.')?;
    position_in(
        value
            .as_array()?
            .get(number.parse::<usize>().ok()?)?
            .get_ref(),
        rest,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Role {
        Always,
        Never,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only read by Debug
    struct Strict {
        port: u16,
        #[serde(default)]
        uplink: Vec<Uplink>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // only read by Debug
    struct Uplink {
        name: String,
        role: Role,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[allow(dead_code)] // only read by Debug
    struct Words {
        port: u16,
        names: Vec<String>,
        on: bool,
        uplink: Vec<Uplink>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)] // only read by Debug
    struct Lax {
        port: u16,
        inner: Option<LaxInner>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)] // only read by Debug
    struct LaxInner {
        x: u8,
    }

    fn refused<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        let failure = parse::<T>(text, Path::new("m.toml")).expect_err("must be refused");
        assert_eq!(failure.exit_code(), 2);
        failure.to_string()
    }

    #[test]
    fn good_settings_are_read() {
        let text = "port = 7\n[[uplink]]\nname = \"a\"\nrole = \"always\"\n";
        let read = parse::<Strict>(text, Path::new("m.toml")).expect("it is right");
        assert_eq!(read.port, 7);
        assert_eq!(read.uplink.len(), 1);
    }

    #[test]
    fn an_unknown_field_is_refused_with_place_and_what_is_allowed() {
        let text = "port = 7\n\n[[uplink]]\nname = \"a\"\n  rolle = \"always\"\n";
        let said = refused::<Strict>(text);
        assert!(
            said.starts_with("m.toml:5:3: field `uplink.0.rolle`: unknown field"),
            "{said}"
        );
        assert!(said.contains("`name`") && said.contains("`role`"), "{said}");
    }

    #[test]
    fn a_wrong_value_names_its_field_and_what_is_allowed() {
        let said = refused::<Strict>("port = 7\n[[uplink]]\nname = \"a\"\nrole = \"sometimes\"\n");
        assert!(
            said.starts_with("m.toml:4:8: field `uplink.0.role`: "),
            "{said}"
        );
        assert!(
            said.contains("`always`") && said.contains("`never`"),
            "{said}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_at_its_place() {
        let said = refused::<Strict>("port = 70000\n");
        assert!(said.starts_with("m.toml:1:8: field `port`: "), "{said}");
    }

    #[test]
    fn what_a_value_should_be_is_said_without_the_names_of_types() {
        for (line, expected) in [
            ("port = \"7\"", "expected a whole number from 0 to 65535"),
            ("port = 70000", "expected a whole number from 0 to 65535"),
            ("port = -1", "expected a whole number from 0 to 65535"),
            ("names = 3", "expected a list in brackets, such as"),
            ("names = \"docker*\"", "write [\"docker*\"]"),
            ("names = [3]", "expected text in quotation marks"),
            ("uplink = [3]", "expected a section"),
            ("on = 1", "expected true or false"),
        ] {
            let said = refused::<Words>(&format!("\n{line}\n"));
            assert!(said.starts_with("m.toml:2:"), "{said}");
            let field = line.split(' ').next().unwrap();
            assert!(said.contains(&format!("field `{field}")), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_section_that_may_be_there_several_times_needs_two_brackets() {
        let said = refused::<Strict>("port = 7\n[uplink]\nname = \"a\"\nrole = \"always\"\n");
        assert!(said.starts_with("m.toml:2:1: field `uplink`: "), "{said}");
        assert!(
            said.contains("write [[uplink]], with two brackets"),
            "{said}"
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let said = refused::<Strict>("[[uplink]]\nname = \"a\"\nrole = \"always\"\n");
        assert!(said.contains("missing field `port`"), "{said}");
        let said = refused::<Strict>("port = 1\n[[uplink]]\nname = \"a\"\n");
        assert!(
            said.contains("m.toml:2:1") && said.contains("missing field `role`"),
            "{said}"
        );
    }

    #[test]
    fn broken_syntax_is_refused_at_its_place() {
        let said = refused::<Strict>("port = 7\nuplink = [\n");
        assert!(said.starts_with("m.toml:"), "{said}");
        assert!(!said.contains('\n'), "{said}");
        let said = refused::<Strict>("port = 7\nport = 8\n");
        assert!(said.starts_with("m.toml:2:1"), "{said}");
    }

    #[test]
    fn a_field_that_the_type_would_ignore_is_refused_too() {
        let said = refused::<Lax>("port = 7\ncolour = 3\n");
        assert!(
            said.starts_with("m.toml:2:1: unknown field `colour`"),
            "{said}"
        );
        let said = refused::<Lax>("port = 7\n[inner]\nx = 1\ny = 2\n");
        assert!(said.contains("unknown field `inner.y`"), "{said}");
        assert!(said.starts_with("m.toml:4:1"), "{said}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_matter_of_usage() {
        let failure = load::<Strict>(Path::new("/nonexistent/marline.toml")).expect_err("no file");
        assert!(
            failure
                .to_string()
                .starts_with("cannot read /nonexistent/marline.toml: ")
        );
        assert_eq!(failure.exit_code(), 2);
    }
}
