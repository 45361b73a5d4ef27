//! What rules have counted, and for which sets there are counters.
//!
//! The counters of a set (`POLICY_HITS`) come before the set judges anybody, and go when nobody can be judged by it any more.
//! What they counted is then added to what their rules have counted before: sets and bits are renumbered, rules are not
//! ([`RuleId`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fairlead_datapath::policy::{HitKey, MAX_HITS, NO_BIT};
use fairlead_objects::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::compile::policy::{Direction, RuleId, RuleIds, SetInfo};

/// What a rule has decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// Flows that were made.
    pub flows: u64,
    /// Packets that were dropped.
    pub denied: u64,
    /// The last time, in seconds since 1970, if it ever was.
    pub last: Option<u64>,
}

impl Count {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.denied += other.denied;
        self.last = self.last.max(other.last);
    }
}

/// What outlives sets: kept on disk, beside the counters in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Saved {
    /// What was counted under sets that are gone.
    pub totals: BTreeMap<RuleId, Count>,
    /// Since when a rule is counted, in seconds since 1970.
    pub since: BTreeMap<RuleId, u64>,
    /// The policies that an id stands for no rule of, in a direction.
    pub none: BTreeMap<RuleId, (Direction, Vec<ObjectKey>)>,
    /// Sets of which the counters are in these numbers, and may be in the kernel still.
    #[serde(default)]
    pub folded: BTreeSet<u32>,
}

/// Which sets have counters, and what those had counted that are gone.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    counted: BTreeMap<u32, Vec<(u32, RuleId)>>,
    /// Sets of which it is known that their counters are of the rules that policies have now.
    checked: BTreeSet<u32>,
    saved: Saved,
    uncounted: BTreeSet<ObjectKey>,
}

/// Counters that are to go and to come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Those that go, with their rules: what they counted is folded first.
    pub gone: Vec<(HitKey, RuleId)>,
    /// Those that come.
    pub new: Vec<(HitKey, RuleId)>,
}

impl Ledger {
    /// With the counters that are in the kernel. Those of sets that were folded already are returned: they are to go.
    #[must_use]
    pub fn adopt(found: impl IntoIterator<Item = (HitKey, RuleId)>, mut saved: Saved) -> (Self, Vec<HitKey>) {
        let folded = std::mem::take(&mut saved.folded);
        let (mut counted, mut left): (BTreeMap<u32, Vec<(u32, RuleId)>>, _) = (BTreeMap::new(), Vec::new());
        for (key, rule) in found {
            if folded.contains(&key.set) {
                left.push(key);
            } else {
                counted.entry(key.set).or_default().push((key.bit, rule));
            }
        }
        counted.values_mut().for_each(|bits| bits.sort_unstable());
        (Self { counted, saved, ..Self::default() }, left)
    }

    /// Policies have changed: a set that stays may be of rules that say the same in other words.
    pub fn policies_changed(&mut self) {
        self.checked.clear();
    }

    /// What is to change so that these sets have counters, as far as there is room. One of which nothing is known keeps what it has.
    #[must_use]
    pub fn plan(&mut self, sets: &BTreeMap<u32, Option<&SetInfo>>, ids: &mut RuleIds<'_>, now: u64) -> Changes {
        let mut wanted: BTreeMap<u32, Vec<(u32, RuleId)>> = BTreeMap::new();
        for (set, info) in sets {
            let bits = match (info, self.counted.get(set)) {
                (_, Some(bits)) if self.checked.contains(set) => bits.clone(),
                (Some(info), _) => {
                    self.checked.insert(*set);
                    self.saved.bits_of(info, ids)
                }
                (None, Some(bits)) => bits.clone(),
                (None, None) => continue,
            };
            wanted.insert(*set, bits);
        }
        let namespace = |set: u32| {
            let policies = sets.get(&set).copied().flatten().map(|info| info.policies.as_slice()).unwrap_or_default();
            policies.iter().map(|policy| policy.namespace.as_str()).find(|name| !name.is_empty()).unwrap_or_default()
        };
        let needs: Vec<_> = wanted
            .iter()
            .map(|(set, bits)| Need {
                set: *set,
                namespace: namespace(*set),
                counters: bits.len(),
                is_counted: self.counted.contains_key(set),
            })
            .collect();
        let placed = places(&needs, MAX_HITS as usize);
        let refused = needs.iter().map(|need| need.set).filter(|set| !placed.contains(set));
        let refused = refused.filter_map(|set| sets.get(&set).copied().flatten());
        self.uncounted = refused.flat_map(|info| info.policies.iter().cloned()).collect();
        let mut changes = Changes::default();
        let key = |set: u32| move |(bit, rule): &(u32, RuleId)| (HitKey { set, bit: *bit }, *rule);
        for (set, bits) in &self.counted {
            if !placed.contains(set) || wanted.get(set) != Some(bits) {
                changes.gone.extend(bits.iter().map(key(*set)));
            }
        }
        wanted.retain(|set, _| placed.contains(set));
        for (set, bits) in &wanted {
            if self.counted.get(set) != Some(bits) {
                changes.new.extend(bits.iter().map(key(*set)));
            }
            for (_, rule) in bits {
                self.saved.since.entry(*rule).or_insert(now);
            }
        }
        self.counted = wanted;
        let Self { counted, checked, .. } = self;
        checked.retain(|set| counted.contains_key(set));
        changes
    }

    /// Takes note of what a counter had counted that goes.
    pub fn fold(&mut self, rule: RuleId, count: &Count) {
        if *count != Count::default() {
            self.saved.totals.entry(rule).or_default().add(count);
        }
    }

    /// The sets of these counters are folded, until they have gone.
    pub fn set_folded(&mut self, gone: &[(HitKey, RuleId)]) {
        self.saved.folded = gone.iter().map(|(key, _)| key.set).collect();
    }

    /// A set's counters could not be made.
    pub fn failed(&mut self, keys: &[(HitKey, RuleId)]) {
        keys.iter().for_each(|(key, _)| drop(self.counted.remove(&key.set)));
    }

    /// Forgets rules that no policy has any more and no set counts.
    pub fn forget(&mut self, ids: &mut RuleIds<'_>) {
        let (mut known, counted) = (ids.all(), self.counted());
        known.extend(&counted);
        let Saved { totals, since, none, folded: _ } = &mut self.saved;
        // What no rule of some policies let through is of interest as long as one of them is there.
        none.retain(|id, (_, policies)| counted.contains(id) || policies.iter().any(|policy| ids.has(policy)));
        let stays = |rule: &RuleId| known.contains(rule) || none.contains_key(rule);
        totals.retain(|rule, _| stays(rule));
        since.retain(|rule, _| stays(rule));
    }

    /// What is kept on disk.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The ids that stand for no rule of a NetworkPolicy and those beside it.
    #[must_use]
    pub fn none_of(&self, policy: &ObjectKey, direction: Direction) -> Vec<RuleId> {
        let none = self.saved.none.iter();
        none.filter(|(_, (of, policies))| *of == direction && policies.contains(policy)).map(|(id, _)| *id).collect()
    }

    /// The rules that have counters now.
    #[must_use]
    pub fn counted(&self) -> HashSet<RuleId> {
        self.counted.values().flatten().map(|(_, rule)| *rule).collect()
    }

    /// How many counters there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counted.values().map(Vec::len).sum()
    }

    /// The policies of sets that there is no room to count.
    #[must_use]
    pub fn uncounted(&self) -> &BTreeSet<ObjectKey> {
        &self.uncounted
    }

    /// What each rule has counted, with what its counters in the kernel have.
    #[must_use]
    pub fn counts(&self, in_kernel: &HashMap<HitKey, Count>) -> HashMap<RuleId, Count> {
        let mut counts: HashMap<RuleId, Count> =
            self.saved.totals.iter().map(|(rule, count)| (*rule, *count)).collect();
        for (set, bits) in &self.counted {
            for (bit, rule) in bits {
                let count = in_kernel.get(&HitKey { set: *set, bit: *bit }).copied().unwrap_or_default();
                counts.entry(*rule).or_default().add(&count);
            }
        }
        counts
    }
}

impl Saved {
    /// The bits of a set that are counted, with their rules.
    fn bits_of(&mut self, info: &SetInfo, ids: &mut RuleIds<'_>) -> Vec<(u32, RuleId)> {
        let rules = info.bits.iter().filter_map(|bit| {
            let rule = info.rules.get(*bit as usize)?;
            Some((*bit, ids.of(info.direction, rule)?))
        });
        let mut bits: Vec<_> = rules.collect();
        if let Some((none, policies)) = RuleIds::of_none(info) {
            bits.push((u32::from(NO_BIT), none));
            self.none.insert(none, (info.direction, policies));
        }
        bits
    }
}

/// A set that is to be counted.
#[derive(Debug, Clone, Copy)]
struct Need<'a> {
    set: u32,
    /// Whose share it is counted to.
    namespace: &'a str,
    counters: usize,
    is_counted: bool,
}

/// The sets that are counted. Each namespace has a share of the room, which it fills first with sets that are counted already, then
/// with the smallest; what is left goes to all others likewise. So one that needs no more than its share is counted whole,
/// whatever others have.
fn places(needs: &[Need<'_>], room: usize) -> BTreeSet<u32> {
    let mut order: Vec<_> = needs.iter().collect();
    order.sort_by_key(|need| (!need.is_counted, need.counters, need.set));
    let mut namespaces: BTreeMap<&str, Vec<&Need<'_>>> = BTreeMap::new();
    order.iter().for_each(|need| namespaces.entry(need.namespace).or_default().push(need));
    let share = room / namespaces.len().max(1);
    let (mut placed, mut left) = (BTreeSet::new(), room);
    for needs in namespaces.into_values() {
        let mut of_share = share;
        for need in needs {
            let Some(rest) = of_share.checked_sub(need.counters) else { break };
            of_share = rest;
            left -= need.counters;
            placed.insert(need.set);
        }
    }
    for need in order {
        if !placed.contains(&need.set) && need.counters <= left {
            left -= need.counters;
            placed.insert(need.set);
        }
    }
    placed
}

#[cfg(test)]
mod tests;
