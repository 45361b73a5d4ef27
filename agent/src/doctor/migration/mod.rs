//! `fairlead doctor --before-migration`: what has to be so before Fairlead takes over from another network and its proxy.
//!
//! There that network is no fault, but what the guide has to be followed for: each finding names what to do in which order.
//! [`collect()`] looks, [`before_migration()`] is a pure function of what it saw.

mod cluster;
mod collect;

use std::collections::BTreeMap;

use super::facts::{Cni, Facts, Proxy};
use super::findings::{Finding, blocks, findings, hinders};

pub use cluster::ClusterFacts;
pub use collect::collect;

/// The page with the order of steps.
const GUIDE: &str = "manifests/book/src/operate/migrate.md";

/// What another network has on the node, and what the cluster's objects say.
#[derive(Debug, Clone, Default)]
pub struct Other {
    /// Ports that Fairlead serves at by default and somebody has.
    pub ports: Vec<Port>,
    /// Devices of other networks, by whose they are.
    pub devices: BTreeMap<&'static str, Vec<String>>,
    /// What `fairlead-dns check` says of CoreDNS' Corefile, where it was named.
    pub corefile: Option<Result<(), String>>,
    /// The cluster's objects, where they were named.
    pub cluster: Option<ClusterFacts>,
}

/// A port that Fairlead serves at by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// The setting that moves it.
    pub setting: &'static str,
    /// Whether kube-proxy has it by default.
    pub of_kube_proxy: bool,
}

/// Every such port.
pub(super) const PORTS: [Port; 3] = [
    Port { number: 10_256, protocol: "TCP", purpose: "health checks", setting: "healthz.bind", of_kube_proxy: true },
    Port { number: 10_249, protocol: "TCP", purpose: "metrics", setting: "metrics.bind", of_kube_proxy: true },
    Port { number: 4789, protocol: "UDP", purpose: "VXLAN between nodes", setting: "vxlanPort", of_kube_proxy: false },
];

/// What has to be done before or during a migration, the worst first. What [`findings()`] finds is among it, but for what is
/// there because Fairlead is not yet.
#[must_use]
pub fn before_migration(facts: &Facts, other: &Other) -> Vec<Finding> {
    let Other { ports, devices, corefile, cluster } = other;
    let mut here = facts.clone();
    here.proxy = Proxy::default();
    here.cni.files.retain(|name| *name == here.cni.own);
    // `fairlead install` sees to these.
    (here.bpffs, here.settings) = (None, Vec::new());
    let mut found = findings(&here);
    found.extend(proxy(&facts.proxy));
    found.extend(cni(&facts.cni));
    found.extend(devices.iter().map(|(whose, names)| device(whose, names)));
    let has_proxy = !facts.proxy.processes.is_empty() || facts.proxy.mode.is_some();
    let own = facts.agent.is_some();
    found.extend(ports.iter().filter(|port| !(own || port.of_kube_proxy && has_proxy)).map(port_taken));
    found.extend(corefile.as_ref().and_then(|result| result.as_ref().err()).map(|said| corefile_refused(said)));
    found.extend(cluster.iter().flat_map(cluster::findings));
    found.sort_by_key(|finding| finding.severity);
    found
}

fn proxy(proxy: &Proxy) -> Option<Finding> {
    let Proxy { processes, mode, rules, ipvs } = proxy;
    let runs = !processes.is_empty() || mode.is_some();
    if !runs && rules.is_empty() && !ipvs {
        return None;
    }
    let mode = mode.as_ref().map(|mode| format!(" in mode {mode}")).unwrap_or_default();
    let what = match (runs, rules.len()) {
        (true, 0) => format!("kube-proxy runs{mode}"),
        (true, count) => format!("kube-proxy runs{mode}, with {count} tables and chains of its own"),
        (false, 0) => "kube-proxy left the device kube-ipvs0".to_owned(),
        (false, count) => format!("kube-proxy left {count} tables and chains"),
    };
    Some(hinders(
        what,
        "its rules translate the same connections as Fairlead, and stay in force without it",
        format!(
            "remove it from this node before Fairlead starts there: exclude the node from its DaemonSet by a label \
             ({GUIDE}#kube-proxy), then on the node: kube-proxy --cleanup; or reboot the drained node"
        ),
    ))
}

fn cni(cni: &Cni) -> Option<Finding> {
    let Cni { directory, own, files, lead_here, .. } = cni;
    let others: Vec<&str> =
        files.iter().filter(|name| *name != own && !lead_here.contains(name)).map(String::as_str).collect();
    let first = *others.first()?;
    let directory = directory.display();
    // A runtime takes the first by name.
    let order = if first < own.as_str() {
        format!(
            "new pods join that network until it is removed: rm {directory}/{}",
            others.join(&format!(" {directory}/"))
        )
    } else {
        format!(
            "once the agent is ready, {own} takes precedence and new pods join Fairlead; remove the others with their \
             network"
        )
    };
    Some(hinders(
        format!("pods are connected by another network plugin: {} in {directory}", others.join(", ")),
        "pods keep the network that connected them until they are recreated; a drain leaves those of DaemonSets",
        format!(
            "drain the node before its agent starts ({GUIDE}#pod-network): {order}; then delete the pods that the drain has left, \
             except those in the node's network ({GUIDE}#remaining-pods)"
        ),
    ))
}

fn device(whose: &str, names: &[String]) -> Finding {
    hinders(
        format!("devices of {whose}: {}", names.join(", ")),
        "they remain when its pods are deleted, with routes that may attract pods' packets",
        format!(
            "when the node is drained and {whose} is gone from it: {}; or reboot it",
            names.iter().map(|name| format!("ip link delete {name}")).collect::<Vec<_>>().join("; ")
        ),
    )
}

fn port_taken(port: &Port) -> Finding {
    let Port { number, protocol, purpose, setting, of_kube_proxy: _ } = port;
    blocks(
        format!("{protocol} port {number}, which Fairlead uses for {purpose}, is in use"),
        "the agent does not start, or serves nothing on that port",
        format!(
            "stop the process that uses it (ss -lnp {}sport = :{number}), or set `{setting}`",
            if *protocol == "UDP" { "-u " } else { "-t " }
        ),
    )
}

fn corefile_refused(said: &str) -> Finding {
    blocks(
        format!("CoreDNS' Corefile uses what Fairlead does not support: {}", said.trim().replace('\n', "; ")),
        "answers would change once CoreDNS is removed",
        "change the Corefile as the message says, or keep CoreDNS: both can run side by side",
    )
}

#[cfg(test)]
mod tests;
