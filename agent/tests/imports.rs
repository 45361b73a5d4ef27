//! No circle of imports between the folders of a crate: what is below does not know what is above.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of a crate, each with the rooms that it imports, and the file where it does so first.
type Imports = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// Reads the imports between the rooms of a source folder: its folders, and the files beside them but `lib.rs` and
/// `main.rs`, which name every room. Tests may import what they like: items after `#[cfg(test)]` and files of tests do
/// not count.
fn imports(source: &Path) -> Imports {
    let mut rooms = BTreeMap::new();
    for entry in fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()) {
        let room = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        if !["lib", "main"].contains(&room.as_str()) {
            let imported = rooms.entry(room.clone()).or_default();
            for file in files(&entry) {
                for other in rooms_named(&fs::read_to_string(&file).unwrap()).into_iter().filter(|other| *other != room)
                {
                    BTreeMap::entry(imported, other).or_insert_with(|| file.clone());
                }
            }
        }
    }
    let known: BTreeSet<_> = rooms.keys().cloned().collect();
    rooms.values_mut().for_each(|imported| imported.retain(|room, _| known.contains(room)));
    rooms
}

/// The source files at or below a path that are no tests.
fn files(path: &Path) -> Vec<PathBuf> {
    let is_test = path.file_stem().is_some_and(|name| name == "tests" || name == "testing");
    if is_test {
        return Vec::new();
    }
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| files(&entry.unwrap().path())).collect();
    }
    Vec::from_iter(path.extension().is_some_and(|extension| extension == "rs").then(|| path.to_owned()))
}

/// The rooms that a text names by a path from the root of its crate.
fn rooms_named(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(heads(list).into_iter().map(|head| word(&head))),
            None => drop(rooms.insert(word(rest))),
        }
    }
    rooms
}

/// The paths in a list of imports, up to the bracket that closes it; lists inside of them stay with them.
fn heads(list: &str) -> Vec<String> {
    let (mut heads, mut depth) = (vec![String::new()], 0_u32);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(String::new()),
            _ if depth == 0 && !c.is_whitespace() => heads.last_mut().expect("there is one").push(c),
            _ => {}
        }
    }
    heads
}

/// A circle of rooms, if there is one: each imports the next, and the last the first.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn walk(imports: &Imports, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        let room = path.last()?.clone();
        for next in imports.get(&room).into_iter().flat_map(BTreeMap::keys) {
            if let Some(start) = path.iter().position(|room| room == next) {
                return Some(path[start..].to_vec());
            }
            if !done.contains(next) {
                path.push(next.clone());
                if let Some(found) = walk(imports, path, done) {
                    return Some(found);
                }
                path.pop();
            }
        }
        done.insert(room);
        None
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|room| walk(imports, &mut vec![room.clone()], &mut done))
}

/// Fails with the files that make the circle.
fn has_no_circle(source: &Path) {
    let imports = imports(source);
    assert!(imports.values().any(|imported| !imported.is_empty()), "{} has no imports at all", source.display());
    if let Some(circle) = circle(&imports) {
        let steps = circle.iter().zip(circle.iter().cycle().skip(1));
        let steps = steps.map(|(from, to)| format!("{from} imports {to} in {}", imports[from][to].display()));
        panic!("{}", steps.collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn the_agents_folders_import_each_other_in_one_direction() {
    has_no_circle(&PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("`cargo test` sets it")).join("src"));
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let text = "use crate::{admin::Admin, bpf, cni::{Health, Server}};\n\
                fn f() -> crate::state::Shared {} // not crate::cli\n\
                /// Nor [`crate::install`].\n\
                #[cfg(test)]\nmod tests {\n    use crate::daemon::run;\n}\n";
    assert_eq!(rooms_named(text), ["admin", "bpf", "cni", "state"].map(String::from).into());
}

#[test]
fn a_circle_is_found_through_any_number_of_rooms() {
    let imports = |edges: &[(&str, &str)]| {
        let mut rooms = Imports::new();
        for (from, to) in edges {
            rooms.entry((*from).to_owned()).or_default().insert((*to).to_owned(), PathBuf::new());
        }
        rooms
    };
    assert_eq!(circle(&imports(&[("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")])), None);
    let found = circle(&imports(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")]));
    assert_eq!(found, Some(["b", "c", "d"].map(String::from).into()));
}
