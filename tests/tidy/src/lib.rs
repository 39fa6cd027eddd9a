//! Reads the tree: files and manifests, for the rules in `tests/tidy.rs`.

use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its name, from the root of the repository on, with forward slashes.
    pub name: String,
    /// Its content.
    pub text: String,
}

impl SourceFile {
    /// Its lines, numbered from one, without what stands behind `//`.
    pub fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| {
            // "://" is part of an address, not a comment.
            let code = line
                .match_indices("//")
                .find(|(at, _)| !line[..*at].ends_with(':'));
            (index + 1, code.map_or(line, |(at, _)| &line[..at]))
        })
    }

    /// The lines before the unit tests, which may use more than the code may.
    pub fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test_file = self.name.ends_with("/tests.rs");
        self.code_lines().take_while(move |(_, line)| {
            !is_test_file && !line.trim_start().starts_with("#[cfg(test)]")
        })
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All text files below a folder that the repository keeps: no build output, no
/// hidden folders but those named.
///
/// # Panics
/// If the folder cannot be read.
pub fn files(folder: &str) -> Vec<SourceFile> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "corpus", "artifacts"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let relative = path.strip_prefix(&root).unwrap_or(&path);
                found.push(SourceFile {
                    name: relative.to_string_lossy().replace('\\', "/"),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The Rust files below a folder.
pub fn rust_files(folder: &str) -> Vec<SourceFile> {
    files(folder)
        .into_iter()
        .filter(|file| file.name.ends_with(".rs"))
        .collect()
}

/// The names that a manifest lists as dependencies, in every section: those for
/// the code, or those for tests and build scripts as well.
///
/// # Panics
/// If there is no such manifest.
pub fn dependencies(package: &str, also_for_tests: bool) -> Vec<String> {
    let path = root().join(package).join("Cargo.toml");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest: toml::Table = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut tables = vec![&manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let sections: &[&str] = if also_for_tests {
        &["dependencies", "dev-dependencies", "build-dependencies"]
    } else {
        &["dependencies"]
    };
    let mut names: Vec<String> = tables
        .into_iter()
        .flat_map(|table| sections.iter().filter_map(|section| table.get(*section)))
        .filter_map(toml::Value::as_table)
        .flat_map(|section| section.keys().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The value of a constant that is a plain number or a duration, as it stands in prose: "2,048", "150 ms", "1.5 s".
///
/// # Panics
/// If the file cannot be read.
pub fn constant(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(root().join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"));
    let begin = format!("const {name}: ");
    let line = text.lines().find(|line| line.contains(&begin))?;
    let value = line.split_once(" = ")?.1.strip_suffix(';')?;
    let number = |text: &str| text.replace('_', "").parse::<u64>().ok();
    let of = |call: &str| number(value.strip_prefix(call)?.strip_suffix(')')?);
    if let Some(s) = of("Duration::from_secs(") {
        return Some(format!("{s} s"));
    }
    if let Some(ms) = of("Duration::from_millis(") {
        let seconds = ms as f64 / 1e3;
        return Some(if ms < 1_000 {
            format!("{ms} ms")
        } else {
            format!("{seconds} s")
        });
    }
    let digits = number(value)?.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    Some(grouped)
}
