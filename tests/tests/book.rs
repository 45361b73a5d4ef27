//! The book in `manifests/book`: whole, with links that lead somewhere, and saying what the code says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fairlead_datapath::drop::DropReason;

fn root() -> PathBuf {
    fairlead_tree::path("").unwrap()
}

fn src() -> PathBuf {
    fairlead_tree::path("manifests/book/src").unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page(name: &str) -> String {
    read(&src().join(name))
}

/// Every page, by its path below `src`.
fn pages() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(src()).unwrap().to_owned());
            }
        }
    }
    found
}

/// Targets of links, `](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let targets = prose.match_indices("](").map(|(at, _)| prose[at + 2..].split(')').next().unwrap().to_owned());
    targets.collect()
}

/// The anchors of a page, as GitHub and mdBook make them of headings, and those that it has by itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.split("```").step_by(2).flat_map(str::lines).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let plain = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    let named = text.match_indices("<a id=\"").map(|(at, word)| text[at + word.len()..].split('"').next().unwrap());
    headings.map(anchor).chain(named.map(str::to_owned)).collect()
}

/// Text in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Rows of all tables, each as its cells.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn the_summary_has_every_page_once() {
    let listed: Vec<_> = links(&page("SUMMARY.md")).into_iter().map(PathBuf::from).collect();
    let unique: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(unique.len(), listed.len());
    let mut pages = pages();
    pages.remove(Path::new("SUMMARY.md"));
    assert_eq!(unique, pages);
}

#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for name in pages() {
        let path = src().join(&name);
        for link in links(&read(&path)) {
            if link.starts_with("https://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which is not there", name.display());
            if !anchor.is_empty() {
                let known = anchors(&read(&target));
                assert!(known.contains(anchor), "{}: {link} has no such heading; there are {known:?}", name.display());
            }
        }
    }
    assert!(checked > 40, "{checked} links were found");
}

/// What a page includes is a part of another that has its beginning, its end and a table between them.
#[test]
fn includes_find_their_tables() {
    let mut found = 0;
    for name in pages() {
        let path = src().join(&name);
        let text = read(&path);
        for (at, word) in text.match_indices("{{#include ") {
            let (file, part) = text[at + word.len()..].split("}}").next().unwrap().split_once(':').unwrap();
            let source = read(&path.parent().unwrap().join(file));
            let part =
                source.split(&format!("ANCHOR: {part} -->")).nth(1).unwrap_or_else(|| panic!("no {part} in {file}"));
            let part = part.split("<!-- ANCHOR_END: ").next().unwrap();
            assert!(part.lines().filter(|line| line.starts_with('|')).count() > 10, "{file}: {part}");
            found += 1;
        }
    }
    assert_eq!(found, 3);
}

#[test]
fn every_drop_reason_has_something_to_do() {
    let text = page("operate/troubleshooting.md");
    let table = text.split("| reason | do this |").nth(1).unwrap().split("\n\n").next().unwrap();
    let said: Vec<&str> = rows(table).iter().flat_map(|row| code(row[0]).collect::<Vec<_>>()).collect();
    let unique: BTreeSet<_> = said.iter().copied().collect();
    assert_eq!(unique.len(), said.len(), "a reason is there twice");
    assert_eq!(unique, DropReason::ALL.iter().map(|reason| reason.as_str()).collect());
}

/// Commands and their flags are those of the program.
#[test]
fn commands_are_those_of_the_program() {
    let program = fairlead_tests::binary("fairlead").unwrap();
    let help = Command::new(program).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    let mut commands: BTreeSet<_> =
        commands.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    commands.remove("help");
    assert!(commands.contains("version") && commands.len() > 8, "{help}");
    let text = page("reference/commands.md");
    let table = text.split("| command | asks the agent | what |").nth(1).unwrap().split("\n\n").next().unwrap();
    let said: BTreeSet<_> = rows(table)
        .iter()
        .filter_map(|row| code(row[0]).next()?.strip_prefix("fairlead ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(said, commands);
}

#[test]
fn exit_codes_are_those_of_the_program() {
    let program = fairlead_tests::binary("fairlead").unwrap();
    let nowhere = "/dev/null/agent.sock";
    for (arguments, code) in [
        (&["version", "--socket", nowhere][..], 0),
        (&["status", "--socket", nowhere], 2),
        (&["no-such-command"], 2),
        (&["service", "explain", "nonsense"], 2),
    ] {
        let ended = Command::new(&program).args(arguments).output().unwrap();
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {ended:?}");
    }
    let text = page("reference/commands.md");
    let table = text.split("| exit code | of | means |").nth(1).unwrap().split("\n\n").next().unwrap();
    let said: BTreeSet<_> = rows(table).iter().map(|row| row[0].to_owned()).collect();
    assert_eq!(said, ["0", "1", "2", "3", "4", "5"].map(str::to_owned).into());
}

/// Every port of the manifests and of the settings' defaults is on the page.
#[test]
fn ports_are_those_of_the_manifests() {
    let text = page("reference/ports.md");
    let said: BTreeSet<_> = rows(&text).iter().map(|row| row[0].to_owned()).collect();
    let manifests = read(&root().join("manifests/install.yaml"));
    let ports = manifests.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches('#');
        let number = ["containerPort: ", "port: ", "vxlanPort: "].iter().find_map(|key| line.strip_prefix(key));
        let bound = ["bind: ", "tlsBind: ", "httpsBind: "].iter().find_map(|key| line.trim().strip_prefix(key));
        number.or_else(|| bound?.trim_matches('"').rsplit(':').next()).filter(|port| port.parse::<u16>().is_ok())
    });
    let ports: BTreeSet<_> = ports.map(str::to_owned).collect();
    assert!(ports.len() > 6, "{ports:?}");
    assert!(ports.is_subset(&said), "{:?} are not on the page", ports.difference(&said));
}

/// Paths of the page are those that the manifests mount and the program names.
#[test]
fn files_are_where_the_manifests_mount() {
    let text = page("reference/files.md");
    let manifests = read(&root().join("manifests/install.yaml"));
    let sources = ["agent/src/install/mod.rs", "agent/src/install/conflist.rs", "agent/src/admin/failure.rs"];
    let sources: String = sources.iter().map(|name| read(&root().join(name))).collect();
    for row in rows(&text).iter().filter(|row| row[0].starts_with("`/")) {
        let path = code(row[0]).next().unwrap();
        let parent = Path::new(path).parent().unwrap();
        let mounted = parent.ancestors().any(|above| {
            let above = above.display().to_string();
            above != "/" && manifests.lines().any(|line| line.trim() == format!("path: {above}"))
        });
        assert!(mounted, "{path} is in no volume");
    }
    for name in ["\"apiserver\"", "\"failure\"", "10-fairlead.conflist", "\"fairlead-cni\""] {
        assert!(sources.contains(name), "{name}");
        assert!(text.contains(name.trim_matches('"')), "{name}");
    }
}

/// What `fairlead doctor --before-migration` refers to is there, and what the page says was run is a test.
#[test]
fn the_migration_guide_has_what_others_name_and_names_tests_that_are_there() {
    let text = page("operate/migrate.md");
    let known = anchors(&text);
    let source = read(&root().join("agent/src/doctor/migration/mod.rs"));
    assert!(source.contains("\"manifests/book/src/operate/migrate.md\""));
    let named: BTreeSet<_> = source
        .split("{GUIDE}#")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '-').next())
        .collect();
    assert!(named.len() > 1 && named.iter().all(|name| known.contains(*name)), "{named:?}, {known:?}");
    let files = ["tests/tests/install/migrate.rs", "tests/tests/install/leave.rs", "tests/cluster/tests/uninstall.rs"];
    let tests: String = files.iter().map(|name| read(&root().join(name))).collect();
    let rows = rows(&text);
    let mut cited = 0;
    for name in rows.iter().flat_map(|row| code(row[row.len() - 1])) {
        assert!(tests.contains(&format!("fn {name}(")), "{name} is no test");
        cited += 1;
    }
    assert_eq!(cited, 4);
}
