//! Other programs: run them, show what is run, fail with their words.

use std::{
    env, fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::paths;

/// Says what happens now: on standard error, as cargo does, since what a command gives may be read by a program.
pub(crate) fn say(text: impl AsRef<str>) {
    eprintln!("=> {}", text.as_ref());
}

/// A command as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().replace('\x1f', " ")).collect::<Vec<_>>().join(" ")
}

/// Runs a command with this terminal; an exit status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = line(command);
    let status = command.status().with_context(|| format!("can't start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed: {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed; an exit status other than 0 is an error with what it complained of.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let text = line(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start `{text}`"))?;
    if !output.status.success() {
        bail!("`{text}` failed: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Cargo, in the work tree. The variables of the `cargo run` that started us would make it rebuild for nothing.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO"
            || text == "CARGO_MANIFEST_DIR"
            || text == "CARGO_MANIFEST_PATH"
            || text.starts_with("CARGO_PKG_")
        {
            command.env_remove(&name);
        }
    }
    command.current_dir(paths::workspace());
    command
}

/// Documentation of a package, with warnings as errors. Nothing is published, so it has private items too.
pub(crate) fn documented(doc: &mut Command) -> &mut Command {
    doc.args(["--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links")
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_user(&status) == Some(0)
}

/// The effective user in the text of /proc/PID/status: the second number of its `Uid:` line.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// How to become root: nothing to add for root itself, else sudo, which keeps the environment.
pub(crate) fn root_prefix() -> Result<Vec<String>> {
    if is_root() {
        return Ok(Vec::new());
    }
    let sudo = paths::which("sudo")
        .context("this needs root (network namespaces, eBPF) and there is no sudo: run the same command as root")?;
    Ok(vec![sudo.display().to_string(), "-E".to_owned()])
}

/// A command that runs as root.
pub(crate) fn as_root(program: &str) -> Result<Command> {
    let prefix = root_prefix()?;
    let mut words = prefix.iter().map(String::as_str).chain([program]);
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\t1\t1\t1\n"), Some(0));
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_user("Gid:\t0\t0\t0\t0\n"), None);
    }

    #[test]
    fn a_command_is_shown_as_typed() {
        assert_eq!(line(Command::new("cargo").args(["build", "-p", "x"])), "cargo build -p x");
    }

    #[test]
    fn a_failing_command_is_an_error_with_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("why"), "{error}");
    }
}
