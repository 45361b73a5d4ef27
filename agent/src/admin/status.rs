//! How the agent is.

use fairlead_datapath::bandwidth::Bandwidth;
use fairlead_datapath::catalog::TableId;
use zerocopy::FromBytes as _;

use super::{Admin, MapView, PodView, RepairView, StatusView};
use crate::bpf::Map;
use crate::cni::Health;
use crate::compile::bandwidth::describe;
use crate::state::counts_of;

/// `BPF_MAP_TYPE_*` of maps whose elements come and go: hash, LRU hash, LPM trie.
const COUNTED: [u32; 3] = [1, 9, 11];

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
    let watches = watches.iter().map(|watch| (watch.kind.as_str().to_owned(), watch.alive, watch.age.as_secs()));
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
    StatusView {
        node: model.node_name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        health: health.to_owned(),
        reason: reason.or(progress.trouble),
        uptime_seconds: shared.started.elapsed().as_secs(),
        adopted: shared.adopted,
        objects: objects.map(|(kind, count)| (kind.to_owned(), count)).into(),
        watches: watches.collect(),
        plans: (progress.plans, progress.operations, progress.last_micros),
        pods: pods.collect(),
        maps: admin.tables.iter().map(fill).collect(),
        programs: shared.programs.iter().map(|p| (p.name.clone(), p.verified_instructions)).collect(),
        warnings: warnings.map(|(topic, text)| (topic.to_owned(), text)).collect(),
        repairs: repairs.collect(),
        refused: progress.refused.to_vec(),
        claims: progress.claims.to_vec(),
        pod_ranges: model.rules().pod_ranges.iter().map(ToString::to_string).collect(),
        masquerade: model.rules().masquerade.to_string(),
        node_local_dns: model.rules().node_local_dns.addresses.clone(),
        mistakes: model.mistakes().standing().into_iter().map(|m| (m.origin, m.reason)).collect(),
        drops: admin.drops.counts(&admin.tables).iter().map(|count| count.packets).sum(),
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
