//! Fuzz targets, for a few seconds each, beginning with the corpus that is kept.
//!
//! A package in a folder `fuzz` has a program for each `fuzz_targets/NAME.rs`, with libFuzzer in it (libfuzzer-sys), and
//! inputs worth keeping in `corpus/NAME/`. The coverage that libFuzzer steers by comes from LLVM, so a stable compiler
//! will do. An input that breaks something is left in the target directory: put it into the corpus with the repair.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::Outcome;
use crate::{paths, run, tally::Tally, toolchain};

/// How much each target does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    seconds: u32,
    /// What a target that counts steps (one input has many) makes at least, in as many runs as that takes.
    steps: u64,
}

impl Effort {
    /// When one is asked for by its name.
    pub(super) const SOME: Self = Self { seconds: 5, steps: 0 };
    /// What takes too long for that.
    pub(super) const MUCH: Self = Self { seconds: 90, steps: 10_000_000 };
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
pub(super) fn all(filter: Option<&str>, effort: Effort) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for package in packages(paths::workspace())? {
        let targets: Vec<String> =
            targets(&package)?.into_iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect();
        if targets.is_empty() {
            continue;
        }
        let programs = build(&package)?;
        for target in targets {
            run::say(format!("fuzzing {target} for {} s", effort.seconds));
            let result = fuzz(&package, &programs.join(&target), &target, effort);
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

fn fuzz(package: &Path, program: &Path, target: &str, effort: Effort) -> Result<()> {
    // libFuzzer writes new inputs to the first folder and reads all: the kept corpus stays as it is.
    let found = paths::target().join("fuzz/corpus").join(target);
    let broken = paths::target().join("fuzz/broken");
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&broken)?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={}", effort.seconds))
        .arg("-timeout=5")
        .arg("-verbosity=0")
        .arg("-print_final_stats=1")
        .arg(format!("-artifact_prefix={}/{target}-", broken.display()))
        .arg(&found);
    let kept = package.join("corpus").join(target);
    if kept.is_dir() {
        command.arg(kept);
    }
    let mut run = || {
        once(&mut command).with_context(|| {
            format!("fuzz target {target}: the input is in {}, to be put into the corpus", broken.display())
        })
    };
    let mut steps = 0;
    while let Some(made) = run()? {
        steps += made;
        run::say(format!("{target}: {steps} steps"));
        if steps >= effort.steps {
            break;
        }
        ensure!(made > 0, "fuzz target {target} makes no steps in {} s", effort.seconds);
    }
    Ok(())
}

/// Runs a fuzzer and shows what it says. Of a target that counts steps: how many it has made.
fn once(command: &mut Command) -> Result<Option<u64>> {
    let mut child = command.stderr(Stdio::piped()).spawn().context("can't start the fuzzer")?;
    let mut steps = None;
    for line in BufReader::new(child.stderr.take().context("it has no standard error")?).lines() {
        let line = line.context("can't read what the fuzzer says")?;
        steps = steps_in(&line).or(steps);
        eprintln!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the fuzzer ended with {status}");
    }
    Ok(steps)
}

/// What a line says of steps made so far.
fn steps_in(line: &str) -> Option<u64> {
    line.strip_suffix(" steps")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_added_up_from_what_a_target_says_last() {
        let says = |script: &str| once(Command::new("sh").args(["-c", script]));
        assert_eq!(
            says("echo 'no 7 steps' >&2; echo '0 steps' >&2; echo '3000000 steps' >&2").unwrap(),
            Some(3_000_000)
        );
        assert_eq!(says("echo done >&2").unwrap(), None);
        assert!(says("echo '1 steps' >&2; exit 1").is_err());
    }

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
