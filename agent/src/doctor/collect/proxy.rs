//! kube-proxy: whether it runs, and what it left.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::super::facts::Proxy;
use super::firewall::{self, Rule};

/// Where kube-proxy tells its metrics and its mode, unless told otherwise.
const PORT: u16 = 10249;

/// How long it may take to answer on this machine.
const PATIENCE: Duration = Duration::from_millis(300);

/// Chains that kube-proxy makes in tables of iptables (pkg/proxy/iptables/proxier.go). Kubelet has chains of its own that
/// begin with `KUBE-`, and they do no harm.
const CHAINS: [&str; 6] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
];
const CHAIN_PREFIXES: [&str; 3] = ["KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-"];

/// Looks for it. It blocks for a moment.
#[must_use]
pub fn proxy() -> Proxy {
    proxy_with(&firewall::rules(&mut Vec::new()), Path::new("/proc"))
}

pub(super) fn proxy_with(rules: &[Rule], proc: &Path) -> Proxy {
    Proxy {
        processes: processes(proc),
        mode: mode(),
        rules: rules.iter().filter(|rule| is_of_proxy(rule)).map(ToString::to_string).collect(),
        ipvs: Path::new("/sys/class/net/kube-ipvs0").exists(),
    }
}

fn is_of_proxy(rule: &Rule) -> bool {
    match &rule.chain {
        None => rule.table == "kube-proxy",
        Some(chain) => {
            CHAINS.contains(&chain.as_str()) || CHAIN_PREFIXES.iter().any(|prefix| chain.starts_with(prefix))
        }
    }
}

fn processes(proc: &Path) -> Vec<u32> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| fs::read_to_string(proc.join(format!("{id}/comm"))).is_ok_and(|name| name.trim() == "kube-proxy"))
        .collect()
}

/// What kube-proxy answers to `/proxyMode`. Our agent answers something else at that port, or nothing.
fn mode() -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let known = ["iptables", "ipvs", "nftables"].contains(&body.trim());
    (known && head.contains(" 200 ")).then(|| body.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_kubelet_are_not_kube_proxys() {
        let rule = |table: &str, chain: Option<&str>| Rule {
            family: "ip",
            table: table.to_owned(),
            chain: chain.map(str::to_owned),
            forwards: false,
            drops_forwarded: false,
        };
        let ours = [("kube-proxy", None), ("nat", Some("KUBE-SERVICES")), ("nat", Some("KUBE-SEP-ABC"))];
        let others = [
            ("nat", None),
            ("nat", Some("KUBE-KUBELET-CANARY")),
            ("filter", Some("KUBE-FIREWALL")),
            ("nat", Some("DOCKER")),
        ];
        assert!(ours.iter().all(|(table, chain)| is_of_proxy(&rule(table, *chain))));
        assert!(!others.iter().any(|(table, chain)| is_of_proxy(&rule(table, *chain))));
    }
}
