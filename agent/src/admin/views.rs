//! What is said on the socket: the same structures are JSON for programs and tables for a person.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How is the agent? Answered with [`StatusView`].
    Status,
    /// Which services are there? Answered with a list of [`ServiceView`].
    ServiceList,
    /// What happens to connections to an address? Answered with a list of [`ServiceExplanation`], one a protocol.
    ServiceExplain {
        /// The address and port that clients use.
        address: SocketAddr,
    },
    /// May a flow pass, and why? Answered with [`PolicyExplanation`].
    PolicyExplain {
        /// `namespace/pod`, `node/name` or an address.
        from: String,
        /// `namespace/pod`, `namespace/service`, `node/name` or an address.
        to: String,
        /// The destination's port.
        port: PortRef,
        /// The IP protocol number.
        protocol: u8,
    },
    /// What was dropped? Answered with [`crate::state::DropsView`].
    Drops {
        /// Whether to go on with a list of one [`crate::state::DropView`] for each drop that is seen from now on.
        follow: bool,
    },
    /// What is logged? Answered with a filter.
    LogLevel {
        /// What is to be logged from now on.
        filter: Option<String>,
    },
}

/// A port by number, or by the name that the destination gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PortRef {
    /// A number; 0 for a protocol without.
    Number(u16),
    /// A name.
    Name(String),
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyVerdict {
    /// It may pass.
    Allowed,
    /// It is dropped.
    Dropped,
    /// The sender is told that nobody answers there.
    Refused,
    /// It depends on the endpoint, or on the family.
    Partly,
}

/// Why a flow may pass, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyExplanation {
    /// What becomes of it.
    pub verdict: PolicyVerdict,
    /// Whether it passes, whichever endpoint and family it takes.
    pub allow: bool,
    /// Why it is dropped, in the words of `fairlead drops`.
    pub reasons: Vec<String>,
    /// How it comes about, in order.
    pub lines: Vec<String>,
    /// Rules that would have allowed it but for their peers or but for their ports.
    pub near_misses: Vec<String>,
    /// Whether the tables of this node say the same; nothing where it judges neither end.
    pub in_force: Option<bool>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for.
    Ok(Value),
    /// Why there is no answer, and what to do.
    Error(String),
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// `ready`, `starting` or `impaired`.
    pub health: String,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Whether it adopted maps of an agent before it.
    pub adopted: bool,
    /// Objects known, by kind.
    pub objects: Vec<(String, usize)>,
    /// Watches of the API server: kind, whether it is alive, seconds since it was heard. None with a directory.
    #[serde(default)]
    pub watches: Vec<(String, bool, u64)>,
    /// Plans executed, operations in them, microseconds of the last.
    pub plans: (u64, u64, u64),
    /// The pods of this node.
    pub pods: Vec<PodView>,
    /// The maps and their fill.
    pub maps: Vec<MapView>,
    /// The programs, with the instructions that the verifier walked through.
    pub programs: Vec<(String, Option<u32>)>,
    /// What is wrong at present beside single objects: the topic, and what to do.
    pub warnings: Vec<(String, String)>,
    /// What others undid and the agent put right, the latest first.
    #[serde(default)]
    pub repairs: Vec<RepairView>,
    /// Services that do not fit into the tables, and why.
    #[serde(default)]
    pub refused: Vec<(String, String)>,
    /// What objects claim in vain: which, why and what to do.
    pub claims: Vec<(String, String)>,
    /// Prefixes of which pods' addresses count whatever their node's ranges.
    pub pod_ranges: Vec<String>,
    /// Whose address has what pods send out of the cluster, and from which ports.
    #[serde(default)]
    pub masquerade: String,
    /// Addresses of node-local DNS that are served.
    #[serde(default)]
    pub node_local_dns: Vec<IpAddr>,
    /// Objects that can't be read: where, and what to do.
    pub mistakes: Vec<(String, String)>,
    /// Packets dropped since the node's start.
    pub drops: u64,
}

/// Something that was put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// When, as in RFC 3339.
    pub time: String,
    /// What it was about, as in the metric.
    pub kind: String,
    /// What was put right.
    pub what: String,
}

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodView {
    /// Its slot.
    pub slot: u16,
    /// `namespace/name`.
    pub pod: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether its Pod object is known: without, nothing may pass.
    pub known: bool,
    /// What of it is cut off, and why.
    pub cut_off: Vec<String>,
    /// What it may send and receive, and how that is kept.
    #[serde(default)]
    pub bandwidth: Vec<String>,
    /// Packets of it and for it that were dropped since it came.
    #[serde(default)]
    pub drops: u64,
}

/// A map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapView {
    /// Its name.
    pub name: String,
    /// Elements in use; nothing for arrays, which are always full.
    pub used: Option<u32>,
    /// Elements that it can hold.
    pub size: u32,
}

/// One address and port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// `namespace/name`.
    pub service: String,
    /// `spec.type`, or `hostPort` for the ports of a pod.
    pub kind: String,
    /// The port's name; empty when it has none.
    pub port_name: String,
    /// Its addresses with their ports; of a NodePort or hostPort at every address of the node the unspecified one.
    pub addresses: Vec<SocketAddr>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Endpoints that new connections from this node may choose.
    pub endpoints: usize,
}

/// What becomes of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes to one of the chosen endpoints.
    Forward,
    /// It is refused.
    Reject,
    /// It is dropped in silence.
    Drop,
}

/// What happens to connections to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceExplanation {
    /// `namespace/name`.
    pub service: String,
    /// The port's name; empty when it has none.
    pub port_name: String,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// What kind of address it is: of the cluster, of a load balancer, …
    pub kind: String,
    /// The traffic policy that clients in the cluster meet.
    pub policy: String,
    /// What becomes of a new connection of theirs.
    pub verdict: Verdict,
    /// The traffic policy that clients outside meet.
    pub outside_policy: String,
    /// What becomes of a new connection of theirs.
    pub outside_verdict: Verdict,
    /// Whether a pod of this node sees the addresses of clients outside, and not the node's.
    pub keeps_source: bool,
    /// The clients that may use it; with none, everybody.
    pub source_ranges: Vec<String>,
    /// Whether the kernel's table has the address.
    pub in_force: bool,
    /// Who else claims it, in vain, and why.
    pub others: Vec<String>,
    /// Every endpoint, chosen or not.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether new connections from inside may choose it.
    pub chosen: bool,
    /// Whether new connections from outside may.
    pub chosen_outside: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// Why it is in or out.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What must hold for whatever somebody writes to the socket: it is no question, or one that is read again as what it was read
    /// as.
    fn check(line: &[u8]) {
        let Ok(request) = serde_json::from_slice::<Request>(line) else { return };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
    }

    /// Lines that are worth keeping, below the package.
    fn kept() -> Vec<Vec<u8>> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
        let files = std::fs::read_dir(Path::new(&package).join("corpus/question")).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn kept_questions_are_as_they_should_be() {
        let kept = kept();
        assert!(kept.iter().filter(|line| serde_json::from_slice::<Request>(line).is_ok()).count() >= 6);
        kept.iter().for_each(|line| check(line));
    }

    proptest! {
        #[test]
        fn no_line_is_more_than_a_question_or_none(
            bytes in vec(any::<u8>(), 0..200),
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            cut in 0_usize..20,
        ) {
            check(&bytes);
            // Half a question, one with bytes in between, one in which some are missing.
            let kept = kept();
            let line = &kept[which.index(kept.len())];
            let (head, tail) = line.split_at(at.index(line.len()));
            check(head);
            check(&[head, &bytes[..cut.min(bytes.len())], tail].concat());
            check(&[head, tail.get(cut..).unwrap_or_default()].concat());
        }
    }
}
