//! Tables for a person.

mod audit;
mod policies;
mod status;
mod what_if;

use std::fmt::{self, Write};

use super::version::{FeatureView, KernelView, Versions};
use crate::admin::{EndpointView, PolicyExplanation, PolicyVerdict, ServiceExplanation, ServiceView, Verdict};
use crate::doctor::{Finding, Severity, Without};
use crate::state::{DropView, DropsView};

pub(super) use audit::audit;
pub(super) use policies::{is_stale, policies};
pub(super) use status::status;
pub(super) use what_if::what_if;

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
        let mut out = Table::new(["the node lacks", "what holds"]);
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

pub(super) fn services(services: &[ServiceView], wide: bool) -> String {
    let addresses = |s: &ServiceView| {
        let addresses: Vec<_> = s.addresses.iter().map(ToString::to_string).collect();
        if s.headless { "none (headless)".to_owned() } else { addresses.join(" ") }
    };
    if !wide {
        let mut out = Table::new(["service", "type", "port", "protocol", "addresses", "endpoints"]);
        for s in services {
            let endpoints = s.endpoints.to_string();
            let row =
                [s.service.clone(), s.kind.clone(), s.port_name.clone(), s.protocol.clone(), addresses(s), endpoints];
            out.row(row);
        }
        return out.to_string();
    }
    let mut out = Table::new([
        "service",
        "type",
        "port",
        "number",
        "protocol",
        "addresses",
        "endpoints",
        "ipv4",
        "ipv6",
        "internal",
        "external",
    ]);
    for s in services {
        out.row([
            s.service.clone(),
            s.kind.clone(),
            s.port_name.clone(),
            s.port.to_string(),
            s.protocol.clone(),
            addresses(s),
            s.endpoints.to_string(),
            s.endpoints_ipv4.to_string(),
            s.endpoints_ipv6.to_string(),
            s.internal_policy.clone(),
            s.external_policy.clone(),
        ]);
    }
    out.to_string()
}

pub(super) fn versions(versions: &Versions) -> String {
    let Versions { version, commit, api, agent, agent_unknown, kernel } = versions;
    let KernelView { release, features } = kernel;
    let mut out = Table::new(["what", "version"]);
    let commit = commit.as_ref().map(|commit| format!(", commit {commit}")).unwrap_or_default();
    out.row(["this command".into(), format!("{version}{commit}, admin socket {api}")]);
    let agent = match (agent, agent_unknown) {
        (Some(agent), _) => format!("{}, admin socket {}", agent.version, agent.api),
        (None, why) => why.clone().unwrap_or_default(),
    };
    out.row(["running agent".into(), agent]);
    out.row(["kernel".into(), release.clone()]);
    let mut text = out.to_string();
    let mut out = Table::new(["of the kernel", "there"]);
    for FeatureView { name, present } in features {
        out.row([(*name).to_owned(), present.map_or_else(|| "unknown: run as root".to_owned(), yes)]);
    }
    text += &format!("\n{out}");
    text
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
        Verdict::Drop => "is dropped: the service has endpoints, but none that this client may use",
    }
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
        let mut out = Table::new(["pod", "reason", "packets since it started"]);
        for pod in &drops.pods {
            pod.counts.iter().for_each(|n| out.row([pod.pod.clone(), n.reason.clone(), n.packets.to_string()]));
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
    use super::Table;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(["a", "long head"]);
        table.row(["wide cell".into(), "x".into()]);
        assert_eq!(table.to_string(), "A          LONG HEAD\nwide cell  x\n");
    }
}
