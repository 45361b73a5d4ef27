//! Services that manage interfaces: NetworkManager and systemd-networkd.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::facts::{Facts, NetworkManager, Networkd};
use super::in_container;

/// Where configuration files are, of the distribution, of this boot and of the node.
const PREFIXES: [&str; 4] = ["usr/lib", "lib", "run", "etc"];

/// As links of pods are called.
const EXAMPLE: &str = "fl0123456789";

pub(super) fn managers(root: &Path, facts: &mut Facts) {
    if in_container() && !root.join("run/systemd").exists() && !root.join("etc/os-release").exists() {
        let why =
            "their files are not visible in this container; run this on the node or in a `kubectl debug node/NAME` pod";
        return facts.unseen.push(("NetworkManager and systemd-networkd".to_owned(), why.to_owned()));
    }
    if root.join("run/NetworkManager").exists() {
        let texts = files(root, "NetworkManager/conf.d", "conf");
        let own = fs::read_to_string(root.join("etc/NetworkManager/NetworkManager.conf")).ok();
        let keeps_off = texts.into_iter().map(|(_, text)| text).chain(own).any(|text| leaves_pods_alone(&text));
        facts.network_manager = Some(NetworkManager { keeps_off });
    }
    if root.join("run/systemd/netif/links").exists() {
        let own = fs::read_to_string(root.join("etc/systemd/networkd.conf")).ok();
        let texts: Vec<String> = own
            .into_iter()
            .chain(files(root, "systemd/networkd.conf.d", "conf").into_iter().map(|(_, text)| text))
            .collect();
        // The last one wins.
        let keeps = texts
            .iter()
            .rev()
            .find_map(|text| value(text, "Network", "ManageForeignRoutes").next_back().map(str::to_owned));
        let keeps_routes =
            keeps.is_some_and(|value| ["no", "false", "0", "off"].contains(&value.to_ascii_lowercase().as_str()));
        let mut networks = files(root, "systemd/network", "network");
        networks.sort_by_key(|(path, _)| path.file_name().map(ToOwned::to_owned));
        // The first that matches is taken.
        let first = networks.into_iter().find(|(_, text)| matches_pods(text));
        let claims = first.filter(|(_, text)| !is_unmanaged(text)).map(|(path, _)| path.display().to_string());
        facts.networkd = Some(Networkd { keeps_routes, claims: claims.into_iter().collect() });
    }
}

fn files(root: &Path, directory: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for prefix in PREFIXES {
        let directory = root.join(prefix).join(directory);
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths.retain(|path| path.extension().is_some_and(|found| found == extension));
        found.extend(paths.into_iter().filter_map(|path| fs::read_to_string(&path).ok().map(|text| (path, text))));
    }
    found
}

/// The values of a key in a section of a file of systemd's or NetworkManager's kind.
fn value<'a>(text: &'a str, section: &'a str, key: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
    let mut current = "";
    let values: Vec<&str> = text
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                current = name;
                return None;
            }
            let (found, value) = line.split_once('=')?;
            (current == section && found.trim().trim_end_matches('+') == key).then(|| value.trim())
        })
        .collect();
    values.into_iter()
}

fn leaves_pods_alone(text: &str) -> bool {
    value(text, "keyfile", "unmanaged-devices")
        .flat_map(|list| list.split([';', ',']))
        .filter_map(|spec| spec.trim().strip_prefix("interface-name:"))
        .any(|pattern| glob(pattern.trim_start_matches('='), EXAMPLE))
}

/// Whether a .network file is for links of pods. One that asks for more than a name or a type is for something else.
fn matches_pods(text: &str) -> bool {
    let names: Vec<&str> = value(text, "Match", "Name").flat_map(str::split_whitespace).collect();
    let types: Vec<&str> = value(text, "Match", "Type").flat_map(str::split_whitespace).collect();
    let particular = ["MACAddress", "PermanentMACAddress", "Path", "Driver", "Kind", "Property", "SSID", "Host"];
    if particular.iter().any(|key| value(text, "Match", key).next().is_some()) {
        return false;
    }
    let excluded = names.iter().filter_map(|name| name.strip_prefix('!')).any(|name| glob(name, EXAMPLE));
    let named = names.is_empty() || names.iter().any(|name| glob(name, EXAMPLE));
    let typed = types.is_empty() || types.contains(&"ether");
    (!names.is_empty() || !types.is_empty()) && named && typed && !excluded
}

fn is_unmanaged(text: &str) -> bool {
    value(text, "Link", "Unmanaged").next_back().is_some_and(|value| ["yes", "true", "1", "on"].contains(&value))
}

/// Whether a name is meant by a pattern with `*` and `?`.
fn glob(pattern: &str, name: &str) -> bool {
    fn matches(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                matches(rest, name) || name.split_first().is_some_and(|(_, tail)| matches(pattern, tail))
            }
            ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
            ([p, rest @ ..], [n, tail @ ..]) if p == n => matches(rest, tail),
            _ => false,
        }
    }
    matches(pattern.as_bytes(), name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_manager_is_told_by_patterns() {
        assert!(leaves_pods_alone(
            "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=mac:00:11;interface-name:fl*\n"
        ));
        assert!(leaves_pods_alone("[keyfile]\nunmanaged-devices+=interface-name:cali*,interface-name:*\n"));
        assert!(!leaves_pods_alone("[keyfile]\nunmanaged-devices=interface-name:veth*\n"));
        assert!(!leaves_pods_alone("[main]\nunmanaged-devices=interface-name:fl*\n"), "another section");
        assert!(!leaves_pods_alone("# [keyfile]\n#unmanaged-devices=interface-name:fl*\n"));
    }

    #[test]
    fn networkd_matches_by_name_and_type() {
        let cases = [
            ("[Match]\nName=*\n", true),
            ("[Match]\nType=ether\n[Network]\nDHCP=yes\n", true),
            ("[Match]\nName=en* eth*\n", false),
            ("[Match]\nName=* !fl*\n", false),
            ("[Match]\nName=*\nDriver=!veth\n", false),
            ("[Match]\nMACAddress=00:11:22:33:44:55\n", false),
            ("[Network]\nDHCP=yes\n", false),
        ];
        for (text, expected) in cases {
            assert_eq!(matches_pods(text), expected, "{text}");
        }
        assert!(is_unmanaged("[Match]\nName=fl*\n[Link]\nUnmanaged=yes\n"));
    }

    #[test]
    fn patterns_are_matched_whole() {
        for (pattern, expected) in [
            ("*", true),
            ("fl*", true),
            ("f?0123456789", true),
            ("*9", true),
            ("fl", false),
            ("*x", false),
            ("", false),
        ] {
            assert_eq!(glob(pattern, EXAMPLE), expected, "{pattern}");
        }
    }
}
