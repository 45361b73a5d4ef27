//! How the agent is.

use fairlead_datapath::bandwidth::Bandwidth;
use fairlead_datapath::catalog::TableId;
use ipnetwork::IpNetwork;
use zerocopy::FromBytes as _;

use super::{
    Admin, DnsView, MapView, MigrationView, NetworkView, ObjectCount, ObjectTrouble, PlansView, PodView, ProgramView,
    RangeView, RepairView, StatusView, WarningView, WatchView, WayView, XdpView,
};
use crate::bpf::{Map, Migration};
use crate::cni::{Health, room};
use crate::compile::bandwidth::describe;
use crate::model::Model;
use crate::network::{Network, Way};
use crate::state::{counts_of, packets_by_xdp};
use crate::zone::answers;

/// `BPF_MAP_TYPE_*` of maps whose elements come and go: hash, hash per CPU, LRU hash, LPM trie.
const COUNTED: [u32; 4] = [1, 5, 9, 11];

pub(super) fn status(admin: &Admin) -> StatusView {
    let shared = &admin.shared;
    let (health, reason) = match shared.health() {
        Health::Ready => ("ready", None),
        Health::Starting(reason) => ("starting", Some(reason)),
        Health::Impaired(reason) => ("impaired", Some(reason)),
    };
    let progress = shared.progress();
    let warnings = progress.warnings.into_iter().chain(shared.troubles().into_iter().map(|text| ("objects", text)));
    let broken = shared.repairs.all_broken().into_iter().map(|broken| ("not repaired", broken.what));
    let warnings = warnings.chain(broken);
    let repairs = shared.repairs.last().into_iter().map(|(time, repair)| RepairView {
        time: time.to_string(),
        kind: repair.kind.as_str().to_owned(),
        what: repair.what,
    });
    let watches = shared.watches();
    let watches = watches.iter().map(|watch| WatchView {
        kind: watch.kind.as_str().to_owned(),
        alive: watch.alive,
        silent_seconds: watch.age.as_secs(),
    });
    let programs = shared.programs.iter().map(|program| ProgramView {
        name: program.name.clone(),
        verified_instructions: program.verified_instructions,
    });
    let api_server = shared.server();
    // From here on nothing that looks into the model itself: a reader that comes again waits for a writer between.
    let model = shared.model();
    let objects = [
        ("nodes", model.nodes().count()),
        ("namespaces", model.namespaces().count()),
        ("services", model.services().count()),
        ("endpoint slices", model.slices().count()),
        ("network policies", model.policies().count()),
        ("cluster network policies", model.cluster_policies().count()),
        ("pods", model.pods().count()),
    ];
    let pods = model.local().values().map(|local| PodView {
        slot: local.slot,
        pod: local.key.to_string(),
        ips: local.ips.clone(),
        known: model.object_of(local).is_some(),
        cut_off: progress
            .cut_off
            .iter()
            .filter(|cut_off| cut_off.slot == local.slot)
            .map(ToString::to_string)
            .collect(),
        bandwidth: bandwidth(admin, local.slot),
        drops: counts_of(&admin.tables, local.slot).iter().map(|(_, packets)| packets).sum(),
    });
    let xdp = progress.xdp.into_iter().map(|(uplink, obstacle)| XdpView { uplink, obstacle }).collect();
    StatusView {
        node: model.node_name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health.to_owned(),
        reason: reason.or(progress.trouble),
        uptime_seconds: shared.started.elapsed().as_secs(),
        adopted: shared.adopted,
        migrated: shared.migrated.iter().map(migrated).collect(),
        parts: model.rules().parts.as_str().to_owned(),
        network: NetworkView {
            xdp_packets: packets_by_xdp(&admin.tables).unwrap_or_default(),
            ..network(&model, &progress.network, (progress.uplinks, xdp), api_server)
        },
        objects: objects.map(|(kind, count)| ObjectCount { kind: kind.to_owned(), count }).into(),
        watches: watches.collect(),
        plans: PlansView {
            applied: progress.plans,
            operations: progress.operations,
            last_micros: progress.last_micros,
        },
        pods: pods.collect(),
        maps: admin.tables.iter().map(fill).collect(),
        programs: programs.collect(),
        warnings: warnings.map(|(topic, text)| WarningView { topic: topic.to_owned(), text }).collect(),
        repairs: repairs.collect(),
        refused: troubles(&progress.refused),
        claims: troubles(&progress.claims),
        pod_ranges: model.rules().pod_ranges.iter().map(ToString::to_string).collect(),
        masquerade: model.rules().masquerade.to_string(),
        node_local_dns: model.rules().node_local_dns.addresses.clone(),
        dns: dns(admin),
        mistakes: model
            .mistakes()
            .standing()
            .into_iter()
            .map(|m| ObjectTrouble { object: m.origin, reason: m.reason })
            .collect(),
        drops: admin.drops.counts(&admin.tables).iter().map(|count| count.packets).sum(),
    }
}

fn dns(admin: &Admin) -> DnsView {
    let zone = &admin.shared.zone;
    DnsView {
        in_kernel: zone.in_force(),
        obstacle: zone.why_not(),
        names: zone.names() as u64,
        answers: answers(&admin.tables).into_iter().flatten().map(|(_, count)| count).sum(),
    }
}

fn migrated(migration: &Migration) -> MigrationView {
    let Migration { table, from, to, elements, no_room: _, unreadable: _, lost: _ } = migration;
    let (from, to, entries, lost) = (*from, *to, *elements, migration.loss());
    MigrationView { table: (*table).to_owned(), from, to, entries, lost }
}

fn troubles(told: &[(String, String)]) -> Vec<ObjectTrouble> {
    let told = told.iter().cloned();
    told.map(|(object, reason)| ObjectTrouble { object, reason }).collect()
}

/// The node among the others, as the objects and its interfaces have it.
fn network(
    model: &Model,
    network: &Network,
    (uplinks, xdp): (Option<Vec<String>>, Vec<XdpView>),
    api_server: Option<String>,
) -> NetworkView {
    let own = model.own_node();
    let in_use = |range: &IpNetwork| {
        let ips = model.local().values().flat_map(|pod| &pod.ips);
        ips.filter(|ip| range.contains(**ip)).count() as u64
    };
    let ranges = own.into_iter().flat_map(|node| &node.pod_cidrs).map(|range| {
        let used = in_use(range);
        RangeView { range: range.to_string(), used, free: room(*range).saturating_sub(used) }
    });
    let others = model.nodes().filter(|node| node.name != model.node_name());
    let nodes = others.map(|node| {
        let way = |v4: bool| {
            let has = node.pod_cidrs.iter().any(|range| range.is_ipv4() == v4);
            has.then(|| {
                match network.way(node, v4) {
                    Way::Direct(_) => "direct",
                    Way::Tunnel => "tunnel",
                    Way::Routed => "routed",
                }
                .to_owned()
            })
        };
        WayView { node: node.name.clone(), ipv4: way(true), ipv6: way(false) }
    });
    NetworkView {
        api_server,
        uplinks,
        xdp,
        xdp_packets: 0,
        addresses: network.addresses.clone(),
        mtu: network.mtu,
        pod_mtu: network.pod_mtu(model.node_name(), model.nodes()),
        ranges: ranges.collect(),
        nodes: nodes.collect(),
    }
}

/// What is in force.
fn bandwidth(admin: &Admin, slot: u16) -> Vec<String> {
    let value = admin.tables.map(TableId::Limits).and_then(|map| map.get(&u32::from(slot).to_ne_bytes()));
    let Some(limits) = value.ok().flatten().and_then(|bytes| Bandwidth::read_from_bytes(&bytes).ok()) else {
        return Vec::new();
    };
    let both = [("egress", limits.egress), ("ingress", limits.ingress)];
    both.iter().filter(|(_, limit)| limit.rate != 0).map(|(direction, limit)| describe(direction, limit)).collect()
}

fn fill(map: &Map) -> MapView {
    let shape = map.shape();
    let count = || {
        let mut used = 0;
        map.for_each(|_, _| used += 1).ok()?;
        Some(used)
    };
    let used = COUNTED.contains(&shape.map_type).then(count).flatten();
    MapView { name: map.name().to_owned(), used, size: shape.max_entries }
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Event, Node, Object};

    use super::*;
    use crate::network::{Tunnel, TunnelFrom, TunnelSettings};

    fn node(name: &str, ip: &str, ranges: &[&str]) -> Node {
        Node {
            leaving: false,
            name: name.into(),
            labels: [].into(),
            zone: None,
            internal_ips: vec![ip.parse().unwrap()],
            external_ips: vec![],
            pod_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            annotated: None,
        }
    }

    #[test]
    fn the_network_of_a_node_names_ranges_with_their_room_and_ways_to_others() {
        let mut model = Model::new("a");
        let nodes = [
            node("a", "192.0.2.1", &["10.244.0.0/29", "fd00:10:244::/64"]),
            node("b", "192.0.2.2", &["10.244.1.0/24"]),
            node("c", "198.51.100.3", &["10.244.2.0/24", "fd00:10:244:2::/64"]),
        ];
        nodes.into_iter().for_each(|node| model.take(Event::Applied(Object::Node(node))));
        model.attach(crate::model::LocalPod {
            foreign: None,
            slot: 0,
            key: fairlead_objects::ObjectKey::new("shop", "cart"),
            uid: String::new(),
            ips: vec!["10.244.0.2".parse().unwrap(), "fd00:10:244::2".parse().unwrap()],
            pod_mac: [2; 6],
            host_mac: [3; 6],
        });
        let here = Network {
            ifindex: 2,
            mtu: 1500,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            subnets: vec!["192.0.2.0/24".parse().unwrap()],
            tunnel: TunnelSettings { when: Tunnel::Auto, from: TunnelFrom::Reached, port: 4789 },
        };
        let view =
            network(&model, &here, (Some(vec!["eth0".into()]), Vec::new()), Some("https://192.0.2.9:6443/".into()));
        assert_eq!((view.mtu, view.pod_mtu), (1500, 1450), "c is behind the tunnel");
        let ranges: Vec<_> = view.ranges.iter().map(|r| (r.range.as_str(), r.used)).collect();
        assert_eq!(ranges, [("10.244.0.0/29", 1), ("fd00:10:244::/64", 1)]);
        // Of eight addresses three are never given, and one is in use.
        assert_eq!(view.ranges[0].free, 4);
        assert!(view.ranges[1].free > 1000);
        let way =
            |at: usize| (view.nodes[at].node.as_str(), view.nodes[at].ipv4.as_deref(), view.nodes[at].ipv6.as_deref());
        assert_eq!(way(0), ("b", Some("direct"), None));
        assert_eq!(way(1), ("c", Some("tunnel"), Some("tunnel")));
        assert_eq!(view.nodes.len(), 2);
    }
}
