//! What is known without counting, looked up when somebody asks. Nothing here walks through a table: entries are those
//! that the planners know of, flows those that the last sweep saw.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fairlead_objects::kubernetes::WatchState;
use fairlead_objects::{Kind, ObjectKey};
use fairlead_observe::{Answer, Handler, counter, counters, exposition, gauge, gauges};
use ipnetwork::IpNetwork;
use prometheus::proto::MetricFamily;
use serde_json::{Value, json};

use super::requests::requests;
use crate::bpf::{Migration, Tables};
use crate::cni::Health;
use crate::compile::policy::Direction;
use crate::model::Model;
use crate::repair::Kind as Repaired;
use crate::state::{DropLog, KubeProxy, Shared, errors_unsent, packets_by_xdp, pod_counts};
use crate::zone::answers;

/// What `/proxyMode` says, where kube-proxy names its backend: `iptables`, `ipvs`, `nftables`.
const PROXY_MODE: &str = "ebpf";

/// Answers `/metrics`, and `/proxyMode`, `/healthz` and `/configz` as kube-proxy does at this port.
#[derive(Debug)]
pub struct MetricsServer {
    /// What the agent knows.
    pub shared: Arc<Shared>,
    /// The maps, for reading.
    pub tables: Arc<Tables>,
    /// Dropped packets.
    pub drops: Arc<DropLog>,
    /// What `/configz` says.
    pub configuration: Value,
}

/// What of the settings kube-proxy's configuration has too, under its names.
#[must_use]
pub fn configuration(healthz: SocketAddr, metrics: SocketAddr, node_port_addresses: &[IpNetwork]) -> Value {
    json!({"kubeproxy.config.k8s.io": {
        "mode": PROXY_MODE,
        "healthzBindAddress": healthz.to_string(),
        "metricsBindAddress": metrics.to_string(),
        "nodePortAddresses": node_port_addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }})
}

impl Handler for MetricsServer {
    fn answer(&self, path: &str) -> Answer {
        match path {
            "/metrics" => {}
            "/proxyMode" => return Answer::text(200, PROXY_MODE),
            // As kube-proxy's at this port, it says that the process answers. `/healthz` at 10256 says more.
            "/healthz" => return Answer::text(200, "ok"),
            "/configz" => return Answer::new(200, "application/json", self.configuration.to_string()),
            _ => return Answer::not_found(),
        }
        let shared = &self.shared;
        let mut families = shared.metrics.collect();
        let view = shared.freshness.view();
        families.extend(KubeProxy::timestamps(view.updated, view.queued));
        families.extend(self.progress());
        families.extend(self.tables());
        families.extend(objects(&shared.model()));
        families.extend(watches(&shared.watches()));
        families.extend(requests(&shared.requests()));
        exposition(families)
    }
}

impl MetricsServer {
    fn progress(&self) -> Vec<MetricFamily> {
        let shared = &self.shared;
        let progress = shared.progress();
        let health = shared.health();
        let states = [
            ("ready", health == Health::Ready),
            ("starting", matches!(health, Health::Starting(_))),
            ("impaired", matches!(health, Health::Impaired(_))),
        ];
        let failures = shared.metrics.failures();
        let swept = shared.metrics.swept();
        let repairs = shared.repairs.counts();
        vec![
            gauges(
                "fairlead_build_info",
                "1, with the version as a label.",
                [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            ),
            gauges(
                "fairlead_health",
                "1 for the agent's current state, 0 for the others.",
                states.map(|(state, is)| (vec![("state", state)], f64::from(u8::from(is)))),
            ),
            counter("fairlead_plans_total", "Plans that were applied.", progress.plans as f64),
            counter("fairlead_plan_operations_total", "Operations of those plans.", progress.operations as f64),
            counter("fairlead_plan_failures_total", "Plans that could not be applied.", failures as f64),
            gauges(
                "fairlead_pods_cut_off",
                "Pods cut off because their policies do not fit into the tables, by direction.",
                [Direction::Ingress, Direction::Egress].map(|direction| {
                    let count = progress.cut_off.iter().filter(|cut_off| cut_off.direction == direction).count();
                    (vec![("direction", direction.as_str())], count as f64)
                }),
            ),
            gauges(
                "fairlead_table_left_out",
                "Entries that do not fit into a full table.",
                progress.left_out.iter().map(|(table, count)| (vec![("table", *table)], *count as f64)),
            ),
            gauges(
                "fairlead_migrated_entries",
                "Entries of tables of another version that the agent found when it started, by table and by what became of them.",
                shared.migrated.iter().flat_map(|migration| {
                    let Migration { table, from: _, to: _, elements, no_room, unreadable, lost: _ } = migration;
                    [("taken_over", elements), ("no_room", no_room), ("unreadable", unreadable)]
                        .map(|(result, count)| (vec![("table", *table), ("result", result)], *count as f64))
                }),
            ),
            counters(
                "fairlead_repairs_total",
                "Changes by others on the node that the agent repaired, by kind.",
                Repaired::ALL.map(|kind| {
                    let count = repairs.get(&kind).copied().unwrap_or_default();
                    (vec![("kind", kind.as_str())], count as f64)
                }),
            ),
            gauge(
                "fairlead_unrepaired",
                "Changes by others on the node that the agent can't repair.",
                shared.repairs.all_broken().len() as f64,
            ),
            counters(
                "fairlead_policy_audit_flows_total",
                "New flows that a policy in audit mode would have dropped, by policy and direction.",
                shared.audit().flows().iter().map(|((policy, direction), flows)| {
                    let ObjectKey { namespace, name } = policy;
                    let labels = vec![
                        ("namespace", namespace.as_str()),
                        ("policy", name.as_str()),
                        ("direction", direction.as_str()),
                    ];
                    (labels, *flows as f64)
                }),
            ),
            counters(
                "fairlead_policy_names_answers_total",
                "DNS answers that fairlead-dns asked about before it gave them to a pod, by what became of their addresses.",
                [
                    ("in_force", &shared.told.in_force),
                    ("not_covered", &shared.told.not_covered),
                    ("refused", &shared.told.refused),
                ]
                .map(|(said, count)| (vec![("result", said)], count.load(Ordering::Relaxed) as f64)),
            ),
            counter(
                "fairlead_policy_names_inside_total",
                "Addresses in such answers that names do not open: those of pods and nodes, link-local, loopback and multicast.",
                shared.told.inside.load(Ordering::Relaxed) as f64,
            ),
            counter(
                "fairlead_policy_names_evicted_total",
                "Addresses of names that went before their time, since there were too many.",
                shared.told.evicted.load(Ordering::Relaxed) as f64,
            ),
            gauge(
                "fairlead_policy_names_entries",
                "Addresses that pods were told for names in rules, and that open something or have connections.",
                shared.told.entries.load(Ordering::Relaxed) as f64,
            ),
            gauge(
                "fairlead_policy_names_servers",
                "DNS servers that are connected to ask which names open what.",
                shared.told.connected() as f64,
            ),
            gauge(
                "fairlead_services_refused",
                "Services that do not fit into the tables and keep their previous state: see `fairlead status`.",
                progress.services_refused as f64,
            ),
            gauges(
                "fairlead_claims_refused",
                "Addresses and ports that objects claim but do not get: see `fairlead status`.",
                [(vec![], progress.claims_refused as f64)],
            ),
            counter("fairlead_flows_swept_total", "Expired flows that the sweep removed.", swept as f64),
            counters(
                "fairlead_sockets_ended_total",
                "Sockets of the node's own processes that were closed because the pod at the other end is gone.",
                shared
                    .metrics
                    .ended_sockets()
                    .into_iter()
                    .map(|(transport, count)| (vec![("protocol", transport.name())], count as f64)),
            ),
        ]
    }

    fn tables(&self) -> Vec<MetricFamily> {
        let Self { shared, tables, drops, configuration: _ } = self;
        let entries = shared.metrics.entries();
        let nearly_full = shared.progress().nearly_full;
        let drops = drops.counts(tables);
        let of_pods = pod_counts(tables, shared);
        vec![
            gauges(
                "fairlead_table_entries",
                "Entries in a table: services and policies as of the last plan, flows as of the last sweep.",
                entries.into_iter().map(|(table, count)| (vec![("table", table.info().name)], count as f64)),
            ),
            gauges(
                "fairlead_table_nearly_full",
                "1 for a table that is 80 % full, until it is less than 75 % full.",
                nearly_full.iter().map(|table| (vec![("table", *table)], 1.0)),
            ),
            gauges(
                "fairlead_table_capacity",
                "Entries that a table can hold.",
                tables.iter().map(|map| (vec![("table", map.name())], f64::from(map.shape().max_entries))),
            ),
            counters(
                "fairlead_drops_total",
                "Packets dropped since the tables were created, by reason.",
                drops.iter().map(|drop| (vec![("reason", drop.reason.as_str())], drop.packets as f64)),
            ),
            counters(
                "fairlead_xdp_packets_total",
                "Packets of known connections that were sent on at the driver of an uplink (XDP), since the table was created.",
                packets_by_xdp(tables).map(|packets| (vec![], packets as f64)),
            ),
            counters(
                "fairlead_dns_kernel_answers_total",
                "DNS queries of pods that the kernel answered in place of the node's DNS server, since the table was created.",
                answers(tables).into_iter().flatten().map(|(answer, count)| {
                    (
                        vec![("type", answer.record_type()), ("rcode", answer.rcode()), ("result", answer.as_str())],
                        count as f64,
                    )
                }),
            ),
            gauge(
                "fairlead_dns_kernel_in_force",
                "1 while the kernel answers DNS queries of pods: see `fairlead status`.",
                f64::from(u8::from(shared.zone.in_force())),
            ),
            gauge(
                "fairlead_dns_kernel_names",
                "Names that the kernel knows of the cluster's zone.",
                shared.zone.names() as f64,
            ),
            counters(
                "fairlead_errors_unsent_total",
                "ICMP errors and resets that were not sent, since their receiver gets no more of them, by kind of receiver.",
                errors_unsent(tables).into_iter().map(|(to, count)| (vec![("to", to.as_str())], count as f64)),
            ),
            counters(
                "fairlead_pod_drops_total",
                "Packets from or to a pod of this node that were dropped since the pod started, by reason.",
                of_pods.iter().flat_map(|(key, counts)| {
                    counts.iter().map(|(reason, packets)| {
                        let labels = vec![
                            ("namespace", key.namespace.as_str()),
                            ("pod", key.name.as_str()),
                            ("reason", reason.as_str()),
                        ];
                        (labels, *packets as f64)
                    })
                }),
            ),
        ]
    }
}

fn watches(watches: &[WatchState]) -> Vec<MetricFamily> {
    vec![
        gauges(
            "fairlead_watch_alive",
            "1 if the watch is open and has recently received an event or a bookmark, by kind.",
            watches.iter().map(|watch| (vec![("kind", watch.kind.as_str())], f64::from(u8::from(watch.alive)))),
        ),
        gauges(
            "fairlead_watch_age_seconds",
            "Time since the last event or bookmark, by kind.",
            watches.iter().map(|watch| (vec![("kind", watch.kind.as_str())], watch.age.as_secs_f64())),
        ),
    ]
}

fn objects(model: &Model) -> Vec<MetricFamily> {
    let count = |kind: Kind| match kind {
        Kind::Node => model.nodes().count(),
        Kind::Namespace => model.namespaces().count(),
        Kind::Service => model.services().count(),
        Kind::EndpointSlice => model.slices().count(),
        Kind::NetworkPolicy => model.policies().count(),
        Kind::ClusterNetworkPolicy => model.cluster_policies().count(),
        Kind::Pod => model.pods().count(),
    };
    let waiting: Vec<_> = model.waiting_for().collect();
    vec![
        gauges(
            "fairlead_objects",
            "Known objects, by kind.",
            Kind::ALL.map(|kind| (vec![("kind", kind.as_str())], count(kind) as f64)),
        ),
        gauges(
            "fairlead_source_synced",
            "1 if the first list of a kind of objects is complete.",
            Kind::ALL.map(|kind| (vec![("kind", kind.as_str())], f64::from(u8::from(!waiting.contains(&kind))))),
        ),
        counter(
            "fairlead_invalid_objects_total",
            "Objects, or parts of objects, that could not be read.",
            model.mistakes().total() as f64,
        ),
        gauge("fairlead_pods", "Pods attached to this node.", model.local().len() as f64),
    ]
}
