//! The cluster's objects, as `kubectl get -o yaml` prints them.

use fairlead_objects::{Invalid, Node, Object, POD_CIDRS, read_str};
use ipnetwork::IpNetwork;

use crate::doctor::findings::{Finding, blocks, hinders};

/// Names of a list that are shown.
const SHOWN: usize = 8;

/// What is asked of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Objects, or pieces of them, that can't be read, and why.
    pub unreadable: Vec<String>,
}

impl ClusterFacts {
    /// Reads what `kubectl get nodes,services,networkpolicies --all-namespaces -o yaml` prints.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut facts = Self::default();
        for entry in read_str(text) {
            match entry {
                Ok(Object::Node(node)) => facts.nodes.push(node),
                Ok(_) => {}
                Err(Invalid { document: _, kind, key, reason, piece: _ }) => {
                    let kind = kind.map(|kind| format!("{} ", kind.as_str())).unwrap_or_default();
                    let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
                    facts.unreadable.push(format!("{kind}{key}{reason}"));
                }
            }
        }
        facts
    }
}

pub(super) fn findings(cluster: &ClusterFacts) -> Vec<Finding> {
    let ClusterFacts { nodes, unreadable } = cluster;
    let mut found = Vec::new();
    if nodes.is_empty() {
        found.push(blocks(
            "the file names no Node",
            "could not check whether nodes have pod ranges",
            "create it again: kubectl get nodes,services,networkpolicies --all-namespaces -o yaml >cluster.yaml",
        ));
    }
    let bare: Vec<&str> = nodes.iter().filter(|node| ranges(node).is_empty()).map(|node| node.name.as_str()).collect();
    if !bare.is_empty() {
        found.push(blocks(
            format!("nodes without a pod range (spec.podCIDRs): {}", shown(&bare)),
            "Fairlead assigns pod addresses from the node's range",
            format!(
                "have kube-controller-manager allocate ranges (--allocate-node-cidrs --cluster-cidr); or set \
                 `annotatedRanges` and annotate every node: kubectl annotate node NODE {POD_CIDRS}=RANGE"
            ),
        ));
    }
    if nodes.iter().any(|node| node.annotated.is_some() && node.pod_cidrs.is_empty()) {
        found.push(hinders(
            format!("pod ranges come from the annotation {POD_CIDRS}"),
            "they count only within the setting `annotatedRanges`, and only if they contain no address of a Service \
             or of their node",
            "set `annotatedRanges` before the first agent starts, to the same value on every node",
        ));
    }
    let overlaps: Vec<String> = overlaps(nodes);
    if !overlaps.is_empty() {
        let overlaps: Vec<&str> = overlaps.iter().map(String::as_str).collect();
        found.push(blocks(
            format!("pod ranges overlap: {}", shown(&overlaps)),
            "two pods would get the same address",
            "give each node a range of its own; spec.podCIDRs can't be changed: recreate the Node",
        ));
    }
    if !unreadable.is_empty() {
        let reasons: Vec<&str> = unreadable.iter().map(String::as_str).collect();
        found.push(hinders(
            format!("objects that Fairlead can't read: {}", shown(&reasons)),
            "objects that can't be read are ignored, and policy rules that can't be read deny",
            "correct them before the migration",
        ));
    }
    found
}

fn ranges(node: &Node) -> &[IpNetwork] {
    node.annotated.as_ref().map_or(&node.pod_cidrs, |annotated| &annotated.ranges)
}

/// In the order of addresses a range that overlaps another overlaps the last one that began before it, or one around that.
fn overlaps(nodes: &[Node]) -> Vec<String> {
    let mut all: Vec<(IpNetwork, &str)> =
        nodes.iter().flat_map(|node| ranges(node).iter().map(|range| (*range, node.name.as_str()))).collect();
    all.sort_by_key(|(range, node)| (range.network(), range.prefix(), *node));
    let mut widest: Option<(IpNetwork, &str)> = None;
    let mut found = Vec::new();
    for (range, node) in all {
        match widest {
            Some((outer, owner)) if outer.contains(range.network()) => {
                if owner != node {
                    found.push(format!("{outer} of {owner} and {range} of {node}"));
                }
            }
            _ => widest = Some((range, node)),
        }
    }
    found
}

fn shown(names: &[&str]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let listed = names.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
