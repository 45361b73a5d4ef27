use std::collections::BTreeSet;
use std::string::{String, ToString as _};
use std::vec::Vec;

use super::{Kind, LAYOUTS, TableId, parse_pin, recorded};

#[test]
fn no_layout_changes_without_a_new_version() {
    let mut missing = String::new();
    for id in TableId::ALL {
        let info = id.info();
        let (Some(version), Some(now)) = (info.version, id.layout()) else { continue };
        let now = now.trim();
        match recorded(info.name, version) {
            Some(then) => assert!(
                then == now,
                "the layout of {name} has changed, and nodes have tables of version {version} as it was:\n{then}\n\n\
                 it is now:\n{now}\n\nGive {name} version {next} in ebpf/datapath/src/catalog/mod.rs, leave the paragraph \
                 of version {version} in layouts.txt as it is, and add the new one.",
                name = info.name,
                next = version + 1,
            ),
            None => missing.extend(["\n", now, "\n"]),
        }
    }
    assert!(missing.is_empty(), "add to ebpf/datapath/src/catalog/layouts.txt:\n{missing}");
}

#[test]
fn the_version_in_use_is_the_last_one() {
    for id in TableId::ALL {
        let info = id.info();
        let head = std::format!("{} v", info.name);
        let versions = LAYOUTS.lines().filter_map(|line| line.strip_prefix(&head)?.split_once(':')?.0.parse().ok());
        assert_eq!(versions.max(), info.version, "{}", info.name);
    }
}

#[test]
fn names_are_unique_and_fit_the_kernel() {
    let names: BTreeSet<&str> = TableId::ALL.iter().map(|id| id.info().name).collect();
    assert_eq!(names.len(), TableId::ALL.len());
    // BPF_OBJ_NAME_LEN, with the zero at its end.
    assert!(names.iter().all(|name| name.len() < 16 && !name.contains('@')), "{names:?}");
}

#[test]
fn a_pin_says_which_version_it_is() {
    let pins: Vec<String> = TableId::ALL.iter().filter_map(|id| id.info().pin()).collect();
    for (id, pin) in TableId::ALL.iter().filter(|id| id.info().version.is_some()).zip(&pins) {
        assert_eq!(parse_pin(pin), (id.info().name, id.info().version));
    }
    assert_eq!(parse_pin("PEERS"), ("PEERS", Some(1)), "as it was called before versions");
    assert_eq!(parse_pin("PEERS@x"), ("PEERS", None));
}

#[test]
fn the_documentation_has_every_table_with_its_kind_and_size() {
    const PAGE: &str = include_str!("../../../../agent/ARCHITECTURE.md");
    for info in TableId::ALL.iter().map(|id| id.info()) {
        let name = std::format!("`{}`", info.name);
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")).map(|row| row.split('|').map(str::trim));
        let row = rows
            .map(Iterator::collect::<Vec<_>>)
            .find(|row| row[0].split(' ').any(|word| word.trim_end_matches(',') == name));
        let Some([_, kind, size, ..]) = row.as_deref() else { panic!("no row of {name} in agent/ARCHITECTURE.md") };
        let elements = match info.kind {
            Kind::RingBuffer => std::format!("{}KiB", info.elements / 1024),
            Kind::SocketStorage => String::new(),
            _ => info.elements.to_string(),
        };
        assert_eq!((*kind, size.replace(' ', "")), (info.kind.as_str(), elements), "{name} in agent/ARCHITECTURE.md");
    }
}
