//! What a rule is, whatever its place: what is counted under it stays its own when sets are renumbered and policies edited.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use fairlead_objects::{ClusterNetworkPolicy, NetworkPolicy, ObjectKey, Tier};

use super::{Direction, RuleRef, SetInfo, World, content_hash};

/// A rule by its policy, its direction and what it says; of several that say the same, by which of them it is. A rule that moves
/// in its policy's list keeps it, one that changes gets another.
pub type RuleId = u64;

/// The ids of the rules of policies, worked out as they are asked for.
#[derive(Debug)]
pub struct RuleIds<'a> {
    policies: Vec<&'a NetworkPolicy>,
    cluster_policies: Vec<&'a ClusterNetworkPolicy>,
    by_key: Option<HashMap<(bool, &'a ObjectKey), Policy<'a>>>,
    known: HashMap<(bool, ObjectKey, Direction), Vec<RuleId>>,
}

#[derive(Debug, Clone, Copy)]
enum Policy<'a> {
    Network(&'a NetworkPolicy),
    Cluster(&'a ClusterNetworkPolicy),
}

impl<'a> RuleIds<'a> {
    /// Of the policies of a world.
    #[must_use]
    pub fn new(world: &World<'a>) -> Self {
        Self {
            policies: world.policies.clone(),
            cluster_policies: world.cluster_policies.clone(),
            by_key: None,
            known: HashMap::new(),
        }
    }

    fn by_key(&mut self) -> &HashMap<(bool, &'a ObjectKey), Policy<'a>> {
        let Self { policies, cluster_policies, by_key, known: _ } = self;
        by_key.get_or_insert_with(|| {
            let network = policies.iter().copied().map(|policy| ((false, &policy.key), Policy::Network(policy)));
            let cluster = cluster_policies.iter().copied().map(|policy| ((true, &policy.key), Policy::Cluster(policy)));
            network.chain(cluster).collect()
        })
    }

    /// The id of a rule, if there is such a one.
    #[must_use]
    pub fn of(&mut self, direction: Direction, rule: &RuleRef) -> Option<RuleId> {
        let of_cluster = rule.tier != Tier::NetworkPolicy;
        self.of_policy(of_cluster, &rule.policy, direction).get(rule.index).copied()
    }

    /// The ids of the rules of a policy in a direction, in their order; none if there is no such policy.
    pub fn of_policy(&mut self, of_cluster: bool, policy: &ObjectKey, direction: Direction) -> &[RuleId] {
        let key = (of_cluster, policy.clone(), direction);
        if !self.known.contains_key(&key) {
            let found = match self.by_key().get(&(of_cluster, policy)).copied() {
                None => Vec::new(),
                Some(Policy::Network(policy)) => {
                    ids((&policy.key, direction), direction.rules(policy).unwrap_or_default())
                }
                Some(Policy::Cluster(policy)) => {
                    let rules = direction.cluster_rules(policy).iter().map(|rule| (rule.action, &rule.matches));
                    ids((policy.tier, &policy.key, direction), &rules.collect::<Vec<_>>())
                }
            };
            self.known.insert(key.clone(), found);
        }
        self.known.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Every id that policies have now.
    pub fn all(&mut self) -> HashSet<RuleId> {
        let policies: Vec<_> = self.by_key().iter().map(|(key, policy)| (*key, *policy)).collect();
        let mut all = HashSet::new();
        for ((of_cluster, key), policy) in policies {
            for direction in [Direction::Ingress, Direction::Egress] {
                all.extend(self.of_policy(of_cluster, key, direction));
                if matches!(policy, Policy::Network(policy) if direction.rules(policy).is_some()) {
                    all.insert(Self::none(direction, key));
                }
            }
        }
        all
    }

    /// What stands for no rule of a NetworkPolicy.
    #[must_use]
    pub fn none(direction: Direction, policy: &ObjectKey) -> RuleId {
        content_hash(&("none of", direction, policy))
    }

    /// What stands for no rule of the NetworkPolicies that judge a set's pods, if any do: of all of them, in one counter.
    #[must_use]
    pub fn of_none(info: &SetInfo) -> Option<(RuleId, Vec<ObjectKey>)> {
        let policies: Vec<_> = info.policies.iter().filter(|policy| !policy.namespace.is_empty()).cloned().collect();
        (!policies.is_empty()).then(|| (content_hash(&("none", info.direction, &policies)), policies))
    }
}

fn ids<T: Hash>(whose: impl Hash + Copy, rules: &[T]) -> Vec<RuleId> {
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let id = |rule| {
        let text = content_hash(&(whose, rule));
        let nth = seen.entry(text).or_default();
        *nth += 1;
        content_hash(&(text, *nth))
    };
    rules.iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use fairlead_objects::{Mode, PolicyPort, PortMatch, Protocol, Rule, Selector};

    use super::*;

    fn rule(port: u16) -> Rule {
        let port = PolicyPort { protocol: Protocol::Tcp, port: PortMatch::Range(port, port) };
        Rule { peers: Vec::new(), ports: vec![port] }
    }

    fn policy(namespace: &str, rules: &[u16]) -> NetworkPolicy {
        NetworkPolicy {
            key: ObjectKey::new(namespace, "web"),
            mode: Mode::Enforce,
            pod_selector: Selector::All([].into()),
            ingress: Some(rules.iter().copied().map(rule).collect()),
            egress: None,
        }
    }

    fn of(policy: &NetworkPolicy) -> Vec<RuleId> {
        let world = World { policies: vec![policy], ..World::default() };
        RuleIds::new(&world).of_policy(false, &policy.key, Direction::Ingress).to_vec()
    }

    #[test]
    fn p71_a_rule_keeps_its_id_when_others_come_and_go() {
        let before = of(&policy("shop", &[80, 443, 80]));
        assert_eq!(
            of(&policy("shop", &[22, 443, 80, 80])),
            [of(&policy("shop", &[22]))[0], before[1], before[0], before[2]]
        );
        assert_ne!(before[0], before[2], "two that say the same are two");
        assert_ne!(of(&policy("shop", &[81]))[0], before[0]);
        assert_ne!(of(&policy("other", &[80]))[0], before[0]);
    }
}
