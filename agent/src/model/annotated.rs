//! Ranges for pods that Nodes name in an annotation, where the control plane gives out none: which count.
//!
//! A kubelet may write every annotation of its own Node, and the API server checks none of them. So they count inside of
//! prefixes that the administrator names, and a range never takes what belongs to somebody else: not of `spec.podCIDRs`, not
//! of an older Node, not the address of a Service. Every node comes to the same, from the objects as they are now.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use fairlead_objects::{Node, ObjectKey, POD_CIDRS};
use ipnetwork::IpNetwork;

/// Why ranges do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotGiven {
    /// The setting names no prefix that holds this one.
    Outside(IpNetwork),
    /// It overlaps a range of another node.
    Overlaps {
        /// The range.
        range: IpNetwork,
        /// The other node's.
        other: IpNetwork,
        /// That node.
        node: String,
    },
    /// It holds the cluster address of a Service.
    Service {
        /// The range.
        range: IpNetwork,
        /// The address.
        ip: IpAddr,
        /// The Service.
        service: ObjectKey,
    },
    /// It holds the node's own address.
    Own {
        /// The range.
        range: IpNetwork,
        /// The address.
        ip: IpAddr,
    },
}

impl NotGiven {
    /// The other node, where there is one.
    #[must_use]
    pub fn winner(&self) -> Option<&str> {
        match self {
            Self::Overlaps { node, .. } => Some(node),
            _ => None,
        }
    }
}

impl fmt::Display for NotGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the annotation {POD_CIDRS} does not count: ")?;
        match self {
            Self::Outside(range) => write!(
                f,
                "{range} is in no prefix of the setting `annotatedRanges`; add one that holds the ranges of all nodes, or \
                 correct the annotation"
            ),
            Self::Overlaps { range, other, node } => write!(
                f,
                "{range} overlaps {other} of node {node}; give this Node a range that no other has: kubectl annotate node \
                 --overwrite NODE {POD_CIDRS}=RANGE"
            ),
            Self::Service { range, ip, service } => write!(
                f,
                "{range} holds {ip}, the address of Service {service}; give this Node a range outside of the Services' \
                 (kube-apiserver's --service-cluster-ip-range): kubectl annotate node --overwrite NODE {POD_CIDRS}=RANGE"
            ),
            Self::Own { range, ip } => write!(
                f,
                "{range} holds {ip}, the node's own address; give this Node a range that no host has addresses of: kubectl \
                 annotate node --overwrite NODE {POD_CIDRS}=RANGE"
            ),
        }
    }
}

/// Which annotations count and which do not, by the name of the node. The older Node has a range that two name, of two of one
/// age the first by name; `spec.podCIDRs` of any comes before both.
#[must_use]
pub(super) fn given(
    nodes: &[&Node],
    services: &BTreeMap<IpAddr, ObjectKey>,
    permitted: &[IpNetwork],
) -> BTreeMap<String, Result<Vec<IpNetwork>, NotGiven>> {
    let mut taken = Taken::default();
    let mut asking = Vec::new();
    for node in nodes {
        match &node.annotated {
            Some(annotated) => asking.push((annotated.created, node.name.as_str(), *node, annotated)),
            None => node.pod_cidrs.iter().for_each(|range| taken.add(*range, &node.name)),
        }
    }
    asking.sort_by_key(|(created, name, ..)| (*created, *name));
    let mut answers = BTreeMap::new();
    for (_, name, node, annotated) in asking {
        let refused = annotated.ranges.iter().find_map(|range| refusal(*range, node, &taken, services, permitted));
        if refused.is_none() {
            annotated.ranges.iter().for_each(|range| taken.add(*range, name));
        }
        answers.insert(name.to_owned(), refused.map_or_else(|| Ok(annotated.ranges.clone()), Err));
    }
    answers
}

fn refusal(
    range: IpNetwork,
    node: &Node,
    taken: &Taken<'_>,
    services: &BTreeMap<IpAddr, ObjectKey>,
    permitted: &[IpNetwork],
) -> Option<NotGiven> {
    let inside = |outer: &IpNetwork| outer.prefix() <= range.prefix() && outer.contains(range.network());
    if !permitted.iter().any(inside) {
        return Some(NotGiven::Outside(range));
    }
    if let Some((other, node)) = taken.overlap(range) {
        return Some(NotGiven::Overlaps { range, other, node: node.to_owned() });
    }
    if let Some((ip, service)) = services.range(range.network()..=range.broadcast()).next() {
        return Some(NotGiven::Service { range, ip: *ip, service: service.clone() });
    }
    let own = node.internal_ips.iter().map(IpAddr::to_canonical).find(|ip| range.contains(*ip));
    own.map(|ip| NotGiven::Own { range, ip })
}

/// Ranges that nodes have.
#[derive(Debug, Default)]
struct Taken<'a>(BTreeMap<IpNetwork, &'a str>);

impl<'a> Taken<'a> {
    fn add(&mut self, range: IpNetwork, node: &'a str) {
        self.0.entry(range).or_insert(node);
    }

    /// One that overlaps this: one that begins inside of it, or one of the few that could hold it.
    fn overlap(&self, range: IpNetwork) -> Option<(IpNetwork, &'a str)> {
        let longest = if range.is_ipv4() { 32 } else { 128 };
        let (first, last) =
            (IpNetwork::new(range.network(), 0).ok()?, IpNetwork::new(range.broadcast(), longest).ok()?);
        let around = (0..range.prefix()).filter_map(|length| {
            let outer = IpNetwork::new(IpNetwork::new(range.ip(), length).ok()?.network(), length).ok()?;
            self.0.get_key_value(&outer)
        });
        around.chain(self.0.range(first..=last)).next().map(|(other, node)| (*other, *node))
    }
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Annotated, Labels};
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, age: i64, spec: &[&str], annotated: &[&str]) -> Node {
        let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNetwork>>();
        let created = Some(jiff::Timestamp::from_second(age).unwrap());
        Node {
            name: name.into(),
            labels: Labels::new(),
            zone: None,
            internal_ips: vec!["172.18.0.1".parse().unwrap()],
            external_ips: vec![],
            pod_cidrs: ranges(spec),
            annotated: (!annotated.is_empty()).then(|| Annotated { ranges: ranges(annotated), created }),
            leaving: false,
        }
    }

    fn decided(nodes: &[Node], services: &[&str]) -> BTreeMap<String, Result<Vec<IpNetwork>, NotGiven>> {
        let services = services.iter().map(|ip| (ip.parse().unwrap(), ObjectKey::new("shop", "cart"))).collect();
        let permitted = ["10.244.0.0/16", "fd00:10:244::/56"].map(|text| text.parse().unwrap());
        given(&nodes.iter().collect::<Vec<_>>(), &services, &permitted)
    }

    fn why(nodes: &[Node], services: &[&str], name: &str) -> String {
        decided(nodes, services)[name].as_ref().unwrap_err().to_string()
    }

    #[test]
    fn a_range_counts_that_nobody_else_has() {
        let nodes = [
            node("a", 1, &[], &["10.244.1.0/24", "fd00:10:244:1::/64"]),
            node("b", 2, &[], &["10.244.2.0/24"]),
            node("c", 3, &["10.244.3.0/24"], &[]),
        ];
        let found = decided(&nodes, &["10.96.0.1"]);
        assert_eq!(found.len(), 2);
        assert_eq!(found["a"].as_ref().unwrap(), &nodes[0].annotated.as_ref().unwrap().ranges);
        assert!(found["b"].is_ok());
    }

    #[test]
    fn a_range_that_somebody_has_does_not_count_and_says_whose_it_is() {
        let older = node("z", 1, &[], &["10.244.1.0/24"]);
        let younger = node("a", 2, &[], &["10.244.0.0/17"]);
        let nodes = [younger.clone(), older.clone()];
        assert!(decided(&nodes, &[])["z"].is_ok(), "a node that comes takes nothing of one that is there");
        let text = why(&nodes, &[], "a");
        assert!(text.contains("10.244.0.0/17 overlaps 10.244.1.0/24 of node z; give this Node"), "{text}");
        // What the control plane gave comes first, however young its Node is.
        let nodes = [older.clone(), node("new", 9, &["10.244.0.0/16"], &[])];
        assert!(why(&nodes, &[], "z").contains("overlaps 10.244.0.0/16 of node new"));
        let text = why(std::slice::from_ref(&older), &["10.244.1.10"], "z");
        assert!(text.contains("holds 10.244.1.10, the address of Service shop/cart"), "{text}");
        let own = Node { internal_ips: vec!["::ffff:10.244.1.9".parse().unwrap()], ..older.clone() };
        assert!(why(&[own], &[], "z").contains("holds 10.244.1.9, the node's own address"));
        for outside in ["10.245.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00:10:245::/64"] {
            let text = why(&[node("z", 1, &[], &[outside])], &[], "z");
            assert!(text.contains(&format!("{outside} is in no prefix of the setting `annotatedRanges`")), "{text}");
        }
    }

    #[test]
    fn one_range_that_does_not_count_takes_the_other_family_with_it() {
        let nodes = [
            node("a", 1, &[], &["10.244.1.0/24"]),
            node("b", 2, &[], &["fd00:10:244:1::/64", "10.244.1.128/25"]),
            node("c", 3, &[], &["fd00:10:244:1::/64"]),
        ];
        let found = decided(&nodes, &[]);
        assert!(found["a"].is_ok() && found["b"].is_err() && found["c"].is_ok(), "{found:?}");
    }

    fn any_range() -> impl Strategy<Value = IpNetwork> {
        (0u8..8, 26u8..=32).prop_map(|(host, length)| {
            let network = IpNetwork::new(IpAddr::from([10, 244, 0, host * 32]), length).unwrap();
            IpNetwork::new(network.network(), length).unwrap()
        })
    }

    proptest! {
        #[test]
        fn nobody_gets_what_another_has_and_everybody_else_gets_his(
            nodes in prop::collection::vec((0i64..3, prop::option::of(any_range()), any_range()), 0..6),
            services in prop::collection::vec(any_range(), 0..2),
        ) {
            let nodes: Vec<Node> = nodes
                .iter()
                .enumerate()
                .map(|(n, (age, spec, range))| match spec {
                    Some(spec) => node(&format!("n{n}"), *age, &[&spec.to_string()], &[]),
                    None => node(&format!("n{n}"), *age, &[], &[&range.to_string()]),
                })
                .collect();
            let services: Vec<String> = services.iter().map(|range| range.ip().to_string()).collect();
            let found = decided(&nodes, &services.iter().map(String::as_str).collect::<Vec<_>>());
            let overlap = |a: &IpNetwork, b: &IpNetwork| a.contains(b.ip()) || b.contains(a.ip());
            // Naively: each against all that come before it.
            let mut had: Vec<IpNetwork> = nodes.iter().flat_map(|node| node.pod_cidrs.clone()).collect();
            let mut asking: Vec<&Node> = nodes.iter().filter(|node| node.annotated.is_some()).collect();
            asking.sort_by_key(|node| (node.annotated.as_ref().unwrap().created, node.name.clone()));
            prop_assert_eq!(found.len(), asking.len());
            for node in asking {
                let range = node.annotated.as_ref().unwrap().ranges[0];
                let free = !had.iter().any(|other| overlap(other, &range));
                let free = free && !services.iter().any(|ip| range.contains(ip.parse().unwrap()));
                prop_assert_eq!(found[&node.name].is_ok(), free, "{} {}", &node.name, range);
                if free {
                    had.push(range);
                }
            }
        }
    }
}
