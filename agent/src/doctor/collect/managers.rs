//! Services that manage interfaces: NetworkManager and systemd-networkd.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::facts::{Facts, NetworkManager, Networkd};
use super::in_container;
use crate::wiring::overlay;

/// Where configuration files are, of the distribution, of this boot and of the node.
const PREFIXES: [&str; 4] = ["usr/lib", "lib", "run", "etc"];

/// As interfaces of ours are called, with their types as networkd has them: those of pods, and the tunnel's.
const OURS: [(&str, &str); 2] = [("fl0123456789", "ether"), (overlay::NAME, "vxlan")];

pub(super) fn managers(root: &Path, facts: &mut Facts) {
    if in_container() && !root.join("run/systemd").exists() && !root.join("etc/os-release").exists() {
        let why =
            "their files are not visible in this container; run this on the node or in a `kubectl debug node/NAME` pod";
        return facts.unseen.push(("NetworkManager and systemd-networkd".to_owned(), why.to_owned()));
    }
    if root.join("run/NetworkManager").exists() {
        let texts = files(root, "NetworkManager/conf.d", "conf");
        let own = fs::read_to_string(root.join("etc/NetworkManager/NetworkManager.conf")).ok();
        let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).chain(own).collect();
        let keeps_off = OURS.iter().all(|(name, _)| texts.iter().any(|text| leaves_alone(text, name)));
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
        let first = |(name, kind): (&str, &str)| networks.iter().find(|(_, text)| matches(text, name, kind));
        let claims = OURS.into_iter().filter_map(first).filter(|(_, text)| !is_unmanaged(text));
        let mut claims: Vec<_> = claims.map(|(path, _)| path.display().to_string()).collect();
        claims.dedup();
        facts.networkd = Some(Networkd { keeps_routes, claims });
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

fn leaves_alone(text: &str, interface: &str) -> bool {
    value(text, "keyfile", "unmanaged-devices")
        .flat_map(|list| list.split([';', ',']))
        .filter_map(|spec| spec.trim().strip_prefix("interface-name:"))
        .any(|pattern| glob(pattern.trim_start_matches('='), interface))
}

/// Whether a .network file is for an interface. One that asks for more than a name or a type is for something else.
fn matches(text: &str, interface: &str, kind: &str) -> bool {
    let names: Vec<&str> = value(text, "Match", "Name").flat_map(str::split_whitespace).collect();
    let types: Vec<&str> = value(text, "Match", "Type").flat_map(str::split_whitespace).collect();
    let particular = ["MACAddress", "PermanentMACAddress", "Path", "Driver", "Kind", "Property", "SSID", "Host"];
    if particular.iter().any(|key| value(text, "Match", key).next().is_some()) {
        return false;
    }
    let excluded = names.iter().filter_map(|name| name.strip_prefix('!')).any(|name| glob(name, interface));
    let named = names.is_empty() || names.iter().any(|name| glob(name, interface));
    let typed = types.is_empty() || types.contains(&kind);
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
    use crate::doctor::findings;

    const POD: (&str, &str) = OURS[0];
    const TUNNEL: (&str, &str) = OURS[1];

    #[test]
    fn network_manager_is_told_by_patterns() {
        let leaves_pods_alone = |text: &str| leaves_alone(text, POD.0);
        assert!(leaves_pods_alone(
            "[main]\nplugins=keyfile\n[keyfile]\nunmanaged-devices=mac:00:11;interface-name:fl*\n"
        ));
        assert!(leaves_pods_alone("[keyfile]\nunmanaged-devices+=interface-name:cali*,interface-name:*\n"));
        assert!(!leaves_pods_alone("[keyfile]\nunmanaged-devices=interface-name:veth*\n"));
        assert!(!leaves_pods_alone("[main]\nunmanaged-devices=interface-name:fl*\n"), "another section");
        assert!(!leaves_pods_alone("# [keyfile]\n#unmanaged-devices=interface-name:fl*\n"));
    }

    /// A node's root directory with these files, that goes with it.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = Self(std::env::temp_dir().join(format!("fairlead-managers-{}-{name}", std::process::id())));
            for directory in ["run/NetworkManager", "run/systemd/netif/links"] {
                fs::create_dir_all(root.0.join(directory)).unwrap();
            }
            for (path, text) in files {
                let path = root.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            root
        }

        fn facts(&self) -> (bool, Vec<String>) {
            let mut facts = Facts::default();
            managers(&self.0, &mut facts);
            (facts.network_manager.unwrap().keeps_off, facts.networkd.unwrap().claims)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    /// What findings say to write, by their remedy.
    fn written(remedy: &str) -> String {
        remedy.split('\'').nth(1).unwrap().replace("\\n", "\n")
    }

    #[test]
    fn the_tunnels_interface_is_to_be_left_alone_too_and_flannels_is_not_ours() {
        let network = "etc/systemd/network/99-all.network";
        let (manager, own) = ("etc/NetworkManager/conf.d/fairlead.conf", "etc/systemd/network/05-fairlead.network");
        let all = (network, "[Match]\nName=*\n");
        let pods = [
            (manager, "[keyfile]\nunmanaged-devices=interface-name:fl*\n"),
            (own, "[Match]\nName=fl*\n[Link]\nUnmanaged=yes\n"),
            all,
        ];
        let (keeps_off, claims) = Root::new("pods", &pods).facts();
        assert!(!keeps_off && claims.len() == 1 && claims[0].ends_with("99-all.network"), "{claims:?}");
        let facts = Facts {
            network_manager: Some(NetworkManager { keeps_off: false }),
            networkd: Some(Networkd { keeps_routes: true, claims }),
            ..Facts::capable()
        };
        let remedies: Vec<String> = findings(&facts).iter().map(|finding| written(&finding.remedy)).collect();
        let [for_manager, for_networkd] = &remedies[..] else { panic!("{remedies:?}") };
        let remedied = Root::new("remedied", &[(manager, for_manager.as_str()), (own, for_networkd.as_str()), all]);
        assert_eq!(remedied.facts(), (true, vec![]));
        assert!(!leaves_alone(for_manager, "flannel.1") && !matches(for_networkd, "flannel.1", "vxlan"));
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
            assert_eq!(matches(text, POD.0, POD.1), expected, "{text}");
        }
        let of_tunnel = |text: &str| matches(text, TUNNEL.0, TUNNEL.1);
        assert!(of_tunnel("[Match]\nType=vxlan\n") && of_tunnel("[Match]\nName=fairlead*\n"));
        assert!(!of_tunnel("[Match]\nType=ether\n") && !of_tunnel("[Match]\nName=fl*\n"));
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
            assert_eq!(glob(pattern, POD.0), expected, "{pattern}");
        }
    }
}
