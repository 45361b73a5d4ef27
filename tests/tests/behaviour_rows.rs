//! The rows of `tests/behaviour`: each that is cited exists, and each has a test or a reason not to have one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The pages with rows, and the letter of each.
const PAGES: [(&str, char); 4] = [("services.md", 'S'), ("policy.md", 'P'), ("dns.md", 'D'), ("cni.md", 'C')];
/// The rows without a test.
const OPEN: &str = "open.md";
/// Files that may cite rows: sources and pages.
const CITING: [&str; 2] = ["rs", "md"];
/// Directories with nothing of our own.
const FOREIGN: [&str; 2] = ["target", "data"];

/// A row's number, as it is cited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    page: char,
    number: u32,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.page, self.number)
    }
}

impl Row {
    /// The row that a word is, such as `S33`.
    fn of_word(word: &str) -> Option<Self> {
        let page = word.chars().next().filter(|first| PAGES.iter().any(|(_, letter)| letter == first))?;
        let digits = &word[1..];
        let number = digits.parse().ok().filter(|_| digits.len() <= 2 && !digits.starts_with('0'))?;
        Some(Self { page, number })
    }
}

fn workspace() -> PathBuf {
    fairlead_tree::root().unwrap()
}

fn page(name: &str) -> String {
    let path = workspace().join("tests/behaviour").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The first cells of a page's table rows that name a row.
fn listed(text: &str) -> Vec<Row> {
    let cell = |line: &str| Row::of_word(line.strip_prefix("| ")?.split(" |").next()?);
    text.lines().filter_map(cell).collect()
}

/// Every row that text mentions.
fn cited(text: &str) -> impl Iterator<Item = Row> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter_map(Row::of_word)
}

/// The rows in front of a test's name: `s4_s35_a_node_port` is for S4 and S35.
fn of_name(name: &str) -> impl Iterator<Item = Row> {
    let row = |part: &str| if part == part.to_lowercase() { Row::of_word(&part.to_uppercase()) } else { None };
    name.split('_').map_while(row)
}

/// The names of the tests in a source, each with whether it is only run when asked for.
fn tests_and_when(source: &str) -> Vec<(&str, bool)> {
    let mut names = Vec::new();
    let (mut is_test, mut is_ignored) = (false, false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") || line.starts_with("//") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            is_ignored |= line.starts_with("#[ignore");
            continue;
        }
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if let Some(name) = function.and_then(|rest| rest.split('(').next()).filter(|_| is_test) {
            names.push((name, is_ignored));
        }
        (is_test, is_ignored) = (false, false);
    }
    names
}

/// The names of the tests in a source.
fn tests(source: &str) -> Vec<&str> {
    tests_and_when(source).into_iter().map(|(name, _)| name).collect()
}

/// What may cite a row: the comments of a source, all of a page.
fn prose(path: &Path, text: &str) -> String {
    if path.extension().is_some_and(|extension| extension == "md") {
        return text.to_owned();
    }
    text.lines().filter_map(|line| Some(line.split_once("//")?.1)).collect::<Vec<_>>().join("\n")
}

/// Every file of our own that may cite a row, with its text.
fn files() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![workspace()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.') && !FOREIGN.contains(&name.as_str()) {
                    directories.push(path);
                }
            } else if CITING.iter().any(|extension| path.extension().is_some_and(|found| found == *extension)) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 300, "{} files: is this the repository?", found.len());
    found
}

fn rows() -> BTreeSet<Row> {
    let mut all = BTreeSet::new();
    for (name, letter) in PAGES {
        let listed = listed(&page(name));
        for (index, row) in listed.iter().enumerate() {
            let expected = Row { page: letter, number: u32::try_from(index + 1).unwrap() };
            assert_eq!(*row, expected, "{name}: rows are in the order of their numbers, each once");
        }
        all.extend(listed);
    }
    all
}

#[test]
fn every_row_that_is_cited_exists() {
    let rows = rows();
    let mut unknown = Vec::new();
    for (path, text) in files() {
        let named = if path.extension().is_some_and(|extension| extension == "rs") { tests(&text) } else { Vec::new() };
        let cited = cited(&prose(&path, &text)).chain(named.into_iter().flat_map(of_name)).collect::<BTreeSet<_>>();
        unknown.extend(cited.difference(&rows).map(|row| format!("{row} in {}", path.display())));
    }
    assert!(unknown.is_empty(), "no such row: {unknown:#?}");
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    let mut tested = BTreeMap::<Row, usize>::new();
    for (path, text) in files() {
        if path.extension().is_some_and(|extension| extension == "rs") {
            for row in tests(&text).into_iter().flat_map(of_name) {
                *tested.entry(row).or_default() += 1;
            }
        }
    }
    let open = listed(&page(OPEN)).into_iter().collect::<BTreeSet<_>>();
    let rows = rows();
    let bare: Vec<_> = rows.iter().filter(|row| !tested.contains_key(row) && !open.contains(row)).collect();
    assert!(bare.is_empty(), "no test's name begins with these rows, and {OPEN} does not list them: {bare:?}");
    let stale: Vec<_> = open.iter().filter(|row| tested.contains_key(row) || !rows.contains(row)).collect();
    assert!(stale.is_empty(), "{OPEN} lists rows that have a test or do not exist: {stale:?}");
}

/// What stands in backticks in the last cells of a page's tables.
fn proofs(text: &str) -> impl Iterator<Item = &str> {
    let cells = text.lines().filter_map(|line| Some(line.strip_suffix(" |")?.rsplit_once("| ")?.1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2))
}

/// What the README lists as tried on every commit: the rows of its table.
fn tried(readme: &str) -> Vec<&str> {
    let (_, section) = readme.split_once("\n### What is tried on every commit\n").expect("the README has the heading");
    let section = section.split("\n#").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with("| ")).skip(1).collect()
}

#[test]
fn every_attack_of_the_readme_names_tests_that_every_commit_runs() {
    let files = files();
    let known: BTreeMap<&str, bool> = files.iter().flat_map(|(_, text)| tests_and_when(text)).collect();
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let rows = tried(&readme);
    assert!(rows.len() > 20, "{rows:#?}");
    for row in rows {
        let named: Vec<&str> = proofs(row).collect();
        assert!(!named.is_empty(), "it names no test: {row}");
        for name in named {
            match known.get(name) {
                None => panic!("README.md names a test that does not exist, {name}: {row}"),
                Some(true) => panic!("not every commit runs {name}: {row}"),
                Some(false) => {}
            }
        }
    }
}

#[test]
fn every_promise_of_security_names_a_test() {
    let files = files();
    let known: BTreeSet<&str> = files.iter().flat_map(|(_, text)| tests(text)).collect();
    let text = fs::read_to_string(workspace().join("SECURITY.md")).unwrap();
    let named: BTreeSet<&str> = proofs(&text).collect();
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "SECURITY.md names tests that do not exist: {unknown:?}");
}

#[test]
fn names_and_words_are_read_as_rows() {
    let rows = |found: Vec<Row>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(rows(of_name("s4_s35_a_node_port_of_s1").collect()), ["S4", "S35"]);
    assert!(of_name("source_ports").next().is_none());
    assert_eq!(rows(cited("`S33`, P1 to P4; not S1x, D128, D0 or IPv4").collect()), ["S33", "P1", "P4"]);
    let source = "#[test]\n// Why.\n#[ignore]\nfn s1_a() {}\nfn s2_helper() {}\n#[tokio::test(x)]\nasync fn s3_b() {}";
    assert_eq!(tests_and_when(source), [("s1_a", true), ("s3_b", false)]);
    assert_eq!(tests(source), ["s1_a", "s3_b"]);
    assert_eq!(rows(listed("| S1 | x |\n|---|\n| row | y |\n|S2|\n| S3 |")), ["S1", "S3"]);
}
