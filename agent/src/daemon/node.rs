//! What the programs are told of the node: `CONFIG` and `UPLINKS`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_datapath::Addr;
use fairlead_datapath::config::{Config, Uplink as UplinkRow};
use fairlead_objects::Node;
use zerocopy::IntoBytes;

use super::shared::Network;
use crate::bpf::{BpfError, Tables};
use crate::wiring::Uplink;

const CONFIG: &str = "CONFIG";
const UPLINKS: &str = "UPLINKS";

/// MTU of pods while no uplink is known: Ethernet's.
const MTU: u32 = 1500;

/// A device's first address of a family; link-local ones mean nothing to others.
fn address(uplink: &Uplink, v4: bool) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => v4 && !ip.is_link_local(),
        IpAddr::V6(ip) => !v4 && !ip.is_unicast_link_local(),
    };
    uplink.addresses.iter().map(|(ip, _)| *ip).find(usable)
}

/// What the interfaces say of the node. Its addresses are those that its object names and that it really has, or else
/// those of its uplinks.
pub(super) fn network(uplinks: &[Uplink], node: Option<&Node>) -> Network {
    let own: Vec<IpAddr> = uplinks.iter().flat_map(|uplink| &uplink.addresses).map(|(ip, _)| *ip).collect();
    let of_family = |v4: bool| {
        let named = node.into_iter().flat_map(|node| &node.internal_ips).copied();
        let mut named = named.filter(|ip| ip.is_ipv4() == v4 && own.contains(ip));
        named.next().or_else(|| uplinks.iter().find_map(|uplink| address(uplink, v4)))
    };
    let addresses: Vec<_> = [true, false].into_iter().filter_map(of_family).collect();
    let has = |uplink: &&Uplink| uplink.addresses.iter().any(|(ip, _)| addresses.contains(ip));
    Network {
        ifindex: uplinks.iter().find(has).or(uplinks.first()).map_or(0, |uplink| uplink.ifindex),
        mtu: uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(MTU),
        addresses,
    }
}

/// Writes both tables.
///
/// # Errors
/// The kernel refuses.
pub(super) fn write(tables: &Tables, uplinks: &[Uplink], network: &Network) -> Result<(), BpfError> {
    let of_family =
        |v4: bool| network.addresses.iter().find(|ip| ip.is_ipv4() == v4).map_or(Addr::UNSPECIFIED, |ip| (*ip).into());
    let config = Config {
        v4: of_family(true),
        v6: of_family(false),
        mtu: network.mtu,
        mark: Config::MARK,
        snat_first: Config::SNAT_FIRST,
        snat_count: Config::SNAT_COUNT,
        max_flows: Config::MAX_FLOWS,
        max_rate: Config::MAX_RATE,
        flags: 0,
    };
    tables.map(CONFIG)?.update(&0_u32.to_ne_bytes(), config.as_bytes(), 1)?;

    let map = tables.map(UPLINKS)?;
    let mut gone = BTreeSet::new();
    map.for_each(|key, _| {
        gone.insert(key.to_vec());
    })?;
    for uplink in uplinks {
        let of = |v4| address(uplink, v4).map_or(Addr::UNSPECIFIED, Addr::from);
        map.update(uplink.ifindex.as_bytes(), UplinkRow { v4: of(true), v6: of(false) }.as_bytes(), 1)?;
        gone.remove(uplink.ifindex.as_bytes());
    }
    gone.iter().try_for_each(|key| map.delete(key, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(ifindex: u32, mtu: u32, addresses: &[&str]) -> Uplink {
        let addresses = addresses.iter().map(|text| (text.parse().unwrap(), 64)).collect();
        Uplink { ifindex, name: format!("eth{ifindex}"), mtu, mac: None, addresses, has_default_route: true }
    }

    #[test]
    fn the_nodes_addresses_are_those_it_names_and_has() {
        let uplinks = [
            uplink(2, 9000, &["fe80::1", "10.0.0.1", "10.0.0.2", "2001:db8::1"]),
            uplink(3, 1400, &["172.18.0.11", "fd00:172:18::11"]),
        ];
        let found = network(&uplinks, None);
        assert_eq!(found.addresses, ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!((found.ifindex, found.mtu), (2, 1400));
        let node = Node {
            name: "n".into(),
            labels: [].into(),
            zone: None,
            internal_ips: ["192.0.2.9", "172.18.0.11"].map(|ip| ip.parse().unwrap()).into(),
            external_ips: vec![],
            pod_cidrs: vec![],
        };
        let found = network(&uplinks[1..], Some(&node));
        assert_eq!(found.addresses, ["172.18.0.11", "fd00:172:18::11"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert_eq!(found.ifindex, 3);
        assert!(network(&[], None).addresses.is_empty());
    }
}
