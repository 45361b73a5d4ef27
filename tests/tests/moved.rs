//! A work tree that was moved or copied, with what was built in it, uses its own files.

use std::fs;
use std::path::{Path, PathBuf};

/// What cargo compiles into a program as a path. It sets both where a program runs, too.
const COMPILED_IN: [&str; 2] = ["CARGO_MANIFEST_DIR", "CARGO_BIN_EXE_"];

/// Whether a line has such a path at run time: one that names a file to be compiled in is fine.
fn has_path(line: &str) -> bool {
    let named = |name: &str| line.contains(&format!("env!(\"{name}"));
    COMPILED_IN.into_iter().any(named) && !line.contains("include_")
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with('.') && name != "target" {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn no_program_has_the_path_of_its_work_tree_in_it() {
    let mut found = Vec::new();
    sources(&fairlead_tree::root().unwrap(), &mut found);
    assert!(found.len() > 300, "{} sources are too few to be all", found.len());
    let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let guilty: Vec<_> = found.iter().filter(|path| text(path).lines().any(has_path)).collect();
    assert!(guilty.is_empty(), "use fairlead-tree, or the variable where the program runs: {guilty:?}");
}

#[test]
fn only_what_stays_a_path_counts() {
    // In two parts, or this file would be among the guilty.
    let line = |before: &str, name: &str| format!("{before}(\"{name}\")");
    assert!(has_path(&line("const A: &str = env!", "CARGO_MANIFEST_DIR")));
    assert!(has_path(&line("Command::new(env!", "CARGO_BIN_EXE_fairlead-cni")));
    assert!(!has_path(&line("include_bytes!(concat!(env!", "CARGO_MANIFEST_DIR")));
    assert!(!has_path(&line("std::env::var_os", "CARGO_MANIFEST_DIR")));
}
