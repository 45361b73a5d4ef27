//! Tables of the documentation that list what the code has: `agent/ARCHITECTURE.md` and `manifests/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fairlead_datapath::catalog::{Kind, TableId};
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::tables::peer::MAX_CIDRS;
use fairlead_datapath::tables::policy::{MAX_PAGES, PAGE_BITS};
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _};
use serde_json::Value;

const ARCHITECTURE: &str = "agent/ARCHITECTURE.md";
const SETTINGS: &str = "manifests/README.md";

fn path(name: &str) -> PathBuf {
    fairlead_tree::path(name).unwrap()
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rows of the table that begins with this head, each as its cells.
fn table(page: &str, head: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let rows = text.lines().skip_while(|line| *line != head).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(!rows.is_empty(), "{page} has no table with the head {head:?}");
    rows
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// What stands in backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// 131072 as `131 072`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(" ")
}

#[test]
fn tables_are_those_of_the_catalog() {
    let size = |id: TableId| match id.info().kind {
        Kind::RingBuffer => format!("{} KiB", id.info().elements >> 10),
        Kind::SocketStorage => String::new(),
        _ => grouped(id.info().elements),
    };
    let expected: BTreeMap<_, _> = TableId::ALL
        .iter()
        .map(|id| (id.info().name.to_owned(), (id.info().kind.as_str().to_owned(), size(*id))))
        .collect();
    let mut documented = BTreeMap::new();
    for row in table(ARCHITECTURE, "| table | kind | elements | what | when full |") {
        documented.extend(code(&row[0]).map(|name| (name.to_owned(), (row[1].clone(), row[2].clone()))));
    }
    assert_eq!(documented, expected);
}

#[test]
fn hooks_are_the_programs_of_the_object() {
    let bytes = fs::read(path("ebpf/fairlead.bpf.o")).unwrap();
    let file = File::parse(&*bytes).unwrap();
    let is_program = |symbol: &object::Symbol<'_, '_>| {
        let section =
            symbol.section_index().and_then(|index| file.section_by_index(index).ok()?.name().ok().map(str::to_owned));
        section.is_some_and(|name| {
            name == "classifier" || name == "xdp" || ["cgroup/", "iter/"].iter().any(|kind| name.starts_with(kind))
        })
    };
    let programs: BTreeSet<String> = file
        .symbols()
        .filter(|symbol| symbol.is_global() && is_program(symbol))
        .filter_map(|symbol| Some(symbol.name().ok()?.to_owned()))
        .collect();
    let families = |name: &str| match name.strip_suffix("4/6") {
        Some(name) => vec![format!("{name}4"), format!("{name}6")],
        None => vec![name.to_owned()],
    };
    let rows = table(ARCHITECTURE, "| hook | program | sees |");
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| code(&row[1]).flat_map(families)).collect();
    assert_eq!(documented, programs);
}

#[test]
fn reasons_of_drops_are_those_of_the_datapath() {
    let meaning = |reason: &DropReason| reason.meaning().trim().trim_end_matches('.').to_owned();
    let expected: Vec<_> =
        DropReason::ALL.iter().map(|reason| vec![format!("`{}`", reason.as_str()), meaning(reason)]).collect();
    let documented = table(ARCHITECTURE, "| reason | meaning |");
    for (documented, expected) in documented.iter().zip(&expected) {
        assert_eq!(documented, expected, "as ebpf/datapath/src/drop.rs has it");
    }
    assert_eq!(documented.len(), expected.len());
}

/// String literals of a source that are names and begin with a prefix.
fn names(source: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |text: &&str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let begins = source.match_indices(&format!("\"{prefix}")).map(|(at, _)| at + 1).collect::<Vec<_>>();
    let literals = begins.into_iter().filter_map(|at| source[at..].split('"').next());
    literals.filter(is_name).map(str::to_owned).collect()
}

/// The sources below a folder.
fn sources(folder: &str) -> String {
    let mut text = String::new();
    let mut folders = vec![path(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // Apart from each file's tests.
                let source = fs::read_to_string(&path).unwrap();
                text += source.split("#[cfg(test)]").next().unwrap_or_default();
            }
        }
    }
    text
}

#[test]
fn metrics_are_those_that_are_served() {
    let mut expected = names(&sources("agent/src"), "fairlead_");
    expected.extend(names(&sources("dns/src"), "fairlead_dns_"));
    // A target of the log and programs, no metrics.
    expected.remove("fairlead_programs");
    expected.remove("fairlead_guard");
    expected.remove("fairlead_pass");
    let rows = table(ARCHITECTURE, "| metric | meaning |");
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect();
    assert_eq!(documented, expected);
}

#[test]
fn settings_of_the_config_map_are_documented() {
    let mut expected = BTreeSet::new();
    for (of, file) in [("agent", "fairlead.yaml"), ("dns", "dns.yaml")] {
        let config: Value = serde_saphyr::from_str(&read(&format!("manifests/base/{of}-config.yaml"))).unwrap();
        let mut group = String::new();
        for line in config["data"][file].as_str().unwrap().lines() {
            // A line that shows a default is a key behind `#`, without a space between.
            let line =
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') || !group.is_empty()).unwrap_or(line);
            let Some((key, value)) =
                line.split_once(':').filter(|(key, _)| key.trim().bytes().all(|b| b.is_ascii_alphanumeric()))
            else {
                group.clear();
                continue;
            };
            let nested = key.starts_with("  ") && !group.is_empty();
            if !nested {
                group.clear();
            }
            if value.trim().is_empty() {
                group = format!("{}.", key.trim());
            } else {
                expected.insert(format!("{group}{}", key.trim()));
            }
        }
    }
    let rows = table(SETTINGS, "| setting | default | meaning |");
    let documented: BTreeSet<String> = rows.iter().flat_map(|row| code(&row[0])).map(str::to_owned).collect();
    assert_eq!(documented, expected);
}

/// The settings of a program with what its help says of their defaults, by their names without case and separators.
fn defaults(program: &str, arguments: &[&str]) -> BTreeMap<String, Option<String>> {
    let program = fairlead_tests::binary(program).unwrap();
    let help = Command::new(program).args(arguments).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, settings) = help.split_once("\nSettings (also in the file").unwrap();
    let flags = settings.split("\n      --").skip(1).map(|flag| {
        let name = flag.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap().replace('-', "");
        let default = flag.rsplit_once("[default: ").map(|(_, rest)| rest.split(']').next().unwrap().to_owned());
        // A switch is off.
        let is_switch = !flag.lines().next().unwrap().contains('<');
        (name, default.or_else(|| is_switch.then(|| "false".to_owned())))
    });
    flags.collect()
}

/// Runs of digits.
fn numbers(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty()).collect()
}

/// A default is what the program has: word for word where it is a value, and with the same numbers where it takes a sentence.
#[test]
fn defaults_of_settings_are_those_of_the_programs() {
    let (agent, dns) = (defaults("fairlead", &["agent"]), defaults("fairlead-dns", &[]));
    assert!(agent.len() > 30 && dns.len() > 20, "{agent:?}\n{dns:?}");
    for row in table(SETTINGS, "| setting | default | meaning |") {
        let name = code(&row[0]).next().unwrap();
        let program = if row[2].starts_with("DNS: ") { &dns } else { &agent };
        let default =
            program.get(&name.replace('.', "").to_lowercase()).unwrap_or_else(|| panic!("no flag for {name}"));
        let said = row[1].replace(['`', '[', ']', '"', ','], "");
        match default.as_deref() {
            None => assert_eq!(said, "", "{name} has no default"),
            Some(none) if ["none", "nowhere"].iter().any(|word| none.starts_with(word)) => {
                assert_eq!(said, "", "{name}");
            }
            Some(value) if said == value => {}
            Some(sentence) => {
                assert!(sentence.contains(' ') && !said.is_empty(), "{name}: {sentence:?}, not {said:?}");
                assert_eq!(numbers(sentence), numbers(&said), "{name}: {sentence:?}, not {said:?}");
            }
        }
    }
}

/// The book's page of limits has the sizes of the tables that it names, and the three that no table has.
#[test]
fn limits_are_those_of_the_code() {
    let rows = table("manifests/book/src/reference/limits.md", "| limit | table | of what | beyond it |");
    let mut others = Vec::new();
    for row in &rows {
        let Some(name) = code(&row[1]).next() else {
            others.push(row[0].as_str());
            continue;
        };
        let id = TableId::ALL.iter().find(|id| id.info().name == name).unwrap_or_else(|| panic!("no table {name}"));
        assert_eq!(row[0], grouped(id.info().elements), "{name}");
        assert!(!row[3].is_empty(), "{name}");
    }
    let rules = grouped(u32::from(MAX_PAGES * PAGE_BITS));
    assert_eq!(others, [grouped(MAX_CIDRS).as_str(), &rules, "512"]);
    assert!(read("agent/src/plan/policy/mod.rs").contains("atoms: MAX_CIDRS as usize"));
    assert!(read("agent/src/wiring/svc.rs").contains("pub const MOST: usize = 512;"));
}
