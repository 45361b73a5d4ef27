//! Tables for a person.

use std::fmt::{self, Write};

use crate::admin::{
    EndpointView, PolicyExplanation, PolicyVerdict, ServiceExplanation, ServiceView, StatusView, Verdict,
};
use crate::doctor::{Finding, Severity, Without};
use crate::state::{DropView, DropsView};

/// A table whose columns are as wide as their widest cell.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_uppercase)] }
    }

    pub(super) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What the doctor says: for each finding what is so, why it matters and what to do, since these are long.
pub(super) fn report(findings: &[Finding], without: &[Without], unseen: &[(String, String)]) -> String {
    let mut text = String::new();
    for Finding { severity, what, why, remedy } in findings {
        let word = match severity {
            Severity::Blocks => "ERROR",
            Severity::Hinders => "WARNING",
        };
        text += &format!("{word}  {what}\n    why:    {why}\n    remedy: {remedy}\n");
    }
    if findings.is_empty() {
        text += "no problems found\n";
    }
    if !without.is_empty() {
        let mut out = Table::new(["the node does without", "what holds"]);
        without.iter().for_each(|lack| out.row([lack.what.clone(), lack.holds.to_owned()]));
        text += &format!("\n{out}");
    }
    if !unseen.is_empty() {
        let mut out = Table::new(["not checked", "reason"]);
        unseen.iter().for_each(|(what, why)| out.row([what.clone(), why.clone()]));
        text += &format!("\n{out}");
    }
    text
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

pub(super) fn status(status: &StatusView) -> String {
    let StatusView {
        node,
        version,
        health,
        reason,
        uptime_seconds,
        adopted,
        objects,
        watches,
        plans: (plans, operations, micros),
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
        mistakes,
        drops,
    } = status;
    let mut out = Table::new(["field", "value"]);
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let objects: Vec<_> = objects.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    out.row(["node".into(), node.clone()]);
    out.row([
        "agent".into(),
        format!("{version}, up {uptime_seconds} s{}", if *adopted { ", adopted existing maps" } else { "" }),
    ]);
    out.row(["health".into(), format!("{health}{reason}")]);
    out.row(["objects".into(), objects.join(", ")]);
    if !watches.is_empty() {
        out.row(["API server".into(), heard(watches)]);
    }
    if !masquerade.is_empty() {
        out.row(["masquerade".into(), masquerade.clone()]);
    }
    out.row(["plans".into(), format!("{plans} applied with {operations} operations, the last in {micros} µs")]);
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
    let mut out = Table::new(["map", "used", "size"]);
    for map in maps {
        out.row([map.name.clone(), map.used.map(|n| n.to_string()).unwrap_or_default(), map.size.to_string()]);
    }
    text += &format!("\n{out}");
    let mut out = Table::new(["program", "verified instructions"]);
    for (name, count) in programs {
        out.row([name.clone(), count.map(|n| n.to_string()).unwrap_or_default()]);
    }
    text += &format!("\n{out}");
    if !warnings.is_empty() {
        let mut out = Table::new(["warning", "details"]);
        warnings.iter().for_each(|(topic, text)| out.row([topic.clone(), text.clone()]));
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
        let mut out = Table::new(["refused service", "why"]);
        refused.iter().for_each(|(service, why)| out.row([service.clone(), why.clone()]));
        text += &format!("\n{out}");
    }
    if !node_local_dns.is_empty() {
        let addresses: Vec<_> = node_local_dns.iter().map(ToString::to_string).collect();
        text +=
            &format!("\nDNS is also answered at {}, by this node's endpoint if there is one\n", addresses.join(", "));
    }
    if !claims.is_empty() {
        let mut out = Table::new(["object with a refused claim", "why"]);
        claims.iter().for_each(|(object, why)| out.row([object.clone(), why.clone()]));
        text += &format!("\n{out}");
    }
    if !mistakes.is_empty() {
        let mut out = Table::new(["invalid object", "reason"]);
        mistakes.iter().for_each(|(origin, reason)| out.row([origin.clone(), reason.clone()]));
        text += &format!("\n{out}");
    }
    text
}

pub(super) fn services(services: &[ServiceView]) -> String {
    let mut out = Table::new(["service", "type", "port", "protocol", "addresses", "endpoints"]);
    for s in services {
        let addresses: Vec<_> = s.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(" ");
        let endpoints = s.endpoints.to_string();
        out.row([s.service.clone(), s.kind.clone(), s.port_name.clone(), s.protocol.clone(), addresses, endpoints]);
    }
    out.to_string()
}

pub(super) fn explained(explained: &[ServiceExplanation]) -> String {
    let mut text = String::new();
    for e in explained {
        let port = if e.port_name.is_empty() { String::new() } else { format!(" port {}", e.port_name) };
        let force = if e.in_force { "" } else { " (not in the kernel yet)" };
        text += &format!(
            "{}/{} is service {}{port}, a {}.\nA new connection from inside {}{force} (policy {}).\n",
            e.address,
            e.protocol,
            e.service,
            e.kind,
            becomes(e.verdict),
            e.policy
        );
        let source = match (e.outside_verdict, e.keeps_source) {
            (Verdict::Forward, true) => " with the client's address",
            (Verdict::Forward, false) => " with the node's address as source",
            _ => "",
        };
        text += &format!(
            "A new connection from outside {}{source} (policy {}).\n",
            becomes(e.outside_verdict),
            e.outside_policy
        );
        for other in &e.others {
            text += &format!("{other}.\n");
        }
        if !e.source_ranges.is_empty() {
            text += &format!("Only clients in {} are admitted.\n", e.source_ranges.join(", "));
        }
        let mut out = Table::new(["endpoint", "from inside", "from outside", "this node", "why"]);
        for endpoint in &e.endpoints {
            let EndpointView { address, chosen, chosen_outside, local, why } = endpoint;
            out.row([address.to_string(), yes(*chosen), yes(*chosen_outside), yes(*local), why.clone()]);
        }
        text += &format!("\n{out}\n");
    }
    text
}

fn becomes(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward => "goes to one of the chosen endpoints",
        Verdict::Reject => "is refused: the service has no endpoints",
        Verdict::Drop => "is dropped: the service has endpoints, but none that may be used from here",
    }
}

/// Whether the API server is heard, in a line: the watches that are not alive by name, and the one that is silent for longest.
fn heard(watches: &[(String, bool, u64)]) -> String {
    let silent: Vec<_> = watches.iter().filter(|(_, alive, _)| !alive).collect();
    let longest = watches.iter().map(|(_, _, age)| *age).max().unwrap_or_default();
    if silent.is_empty() {
        return format!("all {} watches alive, each heard in the last {longest} s", watches.len());
    }
    let silent: Vec<_> = silent.iter().map(|(kind, _, age)| format!("{kind} for {age} s")).collect();
    format!("NOT HEARD: {}; what is in force stays", silent.join(", "))
}

pub(super) fn policy(explanation: &PolicyExplanation) -> String {
    let PolicyExplanation { verdict, allow: _, reasons, lines, near_misses, in_force: _ } = explanation;
    let indented = |lines: &[String]| lines.iter().map(|line| format!("  {line}\n")).collect::<String>();
    let word = match verdict {
        PolicyVerdict::Allowed => "allowed",
        PolicyVerdict::Dropped => "dropped",
        PolicyVerdict::Refused => "refused",
        PolicyVerdict::Partly => "allowed in part",
    };
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let mut text = format!("{word}{reasons}\n{}", indented(lines));
    if !near_misses.is_empty() {
        text += &format!("rules that almost match:\n{}", indented(near_misses));
    }
    text
}

pub(super) fn drops(drops: &DropsView) -> String {
    let mut out = Table::new(["reason", "packets", "meaning"]);
    for count in &drops.counts {
        out.row([count.reason.clone(), count.packets.to_string(), count.meaning.clone()]);
    }
    let mut text = out.to_string();
    if !drops.pods.is_empty() {
        let mut out = Table::new(["pod", "reason", "packets since it came"]);
        for pod in &drops.pods {
            pod.counts.iter().for_each(|(reason, n)| out.row([pod.pod.clone(), reason.clone(), n.to_string()]));
        }
        text += &format!("\n{out}");
    }
    if !drops.recent.is_empty() {
        text += "\nmost recent (sampled under load):\n";
        drops.recent.iter().for_each(|drop| text += &drop_line(drop));
    }
    text
}

pub(super) fn drop_line(d: &DropView) -> String {
    let protocol = match d.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("protocol {other}"),
    };
    let at = d.pod.as_ref().map_or_else(|| format!("interface {}", d.ifindex), |pod| format!("pod {pod}"));
    let (seconds, millis) = (d.time / 1_000_000_000, d.time / 1_000_000 % 1000);
    format!("{seconds}.{millis:03} {} {protocol} {} -> {} at {at}\n", d.reason, d.source, d.destination)
}

#[cfg(test)]
mod tests {
    use super::{Table, heard};

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(["a", "long head"]);
        table.row(["wide cell".into(), "x".into()]);
        assert_eq!(table.to_string(), "A          LONG HEAD\nwide cell  x\n");
    }

    #[test]
    fn s59_watches_that_are_not_alive_are_named() {
        let watch = |kind: &str, alive, age| (kind.to_owned(), alive, age);
        let all = [watch("Node", true, 3), watch("Pod", true, 50)];
        assert_eq!(heard(&all), "all 2 watches alive, each heard in the last 50 s");
        let one = [watch("Node", true, 3), watch("Pod", false, 75)];
        assert_eq!(heard(&one), "NOT HEARD: Pod for 75 s; what is in force stays");
    }
}
