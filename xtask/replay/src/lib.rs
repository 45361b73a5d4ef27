//! What the programs of fuzz targets are: libFuzzer targets where the compiler is told so, else something that runs inputs once.
//!
//! A package in a folder `fuzz` has a program for each `fuzz_targets/NAME.rs` and inputs worth keeping in `corpus/NAME/`. The
//! program is [`target!`] with a function over bytes that panics if something does not hold. With `--cfg fuzzing` and the
//! compiler's coverage passes it is a libFuzzer target; without, as in every ordinary build, it runs the inputs in the files and
//! directories that it is given, or the kept ones, and so does its unit test.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Makes the program of a fuzz target of a function over bytes.
#[macro_export]
macro_rules! target {
    ($check:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $check(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> Result<(), Box<dyn std::error::Error>> {
            $crate::replay(env!("CARGO_BIN_NAME"), $check)
        }

        #[cfg(all(test, not(fuzzing)))]
        #[test]
        fn the_kept_corpus_is_as_it_should_be() {
            let count = $crate::run(&$crate::corpus(env!("CARGO_BIN_NAME")), $check).expect("it can be read");
            assert!(count > 0, "nothing is kept");
        }
    };
}

/// The inputs that are kept for a target, in the package that cargo runs or in the current directory.
#[must_use]
pub fn corpus(target: &str) -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    package.join("corpus").join(target)
}

/// Runs what the command line names, or what is kept for the target.
///
/// # Errors
/// An input can't be read, or there is none.
pub fn replay(target: &str, check: fn(&[u8])) -> Result<(), Box<dyn Error>> {
    let mut named: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    if named.is_empty() {
        named.push(corpus(target));
    }
    let mut count = 0;
    for path in &named {
        count += run(path, check).map_err(|error| format!("can't read the input {}: {error}", path.display()))?;
    }
    if count == 0 {
        return Err(format!("there is no input in {named:?}: name files or directories with inputs").into());
    }
    println!("{count} inputs are as they should be");
    Ok(())
}

/// Runs an input, or all in a directory and those in it, and says how many there were.
///
/// # Errors
/// One can't be read.
pub fn run(path: &Path, check: fn(&[u8])) -> io::Result<usize> {
    if !path.is_dir() {
        check(&fs::read(path)?);
        return Ok(1);
    }
    fs::read_dir(path)?.map(|entry| run(&entry?.path(), check)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_below_a_directory_is_run() {
        let root = env::temp_dir().join(format!("fairlead-replay-{}", std::process::id()));
        fs::create_dir_all(root.join("deep")).unwrap();
        for (name, bytes) in [("one", b"1"), ("two", b"2"), ("deep/three", b"3")] {
            fs::write(root.join(name), bytes).unwrap();
        }
        let count = run(&root, |bytes| assert!(matches!(bytes, [b'1'..=b'3'])));
        let missing = run(&root.join("four"), |_| {});
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(count.unwrap(), 3);
        assert!(missing.is_err(), "what is missing is no input");
    }
}
