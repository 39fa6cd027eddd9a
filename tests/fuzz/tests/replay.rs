//! Runs every stored input, and damaged copies of it, through its target.
//!
//! The damage comes from a fixed seed, so two runs of one commit do exactly the same. When an
//! input breaks a target, its bytes are printed: put them into `corpus/TARGET` with the fix.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use marline_fuzz::TARGETS;

#[test]
fn no_stored_input_breaks_its_target() {
    for target in TARGETS {
        for (path, bytes) in corpus(target.name) {
            run(&path.display().to_string(), &bytes, target.check);
        }
    }
}

#[test]
fn no_damaged_copy_of_a_stored_input_breaks_its_target() {
    for target in TARGETS {
        let inputs = corpus(target.name);
        for (k, (path, bytes)) in inputs.iter().enumerate() {
            let mut random = Random(0x6d61_726c_696e_6500 + k as u64);
            for copy in 0..target.copies {
                let other = &inputs[random.below(inputs.len())].1;
                let damaged = damage(bytes, other, &mut random);
                run(
                    &format!("{}, damaged copy {copy}", path.display()),
                    &damaged,
                    target.check,
                );
            }
        }
    }
}

#[test]
fn every_corpus_folder_belongs_to_a_target() {
    let folders = fs::read_dir(root()).expect("the corpus is there");
    for folder in folders {
        let name = folder.expect("a readable folder").file_name();
        assert!(
            TARGETS
                .iter()
                .any(|target| name.to_str() == Some(target.name)),
            "no target reads corpus/{}",
            name.display()
        );
    }
}

fn run(what: &str, bytes: &[u8], check: fn(&[u8])) {
    let passed = catch_unwind(|| check(bytes)).is_ok();
    assert!(passed, "broken by {what}: {}", bytes.escape_ascii());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join(target);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    assert!(!paths.is_empty(), "{} holds no input", folder.display());
    // The order of a directory is not the same everywhere.
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// A copy with one to four things wrong with it.
fn damage(bytes: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=random.below(4) {
        match random.below(6) {
            0 if !out.is_empty() => {
                let at = random.below(out.len());
                out[at] ^= 1 << random.below(8);
            }
            1 if !out.is_empty() => {
                let at = random.below(out.len());
                // Limits are where parsers break.
                out[at] = [0x00, 0x01, 0x7f, 0x80, 0xff, random.next() as u8][random.below(6)];
            }
            2 if !out.is_empty() => out.truncate(random.below(out.len())),
            3 => {
                let at = random.below(out.len() + 1);
                let value = random.next() as u8;
                out.splice(at..at, std::iter::repeat_n(value, 1 + random.below(16)));
            }
            4 if !out.is_empty() => {
                let from = random.below(out.len());
                let to = from + random.below(out.len() - from);
                out.drain(from..to);
            }
            _ => {
                // The head of one input on the tail of another.
                let at = random.below(out.len() + 1);
                out.truncate(at);
                out.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    out
}

/// SplitMix64: tiny, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
