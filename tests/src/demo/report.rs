//! What the demo has found, as tables for a person.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::attach::Adds;
use super::policy::Matrix;
use super::restart::Restart;
use super::services::ServiceRow;
use super::srv::SrvRow;
use super::stage::Kept;
use super::table::Table;

/// Everything that the demo has found. Times are in seconds where programs read them.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The nodes.
    pub nodes: Vec<String>,
    /// How many pods run on them.
    pub pods: usize,
    /// How long after its pods the cluster was in force as a whole.
    #[serde(serialize_with = "seconds")]
    pub in_force: Duration,
    /// The Services.
    pub services: Vec<ServiceRow>,
    /// The policies.
    pub policy: Matrix,
    /// The headless Services.
    pub srv: Vec<SrvRow>,
    /// The times of CNI ADD.
    pub add: Adds,
    /// The restarts.
    pub restart: Restart,
    /// How long the demo took.
    #[serde(serialize_with = "seconds")]
    pub took: Duration,
    /// How to enter the lab, if it was left running.
    pub kept: Option<Kept>,
    /// What is not as it should be, in words.
    pub problems: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.services(f)?;
        self.policy(f)?;
        self.srv(f)?;
        self.adds(f)?;
        self.restart(f)?;
        if let Some(kept) = &self.kept {
            write!(f, "\n{kept}")?;
        }
        self.verdict(f)
    }
}

impl Report {
    fn services(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes.len();
        let (services, pods, in_force) = (self.services.len(), self.pods, short(self.in_force));
        writeln!(
            f,
            "\nServices: {services} in a cluster of {pods} pods on {nodes} nodes, in force {in_force} after the last pod"
        )?;
        let names =
            ["service", "addresses", "ports", ">pods", "reached by name from", ">service", ">per packet", ">direct"];
        let mut table = Table::new(&names);
        let mut before = "";
        for row in &self.services {
            let (namespace, name) = row.service.split_once('/').unwrap_or_default();
            if namespace != before {
                table.row([namespace.to_owned()]);
                before = namespace;
            }
            let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
            table.row([
                format!("  {name}"),
                if addresses.is_empty() { "headless".to_owned() } else { addresses.join(" ") },
                row.ports.join(" "),
                row.endpoints.to_string(),
                row.reached(),
                short(row.speed.service),
                short(row.speed.per_packet),
                short(row.speed.direct),
            ]);
        }
        write!(f, "{table}")?;
        writeln!(f, "  Tried from every pod that the policies let through, at each address and port of the name.")?;
        writeln!(
            f,
            "  Times: half of the connections, or UDP requests, took no longer. To the Service, translated by the"
        )?;
        writeln!(f, "  hook at the socket; to the Service, each packet translated; directly to the pods behind it.")
    }

    fn policy(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Matrix { policies, servers, rows, attempts } = &self.policy;
        writeln!(f, "\nNetworkPolicies: {policies} of the manifests, in {attempts} attempts")?;
        let width = rows.iter().map(|row| row.pod.chars().count()).chain([20]).max().unwrap_or_default();
        let number =
            |digit: fn(usize) -> char| (1..=servers.len()).map(digit).map(|c| format!("{c} ")).collect::<String>();
        let ten = |n: usize| if n < 10 { ' ' } else { char::from_digit((n / 10 % 10) as u32, 10).unwrap_or(' ') };
        let one = |n: usize| char::from_digit((n % 10) as u32, 10).unwrap_or(' ');
        writeln!(f, "  {:<width$}  {}", "", number(ten).trim_end())?;
        writeln!(f, "  {:<width$}  {}", "from \\ to", number(one).trim_end())?;
        for row in rows {
            let cells: String = row.cells.iter().map(|cell| format!("{} ", cell.symbol())).collect();
            writeln!(f, "  {:<width$}  {}", row.pod, cells.trim_end())?;
        }
        writeln!(
            f,
            "  ● reached   · kept out   ◐ some ports   both as the policies say; a pod and itself is left empty"
        )?;
        writeln!(f, "  ✗ should be reached and was not   ! got through and should not")?;
        let named: Vec<String> = (1..).zip(servers).map(|(number, name)| format!("{number:>2} {name}")).collect();
        let width = named.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        for line in named.chunks(3) {
            let line: Vec<String> = line.iter().map(|name| format!("{name:<width$}")).collect();
            writeln!(f, "  {}", line.join("  ").trim_end())?;
        }
        Ok(())
    }

    fn srv(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nSRV records of headless Services")?;
        let mut table = Table::new(&["name", ">priority", ">weight", ">port", "target", "its addresses"]);
        for row in &self.srv {
            let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
            table.row([
                row.name.clone(),
                row.priority.to_string(),
                row.weight.to_string(),
                row.port.to_string(),
                row.target.clone(),
                addresses.join(" "),
            ]);
        }
        write!(f, "{table}")
    }

    fn adds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Adds { together, alone } = &self.add;
        writeln!(f, "\nCNI ADD, from the start of the plugin to its end")?;
        let mut table = Table::new(&["pods", ">count", ">p50", ">p99"]);
        for (what, times) in [("one after the other", alone), ("the manifests', all nodes at once", together)] {
            table.row([what.to_owned(), times.count.to_string(), short(times.p50), short(times.p99)]);
        }
        write!(f, "{table}")
    }

    fn restart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restart { during, agents, kinds } = &self.restart;
        writeln!(f, "\nThe agent of each node killed with -9 and restarted, in {during:?} of load")?;
        let mut table = Table::new(&["load", ">tried", ">failed", ">p50", ">p99"]);
        for kind in kinds {
            let failed: u64 = kind.failed.values().sum();
            let failed = if failed == 0 { "0".to_owned() } else { format!("{failed} ✗") };
            table.row([kind.name.clone(), kind.attempted.to_string(), failed, short(kind.p50), short(kind.p99)]);
        }
        write!(f, "{table}")?;
        let ready: Vec<String> =
            agents.iter().map(|agent| format!("{} {}", agent.node, short(agent.ready_after))).collect();
        writeln!(f, "  Everything in force again, after the start of an agent: {}", ready.join(", "))
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.problems.is_empty() {
            return writeln!(f, "\nEverything is as it should be, after {:.0?}.", self.took);
        }
        writeln!(f, "\nNot as it should be, after {:.0?}:", self.took)?;
        for problem in &self.problems {
            writeln!(f, "  ✗ {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lab, program, fairlead, service, pod, node, to } = self;
        writeln!(f, "The cluster goes on. Ask the agent of a node, as root:")?;
        for (command, what) in [
            ("status".to_owned(), "how the agent is"),
            ("service list".to_owned(), "the Services as they are in force"),
            (format!("service explain {service}"), "where connections to an address go, and why"),
            (format!("policy explain --from {pod} --to {to}"), "whether a pod may reach another, and by which rule"),
            ("drops".to_owned(), "what was dropped, and why"),
        ] {
            writeln!(f, "  {program} enter {lab} {node} -- {fairlead} {command}\n      {what}")?;
        }
        writeln!(
            f,
            "  {program} enter {lab} {node} --pod {pod}\n      a shell in the network of a pod; the same without --pod: on its node"
        )?;
        writeln!(f, "  {program} stop {lab}\n      ends it and removes everything")
    }
}

impl ServiceRow {
    fn reached(&self) -> String {
        let Self { reached_from, allowed, on_nodes, .. } = self;
        let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        if *allowed == 0 {
            return "none: policies".to_owned();
        }
        let nodes = many(*on_nodes, "node");
        if reached_from == allowed {
            format!("{}, {nodes}", many(*reached_from, "pod"))
        } else {
            format!("{reached_from} of {}, {nodes} ✗", many(*allowed, "pod"))
        }
    }
}

/// A time for programs: in seconds.
pub(super) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// A time as short as it can be read; nothing is no time.
fn short(time: Duration) -> String {
    if time.is_zero() { "–".to_owned() } else { format!("{time:.1?}") }
}
