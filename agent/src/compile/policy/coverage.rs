//! Whose answers concern policy: the file that the node's DNS server reads.

use std::collections::{BTreeMap, BTreeSet};

use fairlead_objects::names::NameRules;
use fairlead_objects::{ClusterNetworkPolicy, DomainName, Mode, NetworkPolicy, Peer, Tier};

use super::World;

/// The names that the rules of a policy have.
fn names_of(policy: &ClusterNetworkPolicy) -> impl Iterator<Item = &DomainName> {
    let rules = policy.egress.iter().filter_map(|rule| rule.matches.as_ref());
    rules.flat_map(|rule| &rule.peers).flat_map(|peer| {
        match peer {
            Peer::DomainNames(names) => Some(names),
            _ => None,
        }
        .into_iter()
        .flatten()
    })
}

/// Whether a policy has a rule with names.
#[must_use]
pub fn has_names(policy: &ClusterNetworkPolicy) -> bool {
    names_of(policy).next().is_some()
}

/// The names that each pod of this node may be told to open something, by policies that are in force.
#[must_use]
pub fn coverage(world: &World<'_>) -> NameRules {
    coverage_of(world, Mode::Enforce)
}

/// The same by policies in audit mode, of a world with those.
#[must_use]
pub fn audited_coverage(world: &World<'_>) -> NameRules {
    coverage_of(world, Mode::Audit)
}

/// Both: what is in force, and what is only counted.
#[must_use]
pub fn with_audited(mut rules: NameRules, audited: &NameRules) -> NameRules {
    let first = rules.lists.len();
    rules.lists.extend(audited.lists.iter().cloned());
    rules.audited = audited.clients.iter().map(|(client, list)| (*client, first + list)).collect();
    rules
}

fn coverage_of(world: &World<'_>, mode: Mode) -> NameRules {
    let policies = world.cluster_policies.iter().copied().filter(|policy| policy.mode == mode);
    let named: Vec<&ClusterNetworkPolicy> = policies.filter(|policy| has_names(policy)).collect();
    if named.is_empty() {
        return NameRules::default();
    }
    let mut rules = NameRules::default();
    let mut lists: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
    for local in &world.local {
        let Some(pod) = world.object_of(local) else { continue };
        let labels = world.namespace_labels(&pod.key.namespace);
        // Where NetworkPolicies isolate it, nobody asks those of the Baseline tier.
        let isolates = |policy: &&NetworkPolicy| {
            policy.key.namespace == pod.key.namespace
                && policy.egress.is_some()
                && policy.pod_selector.matches(&pod.labels)
        };
        let is_isolated = world.policies.iter().any(isolates);
        let selects = |policy: &ClusterNetworkPolicy| {
            (policy.tier == Tier::Admin || !is_isolated) && policy.subject.selects(&pod.labels, labels)
        };
        let selecting: Vec<usize> =
            named.iter().enumerate().filter(|(_, policy)| selects(policy)).map(|(place, _)| place).collect();
        if selecting.is_empty() {
            continue;
        }
        let list = *lists.entry(selecting).or_insert_with_key(|selecting| {
            let names: BTreeSet<&DomainName> =
                selecting.iter().filter_map(|place| named.get(*place)).flat_map(|policy| names_of(policy)).collect();
            rules.lists.push(names.into_iter().cloned().collect());
            rules.lists.len() - 1
        });
        rules.clients.extend(local.ips.iter().map(|ip| (ip.to_canonical(), list)));
    }
    let own = world.nodes.iter().filter(|node| node.name == world.node);
    rules.own = own.flat_map(|node| node.pod_cidrs.iter().copied()).collect();
    rules.all =
        named.iter().flat_map(|policy| names_of(policy)).collect::<BTreeSet<_>>().into_iter().cloned().collect();
    rules
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use std::net::IpAddr;

    use super::*;
    use fairlead_objects::Action;

    #[test]
    fn p76_pods_are_covered_by_the_rules_that_select_them() {
        let mut cluster = Cluster::grid();
        assert_eq!(coverage(&cluster.world()), NameRules::default());
        let accept = |texts: &[&str]| does(Action::Accept, &[named_by(texts)], &[]);
        cluster.cluster_policies = vec![
            cnp("Admin/1/one", "ns=x", &[], &[accept(&["a.example", "*.b.example"])]),
            cnp(
                "Baseline/1/two",
                "ns=x",
                &[],
                &[accept(&["c.example"]), does(Action::Deny, &[block("0.0.0.0/0", &[])], &[])],
            ),
            cnp("Admin/2/other", "ns=none", &[], &[accept(&["d.example"])]),
        ];
        cluster.cluster_policies.push(ClusterNetworkPolicy {
            mode: Mode::Audit,
            ..cnp("Admin/3/audited", "ns=x", &[], &[accept(&["e.example"])])
        });
        let world = cluster.world();
        let both = with_audited(coverage(&world), &audited_coverage(&world));
        let of_x = cluster.local.iter().filter(|local| local.key.namespace == "x");
        let of_x: BTreeSet<IpAddr> = of_x.flat_map(|local| local.ips.clone()).collect();
        assert_eq!(both.audited.keys().copied().collect::<BTreeSet<_>>(), of_x);
        assert!(both.audited.values().all(|list| both.lists[*list].len() == 1), "{both:?}");
        let rules = coverage(&world);
        let texts = |names: &[DomainName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(rules.lists.len(), 1);
        assert_eq!(texts(&rules.lists[0]), ["a.example", "*.b.example", "c.example"]);
        assert_eq!(texts(&rules.all), ["a.example", "*.b.example", "c.example", "d.example"]);
        let expected: BTreeSet<IpAddr> = cluster
            .local
            .iter()
            .filter(|local| local.key.namespace == "x")
            .flat_map(|local| local.ips.clone())
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(rules.clients.keys().copied().collect::<BTreeSet<_>>(), expected);
        // Who is isolated has nothing of the Baseline tier.
        let isolated = cluster.clone().policy("x/isolated", "pod=a", None, Some(&[]));
        let rules = coverage(&isolated.world());
        let of = |pod: &str| texts(&rules.lists[rules.clients[&isolated.ip_of(pod, 0)]]);
        assert_eq!(of("x/a"), ["a.example", "*.b.example"]);
        assert_eq!(of("x/b"), ["a.example", "*.b.example", "c.example"]);
    }
}
