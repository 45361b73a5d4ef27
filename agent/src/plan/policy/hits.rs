//! What rules have counted, and for which sets there are counters.
//!
//! The counters of a set (`POLICY_HITS`) come before the set judges anybody, and go when nobody can be judged by it any more.
//! What they counted is then added to what their rules have counted before: sets and bits are renumbered, rules are not
//! ([`RuleId`]).

mod places;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use fairlead_datapath::policy::{HitKey, MAX_HITS, NO_BIT};
use fairlead_objects::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::compile::policy::{Direction, RuleId, RuleIds, SetInfo};
use places::{Need, places};

/// What a rule has decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    /// New flows that it allowed.
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
    /// Whose rules allow nothing of what a counter of no rule counts, in a direction: of the counters that there are.
    pub none: BTreeMap<RuleId, (Direction, Vec<ObjectKey>)>,
    /// Sets of which the counters are in these numbers, and may be in the kernel still.
    #[serde(default)]
    pub folded: BTreeSet<u32>,
}

/// Which sets have counters, and what those had counted that are gone.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    counted: BTreeMap<u32, Vec<(u32, RuleId)>>,
    /// What sets stand for by the rules that policies have now, whether they are counted or not.
    known: BTreeMap<u32, Arc<Known>>,
    /// Policies have changed since that was found out.
    outdated: bool,
    /// Rules may have gone for good.
    forgets: bool,
    saved: Saved,
    /// Sets that are not counted, of those that are known.
    refused: BTreeSet<u32>,
    /// Their rules. Nobody knows whether nothing has matched one of them, though other sets that have it may be counted.
    partly: HashSet<RuleId>,
    uncounted: BTreeSet<ObjectKey>,
    /// Counters could not be made, and are not tried again yet.
    fails: bool,
}

/// A set by its rules.
#[derive(Debug)]
struct Known {
    direction: Direction,
    policies: Vec<ObjectKey>,
    /// The bits that are counted, with their rules.
    bits: Vec<(u32, RuleId)>,
    /// The NetworkPolicies among them, if there are any, by the id of what no rule of them allows.
    none: Option<(RuleId, Vec<ObjectKey>)>,
    /// All rules of its policies, also those that nothing can match and that have no bit.
    rules: Vec<RuleId>,
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
        (Self { counted, saved, forgets: true, ..Self::default() }, left)
    }

    /// Policies have changed: a set that stays may be of rules that say the same in other words.
    pub fn policies_changed(&mut self) {
        (self.outdated, self.forgets) = (true, true);
    }

    /// What is to change so that these sets have counters, as far as there is room. One of which nothing is known keeps what it has.
    /// Unless it `grows` no set gets other counters than it has.
    #[must_use]
    pub fn plan(
        &mut self,
        sets: &BTreeMap<u32, Option<&SetInfo>>,
        ids: &mut RuleIds<'_>,
        grows: bool,
        now: u64,
    ) -> Changes {
        self.fails &= !grows;
        let has_changed = self.learn(sets, ids);
        let Self { counted, known, .. } = &*self;
        let bits = |set: &u32| known.get(set).map(|known| &known.bits).or_else(|| counted.get(set));
        let wanted: BTreeMap<u32, &Vec<_>> = sets
            .keys()
            .filter_map(|set| Some((*set, bits(set)?)))
            .filter(|(set, bits)| grows || counted.get(set) == Some(*bits))
            .collect();
        let needs: Vec<_> = wanted
            .iter()
            .map(|(set, bits)| Need {
                set: *set,
                namespace: known.get(set).map(|known| known.namespace()).unwrap_or_default(),
                counters: bits.len(),
                is_counted: counted.contains_key(set),
            })
            .collect();
        let placed = places(&needs, MAX_HITS as usize);
        let wanted: BTreeMap<u32, Vec<_>> =
            wanted.into_iter().filter(|(set, _)| placed.contains(set)).map(|(set, bits)| (set, bits.clone())).collect();
        if !has_changed && wanted == *counted {
            return Changes::default();
        }
        let changes = Changes { gone: differing(counted, &wanted), new: differing(&wanted, counted) };
        self.counted = wanted;
        self.settle(now);
        changes
    }

    /// Finds out what sets stand for. Whether anything of that is new.
    fn learn(&mut self, sets: &BTreeMap<u32, Option<&SetInfo>>, ids: &mut RuleIds<'_>) -> bool {
        let mut has_changed = std::mem::take(&mut self.outdated);
        if has_changed {
            self.known.clear();
            self.refused.clear();
            self.partly.clear();
            self.uncounted.clear();
        }
        let before = self.known.len();
        self.known.retain(|set, _| sets.contains_key(set));
        let have_gone = self.known.len() < before || self.counted.keys().any(|set| !sets.contains_key(set));
        self.forgets |= have_gone;
        has_changed |= have_gone;
        for (set, info) in sets {
            if let Some(info) = info
                && !self.known.contains_key(set)
            {
                self.known.insert(*set, Arc::new(Known::of(info, ids)));
                has_changed = true;
            }
        }
        has_changed
    }

    /// Takes note of which rules are counted now.
    fn settle(&mut self, now: u64) {
        let Self { counted, known, saved, refused, partly, uncounted, .. } = self;
        let found: BTreeSet<u32> = known.keys().filter(|set| !counted.contains_key(set)).copied().collect();
        // They may have many rules, and stay when others come and go.
        if *refused != found {
            *refused = found;
            let refused = || refused.iter().filter_map(|set| known.get(set));
            *uncounted = refused().flat_map(|known| known.policies.iter().cloned()).collect();
            *partly = refused().flat_map(|known| known.rules.iter().copied()).collect();
            saved.since.retain(|rule, _| !partly.contains(rule));
        }
        for known in counted.keys().filter_map(|set| known.get(set)) {
            if let Some((id, policies)) = &known.none {
                saved.none.entry(*id).or_insert_with(|| (known.direction, policies.clone()));
            }
            for rule in known.rules.iter().filter(|rule| !partly.contains(rule)) {
                saved.since.entry(*rule).or_insert(now);
            }
        }
    }

    /// Takes note of what a counter had counted that goes.
    pub fn fold(&mut self, rule: RuleId, count: &Count) {
        if *count == Count::default() {
            return;
        }
        for rule in self.saved.of(rule) {
            self.saved.totals.entry(rule).or_default().add(count);
        }
    }

    /// The counters of these sets are folded, until they have gone.
    pub fn set_folded(&mut self, sets: impl IntoIterator<Item = u32>) {
        self.saved.folded = sets.into_iter().collect();
    }

    /// These counters are new ones, whatever was folded under their sets.
    pub fn unfold(&mut self, new: &[(HitKey, RuleId)]) {
        for (key, _) in new {
            self.saved.folded.remove(&key.set);
        }
    }

    /// These counters, all that their sets have, could not be made.
    pub fn failed(&mut self, keys: &[(HitKey, RuleId)], now: u64) {
        keys.iter().for_each(|(key, _)| drop(self.counted.remove(&key.set)));
        self.fails = true;
        self.settle(now);
    }

    /// Whether counters could not be made, and are not tried again yet.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.fails
    }

    /// Whether there may be anything to forget.
    #[must_use]
    pub fn forgets(&self) -> bool {
        self.forgets
    }

    /// Forgets rules that no policy has any more and no set counts.
    pub fn forget(&mut self, ids: &mut RuleIds<'_>) {
        let mut known = ids.all();
        let counters: HashSet<RuleId> = self.counted.values().flatten().map(|(_, rule)| *rule).collect();
        // There may be as many lists of policies as there ever were combinations of them.
        self.saved.none.retain(|id, _| counters.contains(id));
        known.extend(counters.iter().flat_map(|rule| self.saved.of(*rule)));
        let Saved { totals, since, none: _, folded: _ } = &mut self.saved;
        totals.retain(|rule, _| known.contains(rule));
        since.retain(|rule, _| known.contains(rule));
        self.forgets = false;
    }

    /// What is kept on disk.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// The rules that are counted now in every set that judges by them.
    #[must_use]
    pub fn counted(&self) -> HashSet<RuleId> {
        let known = self.counted.keys().filter_map(|set| self.known.get(set));
        known.flat_map(|known| known.rules.iter().copied()).filter(|rule| !self.partly.contains(rule)).collect()
    }

    /// How many counters there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counted.values().map(Vec::len).sum()
    }

    /// The policies of sets that are not counted: there is no room, or the kernel has no memory.
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
                for rule in self.saved.of(*rule) {
                    counts.entry(rule).or_default().add(&count);
                }
            }
        }
        counts
    }
}

impl Saved {
    /// The rules that a counter counts for: its own, or what no rule allows of each policy that it stands for.
    fn of(&self, rule: RuleId) -> Vec<RuleId> {
        match self.none.get(&rule) {
            Some((direction, policies)) => policies.iter().map(|policy| RuleIds::none(*direction, policy)).collect(),
            None => vec![rule],
        }
    }
}

impl Known {
    fn of(info: &SetInfo, ids: &mut RuleIds<'_>) -> Self {
        let rules = info.bits.iter().filter_map(|bit| {
            let rule = info.rules.get(*bit as usize)?;
            Some((*bit, ids.of(info.direction, rule)?))
        });
        let mut bits: Vec<_> = rules.collect();
        let none = RuleIds::of_none(info);
        bits.extend(none.as_ref().map(|(none, _)| (u32::from(NO_BIT), *none)));
        let mut rules = Vec::new();
        for policy in &info.policies {
            let of_cluster = policy.namespace.is_empty();
            rules.extend(ids.of_policy(of_cluster, policy, info.direction));
            rules.extend((!of_cluster).then(|| RuleIds::none(info.direction, policy)));
        }
        Self { direction: info.direction, policies: info.policies.clone(), bits, none, rules }
    }

    /// Whose share it is counted to.
    fn namespace(&self) -> &str {
        let mut namespaces = self.policies.iter().map(|policy| policy.namespace.as_str());
        namespaces.find(|name| !name.is_empty()).unwrap_or_default()
    }
}

/// The counters of sets that others have not, or not the same.
fn differing(
    these: &BTreeMap<u32, Vec<(u32, RuleId)>>,
    others: &BTreeMap<u32, Vec<(u32, RuleId)>>,
) -> Vec<(HitKey, RuleId)> {
    let differing = these.iter().filter(|(set, bits)| others.get(set) != Some(bits));
    let key = |set: u32| move |(bit, rule): &(u32, RuleId)| (HitKey { set, bit: *bit }, *rule);
    differing.flat_map(|(set, bits)| bits.iter().map(key(*set))).collect()
}

#[cfg(test)]
mod tests;
