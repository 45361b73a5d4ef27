//! DNS where kubelet sends pods.

use super::super::facts::{Agent, NodeLocalDns};
use super::{Finding, hinders};

/// Addresses that are neither the agent's nor the node's. Without an agent none is the agent's.
pub(super) fn node_local_dns(dns: &[NodeLocalDns], agent: Option<&Agent>) -> Vec<Finding> {
    let served = |dns: &NodeLocalDns| agent.is_some_and(|agent| agent.node_local_dns.contains(&dns.address));
    let missing = dns.iter().filter(|dns| !dns.here && !served(dns));
    missing
        .map(|NodeLocalDns { address, origin, here: _ }| {
            hinders(
                format!("kubelet gives pods {address} for DNS (clusterDNS in {origin}), and nothing serves that address"),
                "it is the address of NodeLocal DNSCache: without that, names can't be resolved in pods",
                format!(
                    "set `nodeLocalDns: [{address}]` in fairlead.yaml of the ConfigMap fairlead and restart the agents; or \
                     set clusterDNS to the address of the Service kube-dns, and restart kubelet and the pods"
                ),
            )
        })
        .collect()
}
