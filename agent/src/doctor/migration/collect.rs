//! Looking at what another network has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{ClusterFacts, Other, PORTS};

/// Beginnings of the names of devices, and whose those are. Host sides of pods are not among them: they go with their pods.
const DEVICES: [(&str, &str); 12] = [
    ("antrea-", "Antrea"),
    ("cilium_", "Cilium"),
    ("cni0", "the bridge plugin (flannel's too)"),
    ("flannel", "flannel"),
    ("kube-bridge", "kube-router"),
    ("kube-ipvs0", "kube-proxy"),
    ("nodelocaldns", "NodeLocal DNSCache"),
    ("ovn-k8s-", "OVN-Kubernetes"),
    ("tunl0", "Calico"),
    ("vxlan.calico", "Calico"),
    ("vxlan-v6.calico", "Calico"),
    ("weave", "Weave Net"),
];

/// Looks at the node, and reads the files that are named.
#[must_use]
pub fn collect(corefile: Option<&Path>, cluster: Option<&Path>, unseen: &mut Vec<(String, String)>) -> Other {
    Other {
        ports: taken(unseen),
        devices: devices(&names(unseen)),
        corefile: match corefile {
            Some(path) => check(path, unseen),
            None => {
                not_named(unseen, "CoreDNS' Corefile", "--corefile");
                None
            }
        },
        cluster: match cluster {
            Some(path) => match fs::read_to_string(path) {
                Ok(text) => Some(ClusterFacts::read(&text)),
                Err(error) => {
                    unseen.push((path.display().to_string(), error.to_string()));
                    None
                }
            },
            None => {
                not_named(unseen, "the cluster's Nodes, Services and policies", "--cluster");
                None
            }
        },
    }
}

fn not_named(unseen: &mut Vec<(String, String)>, what: &str, flag: &str) {
    unseen.push((what.to_owned(), format!("not named: use {flag} FILE")));
}

fn taken(unseen: &mut Vec<(String, String)>) -> Vec<super::Port> {
    let mut read = |names: [&str; 2]| {
        let mut ports = BTreeSet::new();
        for name in names {
            match fs::read_to_string(format!("/proc/net/{name}")) {
                Ok(text) => ports.extend(listening(&text)),
                // A kernel without IPv6 has none.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => unseen.push((format!("ports in use (/proc/net/{name})"), error.to_string())),
            }
        }
        ports
    };
    let (tcp, udp) = (read(["tcp", "tcp6"]), read(["udp", "udp6"]));
    let has = |port: &super::Port| {
        if port.protocol == "UDP" { udp.contains(&port.number) } else { tcp.contains(&port.number) }
    };
    PORTS.into_iter().filter(has).collect()
}

/// Ports at which something listens, of `/proc/net/tcp` (`TCP_LISTEN`) or `/proc/net/udp` (unconnected).
pub(super) fn listening(text: &str) -> impl Iterator<Item = u16> {
    text.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, _, state) = (words.next()?, words.next()?, words.next()?);
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        ["0A", "07"].contains(&state).then_some(port)
    })
}

fn names(unseen: &mut Vec<(String, String)>) -> Vec<String> {
    match fs::read_dir("/sys/class/net") {
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
        Err(error) => {
            unseen.push(("devices of other networks (/sys/class/net)".to_owned(), error.to_string()));
            Vec::new()
        }
    }
}

pub(super) fn devices(names: &[String]) -> BTreeMap<&'static str, Vec<String>> {
    let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for name in names {
        if let Some((_, whose)) = DEVICES.iter().find(|(beginning, _)| name.starts_with(beginning)) {
            found.entry(whose).or_default().push(name.clone());
        }
    }
    found.values_mut().for_each(|names| names.sort());
    found
}

/// Asks the DNS server beside this program, which reads Corefiles.
fn check(corefile: &Path, unseen: &mut Vec<(String, String)>) -> Option<Result<(), String>> {
    let program = std::env::current_exe().map(|path| path.with_file_name("fairlead-dns"));
    let output = program.and_then(|program| {
        // What it says is for an operator.
        let quiet = [("RUST_BACKTRACE", "0"), ("RUST_LIB_BACKTRACE", "0")];
        Command::new(program).arg("check").arg("--corefile").arg(corefile).envs(quiet).output()
    });
    match output {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).trim_start_matches("Error: ").to_owned())),
        Err(error) => {
            unseen.push((corefile.display().to_string(), format!("can't run fairlead-dns: {error}")));
            None
        }
    }
}
