//! Fuzz targets, for a few seconds each, beginning with the corpus that is kept.
//!
//! A package in a folder `fuzz` has a program for each `fuzz_targets/NAME.rs`, with libFuzzer in it (libfuzzer-sys), and
//! inputs worth keeping in `corpus/NAME/`. The coverage that libFuzzer steers by comes from LLVM, so a stable compiler
//! will do. An input that breaks something is left in the target directory: put it into the corpus with the repair.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::Outcome;
use crate::{paths, run, tally::Tally, toolchain};

/// How long each target runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(u32);

impl Seconds {
    /// When one is asked for by its name.
    pub(super) const FEW: Self = Self(5);
    /// What takes too long for that.
    pub(super) const MANY: Self = Self(90);
}

/// What cargo-fuzz asks of the compiler, without an address sanitizer: that one needs a nightly compiler.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// Builds and runs every target with the filter in its name.
pub(super) fn all(filter: Option<&str>, seconds: Seconds) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for package in packages(paths::workspace())? {
        let targets: Vec<String> =
            targets(&package)?.into_iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect();
        if targets.is_empty() {
            continue;
        }
        let programs = build(&package)?;
        for target in targets {
            run::say(format!("fuzzing {target} for {} s", seconds.0));
            let result = fuzz(&package, &programs.join(&target), &target, seconds);
            outcome.tally += Tally::one(result.is_ok());
            outcome.failures.extend(result.err().map(|error| format!("{error:#}")));
        }
    }
    Ok(outcome)
}

/// Folders named `fuzz` with a package in them, at most three levels down.
fn packages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !path.is_dir() || name.starts_with('.') || name == "target" {
                continue;
            }
            if name == "fuzz" && path.join("Cargo.toml").is_file() {
                found.push(path);
            } else if depth < 2 {
                folders.push((path, depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn targets(package: &Path) -> Result<Vec<String>> {
    let folder = package.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("{} has no fuzz_targets", package.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds a package's programs and returns their folder. A target directory of its own: other flags than the tests'.
fn build(package: &Path) -> Result<PathBuf> {
    let target = paths::target().join("fuzz");
    let host = toolchain::host();
    run::run(
        run::cargo()
            .args(["build", "--locked", "--bins", "--target", &host, "--manifest-path"])
            .arg(package.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
            .env_remove("RUSTFLAGS"),
    )?;
    Ok(target.join(host).join("debug"))
}

fn fuzz(package: &Path, program: &Path, target: &str, seconds: Seconds) -> Result<()> {
    // libFuzzer writes new inputs to the first folder and reads all: the kept corpus stays as it is.
    let found = paths::target().join("fuzz/corpus").join(target);
    let broken = paths::target().join("fuzz/broken");
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&broken)?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={}", seconds.0))
        .arg("-timeout=5")
        .arg("-verbosity=0")
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/{target}-", broken.display()))
        .arg(&found);
    let kept = package.join("corpus").join(target);
    if kept.is_dir() {
        command.arg(kept);
    }
    run::run(&mut command).with_context(|| {
        format!("fuzz target {target}: the input is in {}, to be put into the corpus", broken.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_by_their_folder() {
        let root = std::env::temp_dir().join(format!("fairlead-fuzz-{}", std::process::id()));
        for folder in ["dns/fuzz/fuzz_targets", "ebpf/datapath/fuzz", "target/fuzz", "tests/fuzz"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["dns/fuzz/Cargo.toml", "ebpf/datapath/fuzz/Cargo.toml", "target/fuzz/Cargo.toml"] {
            fs::write(root.join(file), "").unwrap();
        }
        fs::write(root.join("dns/fuzz/fuzz_targets/query.rs"), "").unwrap();
        let found = packages(&root).unwrap();
        let names = targets(&root.join("dns/fuzz")).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [root.join("dns/fuzz"), root.join("ebpf/datapath/fuzz")]);
        assert_eq!(names, ["query"]);
    }
}
