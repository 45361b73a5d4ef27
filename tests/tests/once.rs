//! What is written once, and taken from there by everything else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fairlead_datapath::catalog::TableId;

/// Each source below these folders, by its path in the repository, without its tests.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = fairlead_tree::root().unwrap();
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root, &root.join(folder), &mut found));
    assert!(found.len() > 50, "{} sources are too few to be all", found.len());
    found
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["tests", "target", "fuzz"].contains(&name) {
                walk(root, &path, found);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            found.push((path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text.to_owned()));
        }
    }
}

/// The sources that have something.
fn with(folders: &[&str], has: impl Fn(&str) -> bool) -> BTreeSet<String> {
    sources(folders).into_iter().filter(|(_, text)| has(text)).map(|(path, _)| path).collect()
}

#[test]
fn tables_are_named_in_the_catalog() {
    let named = |text: &str| TableId::ALL.iter().any(|id| text.contains(&format!("\"{id}\"")));
    let found = with(&["agent/src", "ebpf/datapath/src", "ebpf/programs/src", "xtask"], named);
    let expected = BTreeSet::from(["ebpf/datapath/src/catalog/mod.rs".to_owned()]);
    assert_eq!(found, expected, "take the name from the catalog");
}

#[test]
fn files_are_replaced_by_fairlead_files() {
    let found = with(&["agent/src", "cni-plugin/src", "dns/src", "manifests"], |text| text.contains("fs::rename("));
    // A socket and a pin are no files that are written.
    let expected = ["agent/src/bpf/xdp.rs", "agent/src/socket.rs", "manifests/files/src/lib.rs"];
    let expected = BTreeSet::from(expected.map(str::to_owned));
    assert_eq!(found, expected, "use fairlead_files::put");
}
