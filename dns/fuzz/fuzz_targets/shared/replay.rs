//! Runs inputs once, without a fuzzer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::check::check;

/// The inputs that are kept, in the package that cargo runs or in the current directory.
fn corpus() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.join("corpus").join(env!("CARGO_BIN_NAME"))
}

/// Runs what the command line names, or the kept corpus.
///
/// # Errors
/// An input can't be read, or there is none.
pub(crate) fn replay() -> Result<()> {
    let mut named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if named.is_empty() {
        named.push(corpus());
    }
    let mut count = 0;
    for path in &named {
        count += run(path).with_context(|| format!("can't read the input {}", path.display()))?;
    }
    ensure!(count > 0, "there is no input in {named:?}: name files or directories with inputs");
    println!("{count} inputs are as they should be");
    Ok(())
}

fn run(path: &Path) -> Result<usize> {
    if !path.is_dir() {
        check(&std::fs::read(path)?);
        return Ok(1);
    }
    std::fs::read_dir(path)?.map(|entry| run(&entry?.path())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_corpus_is_as_it_should_be() {
        assert!(run(&corpus()).unwrap() > 0);
    }
}
