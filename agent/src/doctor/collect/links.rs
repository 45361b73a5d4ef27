//! The node's interfaces.

use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};
use fairlead_cni::protocol::HOST_LINK_PREFIX;
use fairlead_objects::causes;

use super::super::facts::{Facts, UplinkFacts};
use crate::wiring::{Netlink, Sysctls, Uplink, WiringError};

/// Programs of ours, at the uplinks' ingress and egress.
const OURS: [(TcAttachType, [&str; 2]); 2] =
    [(TcAttachType::Ingress, ["from_uplink", "from_bare"]), (TcAttachType::Egress, ["to_uplink", "to_bare"])];

pub(super) async fn links(proc_sys: &Path, facts: &mut Facts) {
    let agent = facts.agent.as_ref();
    let addresses = agent.map(|agent| agent.addresses.clone()).unwrap_or_default();
    let listed = async {
        let netlink = Netlink::open()?;
        Ok::<_, WiringError>((netlink.uplinks_and_candidates(&addresses).await?, netlink.mtus().await?))
    };
    let (found, mtus) = match listed.await {
        Ok(listed) => listed,
        Err(error) => return facts.unseen.push(("the node's interfaces".to_owned(), error.to_string())),
    };
    facts.pods = mtus.into_iter().filter(|(name, _)| is_of_pod(name)).collect();
    let Some(uplinks) = reaching_nodes(found, agent.and_then(|agent| agent.uplinks.as_deref())) else {
        let why =
            "no interface has a default route, and no agent answers that knows the Node's addresses and the settings";
        return facts.unseen.push(("uplinks".to_owned(), why.to_owned()));
    };
    let sysctls = Sysctls::new(proc_sys, Path::new("/"));
    let mut seen = Vec::new();
    for Uplink { name, mtu, paces, .. } in uplinks {
        let (mut before, mut unseen) = (Vec::new(), None);
        for (direction, own) in OURS {
            match SchedClassifier::query_tcx(&name, direction) {
                Ok((_, programs)) => {
                    let names = programs.iter().map(|program| program.name_as_str().unwrap_or("?").to_owned());
                    before.extend(names.take_while(|name| !own.contains(&name.as_str())));
                }
                // Kernels before 6.6 have no such list, and only an administrator of all sees what others have attached.
                Err(error) => unseen = Some(causes(&error)),
            }
        }
        facts.unseen.extend(unseen.map(|why| (format!("programs at {name}"), why)));
        seen.push(UplinkFacts { strict: sysctls.is_strict(&name), name, mtu, paces, before });
    }
    facts.uplinks = Some(seen);
}

/// Whether an interface is a pod's by its name, to which `host_link_of` gives ten digits. `flannel.1` has the same beginning.
fn is_of_pod(name: &str) -> bool {
    let digits = name.strip_prefix(HOST_LINK_PREFIX).unwrap_or_default();
    digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The interfaces by which other nodes are reached: those that the agent names, which has the settings and the Node object, or
/// else those with a default route. Without either they are not known.
fn reaching_nodes(found: Vec<Uplink>, agent: Option<&[String]>) -> Option<Vec<Uplink>> {
    let reaches = |uplink: &Uplink| agent.map_or(uplink.is_primary, |names| names.contains(&uplink.name));
    let uplinks: Vec<Uplink> = found.into_iter().filter(reaches).collect();
    (agent.is_some() || !uplinks.is_empty()).then_some(uplinks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wiring::Framing;

    fn uplink(name: &str, is_primary: bool) -> Uplink {
        Uplink {
            ifindex: 2,
            name: name.into(),
            mtu: 1500,
            mac: None,
            addresses: vec![],
            is_primary,
            has_ip: true,
            paces: false,
            framing: Framing::Ethernet,
            has_vlans: false,
        }
    }

    #[test]
    fn pods_interfaces_are_told_by_their_names() {
        use fairlead_cni::protocol::host_link_of;
        assert!(is_of_pod(&host_link_of(fairlead_cni::Mac([2, 0, 0xab, 0xcd, 0xef, 9]))));
        assert!(!is_of_pod("flannel.1") && !is_of_pod("fl") && !is_of_pod("eth0") && !is_of_pod("fl01234567890"));
    }

    #[test]
    fn uplinks_are_those_of_the_agent_else_of_default_routes_else_unknown() {
        let names = |found: &[(&str, bool)], agent: Option<&[&str]>| {
            let found = found.iter().map(|(name, is_primary)| uplink(name, *is_primary)).collect();
            let agent = agent.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>());
            let uplinks = reaching_nodes(found, agent.as_deref())?;
            Some(uplinks.into_iter().map(|uplink| uplink.name).collect::<Vec<_>>())
        };
        let (eth0, eth1) = (("eth0", true), ("eth1", false));
        assert_eq!(names(&[eth0, eth1], None).unwrap(), ["eth0"]);
        assert_eq!(names(&[eth1], None), None, "an address of the Node object may make it one");
        // `uplinks` and `excludeUplinks` are the agent's, and so are the addresses of the Node object.
        assert_eq!(names(&[eth0, eth1], Some(&["eth1"])).unwrap(), ["eth1"]);
        assert_eq!(names(&[eth0, eth1], Some(&[])).unwrap(), [""; 0], "none, and the agent knows");
    }
}
