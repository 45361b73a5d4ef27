//! The kernel's own translation, as kube-proxy's nftables mode and the bridge plugin with masquerade program it: the same
//! chains, hooks and priorities, written by hand.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::vantage::Probes;

/// A NodePort and its one endpoint.
pub(super) struct NodePort {
    pub(super) number: u16,
    pub(super) endpoint: IpAddr,
    pub(super) port: u16,
}

/// Programs a node: NodePorts for whoever comes from outside, and masquerade for its pods.
pub(super) fn program(node: &impl Probes, node_ip: IpAddr, pods: &str, ports: &[NodePort]) -> Result<()> {
    let ended = node.run_with(&["nft", "-f", "-"], &[], &rules(node_ip, pods, ports));
    ensure!(ended.ok(), "nft: {}", ended.stderr);
    Ok(())
}

fn rules(node_ip: IpAddr, pods: &str, ports: &[NodePort]) -> String {
    let (mut chains, mut elements) = (String::new(), Vec::new());
    for NodePort { number, endpoint, port } in ports {
        for protocol in ["tcp", "udp"] {
            let chain = format!("service-{number}-{protocol}");
            chains += &format!(
                "  chain endpoint-{number}-{protocol} {{
    ip saddr {endpoint} meta mark set mark or 0x4000
    meta l4proto {protocol} dnat to {endpoint}:{port}
  }}
  chain {chain} {{
    numgen random mod 1 vmap {{ 0 : goto endpoint-{number}-{protocol} }}
  }}
  chain external-{number}-{protocol} {{
    meta mark set mark or 0x4000
    goto {chain}
  }}
"
            );
            elements.push(format!("{protocol} . {number} : goto external-{number}-{protocol}"));
        }
    }
    format!(
        "table ip kube-proxy {{
{chains}  map service-nodeports {{
    type inet_proto . inet_service : verdict
    elements = {{ {elements} }}
  }}
  chain services {{
    ip daddr {node_ip} meta l4proto . th dport vmap @service-nodeports
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump services
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark & 0x4000 != 0 jump masquerading
  }}
  chain masquerading {{
    meta mark set mark xor 0x4000
    masquerade fully-random
  }}
}}
table ip bridge-plugin {{
  chain pod-sources {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pods} ip daddr != 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade
  }}
}}
",
        elements = elements.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_port_is_in_the_map_for_both_protocols() {
        let endpoint = "10.244.2.10".parse().unwrap();
        let text = rules(
            "172.18.0.11".parse().unwrap(),
            "10.244.1.0/24",
            &[NodePort { number: 30_490, endpoint, port: 7000 }],
        );
        for protocol in ["tcp", "udp"] {
            assert!(text.contains(&format!("{protocol} . 30490 : goto external-30490-{protocol}")), "{text}");
            assert!(text.contains(&format!("meta l4proto {protocol} dnat to 10.244.2.10:7000")), "{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
