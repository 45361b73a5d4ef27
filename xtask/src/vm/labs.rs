//! Tests in labs that run in a guest: their programs with the libraries that these need, and what the guest says of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{paths, run, tally::Tally};

/// The targets of the tests' package whose ignored tests need a module that not every kernel has.
pub(super) const TARGETS: [&str; 2] = ["sctp", "vlans"];

/// The programs of the workspace that a lab starts.
const BINARIES: [&str; 3] = ["fairlead", "fairlead-cni", "fairlead-lab"];

/// The programs of the machine that it starts.
const TOOLS: [&str; 2] = ["ip", "sysctl"];

/// Where the guest has the former.
const FOLDER: &str = "fairlead";

/// What is run in a guest.
pub(super) struct Lab {
    /// The test program and its arguments.
    pub(super) command: String,
    /// Programs and libraries by their paths in the guest, which begin without a slash.
    pub(super) programs: BTreeMap<PathBuf, Vec<u8>>,
}

impl Lab {
    /// The ignored tests of a target of the tests' package.
    pub(super) fn of(target: &str) -> Result<Self> {
        run::say(format!("building the tests {target} and what they start"));
        run::run(run::cargo().args(["build", "--locked", "--bins"]))?;
        let mut build = run::cargo();
        build.args(["test", "--locked", "--no-run", "--package", "fairlead-tests", "--test", target]);
        let built = run::output(build.args(["--message-format", "json"]))?;
        let test = executable(&built).with_context(|| format!("cargo built no test {target}"))?;
        let tools = TOOLS.map(|name| {
            let tool = paths::which(name).with_context(|| format!("labs need `{name}`: `cargo xtask setup`"))?;
            Ok((fs::canonicalize(tool)?, Path::new("sbin").join(name)))
        });
        let tools = tools.into_iter().collect::<Result<Vec<_>>>()?;
        let folder = paths::target().join("debug");
        let mut programs = BTreeMap::new();
        for (file, place) in BINARIES
            .map(|name| (folder.join(name), Path::new(FOLDER).join(name)))
            .into_iter()
            .chain([(test, Path::new(FOLDER).join(target))])
            .chain(tools)
        {
            let loader = run::output(Command::new("ldd").arg(&file))?;
            for library in libraries(&loader) {
                let bytes = fs::read(library).with_context(|| format!("can't read {library}"))?;
                programs.insert(PathBuf::from(library.trim_start_matches('/')), bytes);
            }
            programs.insert(place, stripped(&file)?);
        }
        Ok(Self { command: format!("/{FOLDER}/{target} --ignored --test-threads=1"), programs })
    }
}

/// The program of the only test target that cargo built, from its messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let of_tests = messages.filter(|message| message["profile"]["test"] == true);
    of_tests.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

/// The libraries that `ldd` names, and the loader.
fn libraries(loader: &str) -> impl Iterator<Item = &str> {
    loader.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// A program without what only debuggers read, which would not fit into the guest's memory.
fn stripped(file: &Path) -> Result<Vec<u8>> {
    let out = paths::target().join("stripped");
    run::run(Command::new("strip").arg("-o").arg(&out).arg(file))?;
    let bytes = fs::read(&out)?;
    fs::remove_file(&out)?;
    ensure!(!bytes.is_empty(), "{} is empty without its symbols", file.display());
    Ok(bytes)
}

/// How many tests passed and failed by a guest's console, and what of it is worth reading: everything from the first test on. A
/// guest that did not finish is one that failed.
pub(super) fn read(console: &str) -> (Tally, String) {
    let lines: Vec<&str> = console.lines().map(|line| line.trim_end_matches('\r')).collect();
    let begin = lines.iter().position(|line| line.starts_with("running ")).unwrap_or_default();
    let tally = lines.iter().find_map(|line| Tally::parse(line)).filter(|tally| tally.passed + tally.failed > 0);
    (tally.unwrap_or(Tally::one(false)), lines[begin..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_what_the_loader_names_by_path() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(
            libraries(text).collect::<Vec<_>>(),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(libraries("\tstatically linked\n").count(), 0);
    }

    #[test]
    fn a_guest_passes_by_its_result_alone() {
        let (tally, text) =
            read("boot\r\nrunning 1 test\r\ntest s2 ... ok\r\ntest result: ok. 1 passed; 0 failed; 0 ignored\r\n");
        assert_eq!((tally, text.lines().next()), (Tally { passed: 1, failed: 0 }, Some("running 1 test")));
        for console in ["", "Kernel panic", "test result: ok. 0 passed; 0 failed; 0 ignored"] {
            assert_eq!(read(console).0, Tally { passed: 0, failed: 1 }, "{console}");
        }
    }

    #[test]
    fn the_test_program_is_among_what_cargo_built() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/fairlead"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/sctp-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/sctp-1")));
    }
}
