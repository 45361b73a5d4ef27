//! What kubelet gives to pods for DNS.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use serde::Deserialize;

use super::super::facts::NodeLocalDns;

/// Where kubeadm, kind and minikube have kubelet's configuration.
const CONFIG: &str = "var/lib/kubelet/config.yaml";

/// As much of it as is of interest (staging/src/k8s.io/kubelet/config/v1beta1).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    #[serde(rename = "clusterDNS")]
    cluster_dns: Option<Vec<String>>,
}

/// The flags of a running kubelet. They win over the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flags {
    config: Option<String>,
    cluster_dns: Option<String>,
}

/// Looks for link-local addresses in `clusterDNS`, of the kubelet that runs or else of its usual configuration.
pub(super) fn node_local_dns(root: &Path, unseen: &mut Vec<(String, String)>) -> Vec<NodeLocalDns> {
    let Flags { config, cluster_dns } = running(&root.join("proc")).unwrap_or_default();
    let (texts, origin) = match cluster_dns {
        Some(list) => (list.split(',').map(str::to_owned).collect(), "kubelet's --cluster-dns".to_owned()),
        None => {
            let path = root.join(config.as_deref().unwrap_or(CONFIG).trim_start_matches('/'));
            match read(&path) {
                Ok(found) => (found, path.display().to_string()),
                Err(why) => {
                    unseen.push(("kubelet's clusterDNS".to_owned(), why));
                    return Vec::new();
                }
            }
        }
    };
    let own = own_addresses();
    let parsed = texts.iter().filter_map(|text| text.trim().parse::<IpAddr>().ok()).filter(is_link_local);
    parsed.map(|address| NodeLocalDns { address, origin: origin.clone(), here: own.contains(&address) }).collect()
}

fn is_link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn read(path: &Path) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{} can't be read: {error}", path.display()))?;
    let options = serde_saphyr::options! { with_snippet: false };
    let config: Config = serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| format!("{} is not a kubelet configuration: {}", path.display(), error.without_snippet()))?;
    Ok(config.cluster_dns.unwrap_or_default())
}

fn running(proc: &Path) -> Option<Flags> {
    let entries = fs::read_dir(proc).ok()?.flatten();
    let processes = entries.map(|entry| entry.path()).filter(|path| is_kubelet(path.as_path()));
    processes.filter_map(|path| fs::read(path.join("cmdline")).ok()).map(|line| flags(&line)).next()
}

fn is_kubelet(process: &Path) -> bool {
    fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "kubelet")
}

/// Reads a command line as /proc has it.
fn flags(line: &[u8]) -> Flags {
    let text = String::from_utf8_lossy(line);
    let words: Vec<&str> = text.split('\0').collect();
    let value = |name: &str| {
        words.iter().enumerate().find_map(|(at, word)| {
            let rest = word.trim_start_matches('-').strip_prefix(name)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if rest.is_empty() => words.get(at + 1).map(ToString::to_string),
                None => None,
            }
        })
    };
    Flags { config: value("config"), cluster_dns: value("cluster-dns") }
}

fn own_addresses() -> Vec<IpAddr> {
    let ip = |address: &SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    getifaddrs().into_iter().flatten().filter_map(|interface| ip(&interface.address?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_running_kubelet_are_read_in_both_forms() {
        let line = |words: &[&str]| flags(words.join("\0").as_bytes());
        let both = Flags { config: Some("/etc/k.yaml".into()), cluster_dns: Some("169.254.20.10,10.96.0.10".into()) };
        assert_eq!(line(&["kubelet", "--config=/etc/k.yaml", "--cluster-dns=169.254.20.10,10.96.0.10"]), both);
        assert_eq!(line(&["kubelet", "--config", "/etc/k.yaml", "-cluster-dns", "169.254.20.10,10.96.0.10"]), both);
        assert_eq!(line(&["kubelet", "--config-dir=/etc/k.d", "--cluster-dns-x=1"]), Flags::default());
    }

    #[test]
    fn link_local_addresses_of_the_configuration_are_found() {
        let root = std::env::temp_dir().join(format!("fairlead-kubelet-{}", std::process::id()));
        let path = root.join(CONFIG);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let found = |text: &str| {
            fs::write(&path, text).unwrap();
            let mut unseen = Vec::new();
            let found = node_local_dns(&root, &mut unseen);
            (found.iter().map(|dns| dns.address.to_string()).collect::<Vec<_>>(), unseen)
        };
        let kubeadm =
            "kind: KubeletConfiguration\nclusterDNS:\n- 169.254.20.10\n- 10.96.0.10\nclusterDomain: cluster.local\n";
        assert_eq!(found(kubeadm), (vec!["169.254.20.10".to_owned()], vec![]));
        assert_eq!(found("clusterDNS: null\n"), (vec![], vec![]));
        let (none, unseen) = found("clusterDNS: [\n");
        assert!(none.is_empty() && unseen[0].1.contains("not a kubelet configuration"), "{unseen:?}");
        fs::remove_dir_all(&root).unwrap();
        let mut unseen = Vec::new();
        assert!(node_local_dns(&root, &mut unseen).is_empty());
        assert!(unseen[0].1.contains(CONFIG), "{unseen:?}");
    }
}
