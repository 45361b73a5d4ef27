//! `fairlead status` for a person.

use super::{Table, yes};
use crate::admin::{
    DnsView, MapView, MigrationView, NetworkView, ObjectCount, ObjectTrouble, PlansView, ProgramView, RangeView,
    StatusView, WatchView, WayView, XdpView,
};
use crate::parts::Parts;

pub(in crate::cli) fn status(status: &StatusView, verbose: bool) -> String {
    let StatusView {
        node,
        version,
        health,
        reason,
        uptime_seconds,
        adopted,
        migrated,
        parts,
        network,
        objects,
        watches,
        plans: PlansView { applied, operations, last_micros },
        pods,
        maps,
        programs,
        warnings,
        repairs,
        refused,
        claims,
        pod_ranges,
        masquerade,
        node_local_dns,
        dns,
        mistakes,
        drops,
    } = status;
    let mut out = Table::new(["field", "value"]);
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let objects: Vec<_> = objects.iter().map(|ObjectCount { kind, count }| format!("{count} {kind}")).collect();
    out.row(["node".into(), node.clone()]);
    out.row([
        "agent".into(),
        format!("{version}, up {uptime_seconds} s{}", if *adopted { ", adopted existing maps" } else { "" }),
    ]);
    if !migrated.is_empty() {
        let of = |MigrationView { table, from, to, entries, lost: _ }: &MigrationView| {
            format!("{table}, layout {from} to {to}, {entries} entries")
        };
        out.row(["tables taken over".into(), migrated.iter().map(of).collect::<Vec<_>>().join("; ")]);
    }
    out.row(["health".into(), format!("{health}{reason}")]);
    let parts = Parts::named(parts);
    if parts != Parts::All {
        out.row(["parts".into(), parts.to_string()]);
    }
    if let Some(server) = api_server(network, watches) {
        out.row(["API server".into(), server]);
    }
    if parts.wires() {
        out.row(["other nodes".into(), ways(network)]);
    }
    match parts.wires() {
        true => out.row(["MTU".into(), format!("uplink {}, new pods {}", network.mtu, network.pod_mtu)]),
        false => out.row(["MTU".into(), format!("uplink {}", network.mtu)]),
    }
    for XdpView { uplink, obstacle } in &network.xdp {
        let how = obstacle.as_ref().map_or_else(
            || format!("attached, {} packets sent on", network.xdp_packets),
            |obstacle| format!("no: {obstacle}"),
        );
        out.row([format!("XDP at {uplink}"), how]);
    }
    for RangeView { range, used, free } in network.ranges.iter().filter(|_| parts.wires()) {
        out.row(["pod range".into(), format!("{range}: {used} in use, {free} free")]);
    }
    out.row(["objects".into(), objects.join(", ")]);
    if !masquerade.is_empty() && parts.wires() {
        out.row(["masquerade".into(), masquerade.clone()]);
    }
    if parts.wires() {
        out.row(["DNS in the kernel".into(), in_kernel(dns)]);
    }
    out.row(["plans".into(), format!("{applied} applied with {operations} operations, the last in {last_micros} µs")]);
    out.row(["drops".into(), format!("{drops} packets: see `fairlead drops`")]);
    let mut text = out.to_string();

    let mut out = Table::new(["slot", "pod", "addresses", "object known", "drops"]);
    for pod in pods {
        let ips: Vec<_> = pod.ips.iter().map(ToString::to_string).collect();
        out.row([pod.slot.to_string(), pod.pod.clone(), ips.join(" "), yes(pod.known), pod.drops.to_string()]);
    }
    text += &format!("\n{out}");
    let cut_off: Vec<_> = pods.iter().flat_map(|pod| pod.cut_off.iter().map(move |why| (pod, why))).collect();
    if !cut_off.is_empty() {
        let mut out = Table::new(["cut off pod", "why"]);
        cut_off.iter().for_each(|(pod, why)| out.row([pod.pod.clone(), (*why).clone()]));
        text += &format!("\n{out}");
    }
    let limited: Vec<_> = pods.iter().filter(|pod| !pod.bandwidth.is_empty()).collect();
    if !limited.is_empty() {
        let mut out = Table::new(["pod with a limit", "bandwidth"]);
        limited.iter().for_each(|pod| out.row([pod.pod.clone(), pod.bandwidth.join("; ")]));
        text += &format!("\n{out}");
    }
    if verbose {
        text += &insides(maps, programs);
    }
    if !warnings.is_empty() {
        let mut out = Table::new(["warning", "details"]);
        warnings.iter().for_each(|warning| out.row([warning.topic.clone(), warning.text.clone()]));
        text += &format!("\n{out}");
    }
    if !repairs.is_empty() {
        let mut out = Table::new(["last repairs", "kind", "what"]);
        repairs.iter().for_each(|repair| out.row([repair.time.clone(), repair.kind.clone(), repair.what.clone()]));
        text += &format!("\n{out}");
    }
    if !pod_ranges.is_empty() {
        text += &format!(
            "\npod addresses in {} are not checked against the podCIDRs of their node\n",
            pod_ranges.join(", ")
        );
    }
    if !refused.is_empty() {
        text += &troubles(["refused service", "why"], refused);
    }
    if !node_local_dns.is_empty() {
        let addresses: Vec<_> = node_local_dns.iter().map(ToString::to_string).collect();
        text +=
            &format!("\nDNS is also answered at {}, by this node's endpoint if there is one\n", addresses.join(", "));
    }
    if !claims.is_empty() {
        text += &troubles(["object with a refused claim", "why"], claims);
    }
    if !mistakes.is_empty() {
        text += &troubles(["invalid object", "reason"], mistakes);
    }
    text
}

fn insides(maps: &[MapView], programs: &[ProgramView]) -> String {
    let mut out = Table::new(["map", "used", "size"]);
    for map in maps {
        out.row([map.name.clone(), map.used.map(|n| n.to_string()).unwrap_or_default(), map.size.to_string()]);
    }
    let mut text = format!("\n{out}");
    let mut out = Table::new(["program", "verified instructions"]);
    for ProgramView { name, verified_instructions } in programs {
        out.row([name.clone(), verified_instructions.map(|n| n.to_string()).unwrap_or_default()]);
    }
    text += &format!("\n{out}");
    text
}

fn troubles(head: [&str; 2], troubles: &[ObjectTrouble]) -> String {
    let mut out = Table::new(head);
    troubles.iter().for_each(|ObjectTrouble { object, reason }| out.row([object.clone(), reason.clone()]));
    format!("\n{out}")
}

/// Which API server is in use, and whether it is heard. Nothing where objects come from a directory.
fn api_server(network: &NetworkView, watches: &[WatchView]) -> Option<String> {
    let heard = (!watches.is_empty()).then(|| heard(watches));
    let parts: Vec<_> = network.api_server.clone().into_iter().chain(heard).collect();
    (!parts.is_empty()).then(|| parts.join(": "))
}

/// How many nodes are reached in which way, and the names of those that are not reached directly, if they are few.
fn ways(network: &NetworkView) -> String {
    if network.nodes.is_empty() {
        return "none".to_owned();
    }
    let goes = |node: &WayView, way: &str| [&node.ipv4, &node.ipv6].into_iter().flatten().any(|is| is == way);
    let said = [("direct", "direct"), ("tunnel", "through the tunnel"), ("routed", "by the node's routes")];
    let mut parts = Vec::new();
    for (way, text) in said {
        let names: Vec<_> =
            network.nodes.iter().filter(|node| goes(node, way)).map(|node| node.node.as_str()).collect();
        match names.len() {
            0 => {}
            1..=3 => parts.push(format!("{} {text} ({})", names.len(), names.join(", "))),
            count => parts.push(format!("{count} {text}")),
        }
    }
    let without = network.nodes.iter().filter(|node| node.ipv4.is_none() && node.ipv6.is_none()).count();
    if without > 0 {
        parts.push(format!("{without} without a pod range"));
    }
    parts.join(", ")
}

/// Whether the API server is heard, in a line: the watches that are not alive by name, and the one that is silent for longest.
fn heard(watches: &[WatchView]) -> String {
    let silent: Vec<_> = watches.iter().filter(|watch| !watch.alive).collect();
    let longest = watches.iter().map(|watch| watch.silent_seconds).max().unwrap_or_default();
    if silent.is_empty() {
        return format!("all {} watches alive, none silent for longer than {longest} s", watches.len());
    }
    let silent: Vec<_> = silent.iter().map(|watch| format!("{} for {} s", watch.kind, watch.silent_seconds)).collect();
    format!("NOT HEARD: {}; the current state stays in force", silent.join(", "))
}

/// Whether the kernel answers DNS queries of pods, and why not.
fn in_kernel(dns: &DnsView) -> String {
    let DnsView { in_kernel, obstacle, names, answers } = dns;
    match (in_kernel, obstacle) {
        (true, None) => format!("yes: {names} names, {answers} queries answered"),
        (true, Some(obstacle)) => format!("in part: {names} names, {answers} queries answered; {obstacle}"),
        (false, obstacle) => format!("no: {}", obstacle.as_deref().unwrap_or("the DNS server answers all")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_other_nodes_are_counted_and_named_while_they_are_few() {
        let way = |node: &str, ipv4: Option<&str>, ipv6: Option<&str>| WayView {
            node: node.into(),
            ipv4: ipv4.map(Into::into),
            ipv6: ipv6.map(Into::into),
        };
        let network = |nodes| NetworkView {
            api_server: Some("https://192.0.2.9:6443/".into()),
            uplinks: None,
            xdp: Vec::new(),
            xdp_packets: 0,
            addresses: vec![],
            mtu: 1500,
            pod_mtu: 1450,
            ranges: vec![],
            nodes,
        };
        assert_eq!(ways(&network(vec![])), "none");
        let nodes = vec![
            way("b", Some("direct"), Some("direct")),
            way("c", Some("direct"), Some("tunnel")),
            way("d", None, None),
        ];
        let said = "2 direct (b, c), 1 through the tunnel (c), 1 without a pod range";
        assert_eq!(ways(&network(nodes)), said);
        let many = (0..5).map(|n| way(&format!("n{n}"), Some("routed"), None)).collect();
        assert_eq!(ways(&network(many)), "5 by the node's routes");
        let watch = WatchView { kind: "Node".into(), alive: true, silent_seconds: 3 };
        let server = api_server(&network(vec![]), &[watch]).unwrap();
        assert_eq!(server, "https://192.0.2.9:6443/: all 1 watches alive, none silent for longer than 3 s");
    }

    #[test]
    fn s59_watches_that_are_not_alive_are_named() {
        let watch = |kind: &str, alive, silent_seconds| WatchView { kind: kind.to_owned(), alive, silent_seconds };
        let all = [watch("Node", true, 3), watch("Pod", true, 50)];
        assert_eq!(heard(&all), "all 2 watches alive, none silent for longer than 50 s");
        let one = [watch("Node", true, 3), watch("Pod", false, 75)];
        assert_eq!(heard(&one), "NOT HEARD: Pod for 75 s; the current state stays in force");
    }
}
