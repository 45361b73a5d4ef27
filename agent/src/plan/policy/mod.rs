//! Order of the changes to the tables of policies and peers.
//!
//! What must hold for every judgement (a pod, a direction, a peer, a protocol and port) at every moment: it is what the
//! old content says or what the new content says, also for a packet that is in the middle of its walk; and a flow that
//! was judged by anything but the new content carries an old epoch. A reader takes a pod's word first, then the peer,
//! then rows. So the writer goes the other way:
//!
//! 1. Rows of new sets and of new classes, where nothing leads to them.
//! 2. Peers and prefixes. A pod that keeps its set has its new answer from here on. For a pod that is about to change
//!    its set nothing changes yet: an address that its old set would now judge otherwise gets a class in between, with
//!    the old class' rows in old sets and the new class' rows in new ones.
//! 3. The word of each pod whose answers changed: both sets and the epoch at once.
//! 4. When every packet that began before is through: classes in between become final ones, and what nothing leads to
//!    is deleted.
//!
//! Ids are made from what they stand for and checked against what is there, so an agent that starts anew finds its own
//! tables as it would write them.

mod change;
mod content;
mod exposed;
mod fit;
mod follow;
mod halt;
mod hits;
mod ids;
mod nodes;
mod rows;
mod share;
mod teller;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{MAX_CIDRS, MAX_NODES, MAX_PEERS};
use fairlead_datapath::policy::{MAX_PAGES, MAX_PEER_ROWS, MAX_PORT_ROWS, MAX_RANGE_ROWS, MAX_SETS, PAGE_BITS};

use crate::compile::policy::{Draft, Judge, RuleRef, SetInfo, Wanted};
use crate::model::{Dirty, Model};
use crate::plan::Op;

pub use content::Content;
use exposed::Whole;
pub use fit::{CutOff, Why};
use follow::InForce;
pub use hits::{Changes, Count, Ledger, Saved};
use ids::Ids;
use nodes::Former;
pub use teller::{Retired, Tell, Teller};
pub use told::View;
use told::Way;

/// Numbers of elements that there is room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Rules of a set.
    pub rules: usize,
    /// Of `POLICY_SETS`.
    pub sets: usize,
    /// Of `POLICY_PEERS`.
    pub peer_rows: usize,
    /// Of `POLICY_PORTS`.
    pub port_rows: usize,
    /// Of `POLICY_RANGES`.
    pub range_rows: usize,
    /// Of `PEERS`.
    pub peers: usize,
    /// Of `CIDRS`.
    pub cidrs: usize,
    /// Of `NODES`.
    pub nodes: u16,
    /// Different peers of policies: of no table, but each address is compared with each of them.
    pub atoms: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            rules: usize::from(MAX_PAGES * PAGE_BITS),
            sets: MAX_SETS as usize,
            peer_rows: MAX_PEER_ROWS as usize,
            port_rows: MAX_PORT_ROWS as usize,
            range_rows: MAX_RANGE_ROWS as usize,
            peers: MAX_PEERS as usize,
            cidrs: MAX_CIDRS as usize,
            nodes: MAX_NODES,
            atoms: MAX_CIDRS as usize,
        }
    }
}

impl Capacity {
    /// What a namespace may have of it if there are so many. Nodes have so many prefixes of `CIDRS`.
    fn share(&self, namespaces: usize, node_prefixes: usize) -> Self {
        let namespaces = namespaces.max(1);
        Self {
            sets: self.sets / namespaces,
            peer_rows: self.peer_rows / namespaces,
            port_rows: self.port_rows / namespaces,
            range_rows: self.range_rows / namespaces,
            cidrs: self.cidrs.saturating_sub(node_prefixes) / namespaces,
            atoms: self.atoms / namespaces,
            ..self.clone()
        }
    }

    /// Takes note that the kernel has room for no more than so many elements of a table.
    pub fn limit(&mut self, table: TableId, most: usize) {
        let size = match table {
            TableId::PolicyPeers => &mut self.peer_rows,
            TableId::PolicyPorts => &mut self.port_rows,
            TableId::PolicyRanges => &mut self.range_rows,
            TableId::Peers => &mut self.peers,
            TableId::Cidrs => &mut self.cidrs,
            _ => return,
        };
        *size = most.min(*size);
    }
}

/// How to bring what is wanted into force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Plan {
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// What is cut off since its policies do not fit.
    pub cut_off: Vec<CutOff>,
    /// How many elements were left out of a table that is full, by table; of `POLICY_PEERS`, addresses that pods were told by DNS.
    pub left_out: BTreeMap<TableId, usize>,
}

impl Plan {
    /// How many of the operations it takes until every pod is judged as is wanted: what comes after the last word of a pod
    /// changes no answer.
    #[must_use]
    pub fn judged(&self) -> usize {
        let is_answer = |op: &Op| !matches!(op, Op::Barrier);
        let words = self.ops.iter().rposition(|op| matches!(op, Op::PodWord { .. })).map_or(0, |at| at + 1);
        // Where no word changes, answers change with what is before the first barrier.
        let rest = self.ops.get(words..).unwrap_or_default();
        words + rest.iter().position(|op| !is_answer(op)).unwrap_or(rest.len())
    }
}

/// Why there is no plan. Nothing has been changed then, and what is in force stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A table is too small for the old content and the new side by side.
    #[error("table {table} would need {needed} entries and has room for {size}: use fewer or simpler policies")]
    Full {
        /// The table.
        table: TableId,
        /// What the change needs while it is being made.
        needed: usize,
        /// What the table holds.
        size: usize,
    },
}

/// What the tables hold, and what the sets in them stand for.
#[derive(Debug, Default)]
pub struct State {
    content: Content,
    sets: BTreeMap<u32, SetInfo>,
    capacity: Capacity,
    former: Former,
    /// What the last plan makes of addresses that pods are told, until somebody takes it.
    view: View,
    has_names: bool,
    /// Whether what is planned is remembered, so that [`State::follow`] can go on from there.
    remembers: bool,
    /// What was planned last.
    in_force: Option<InForce>,
}

/// Sets that are remembered before those not in use are forgotten: a drop may be explained after its set is gone.
const REMEMBERED: usize = 16_384;

impl State {
    /// The state of tables that hold this: all of them, as pinned.
    #[must_use]
    pub fn adopt(capacity: Capacity, content: Content) -> Self {
        Self { content, capacity, ..Self::default() }
    }

    /// The same that remembers what it plans, so that [`State::follow`] can go on from there.
    #[must_use]
    pub fn remembering(self) -> Self {
        Self { remembers: true, ..self }
    }

    /// The tables have room for so much from now on.
    pub fn set_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
    }

    /// The operations that lead from what the tables hold to what they should hold.
    ///
    /// What does not fit is left out: see [`fit`]. Where the new content would fit, but not beside the old one, those who
    /// come last are stopped for as long as the change takes.
    ///
    /// # Errors
    /// There is no way from the one to the other, which is a defect.
    pub fn plan(&mut self, draft: &Draft<'_>) -> Result<Plan, PlanError> {
        let ((kept, refused), wanted, mut left_out) = fit::fit(&self.content, draft, &self.capacity);
        self.in_force = None;
        let mut is_direct = true;
        let Steps { ops, ids, target } = self.steps(&self.content, &wanted).or_else(|error| {
            // Those that come last make room, as few as it takes. Without any set there is nothing that needs room.
            is_direct = false;
            let (mut fits, mut fails) = (0, kept.len() + 1);
            let mut found = None;
            while fits < fails {
                let stay = if fails > kept.len() { kept.len() } else { fits.midpoint(fails) };
                match self.by_way_of(draft, &kept[..stay], &wanted) {
                    Some(steps) => (fits, found) = (stay + 1, Some(steps)),
                    None => fails = stay,
                }
            }
            found.ok_or(error)
        })?;
        let nodes = wanted.nodes.len().saturating_sub(target.peer.nodes.len());
        if nodes > 0 {
            left_out.insert(TableId::Nodes, nodes);
        }
        if wanted.untold > 0 {
            left_out.insert(TableId::PolicyPeers, wanted.untold);
        }
        self.sets.extend(ids.sets.iter().copied().zip(wanted.sets.iter().map(|set| set.info.clone())));
        if self.sets.len() > REMEMBERED {
            self.sets.retain(|id, _| target.sets().contains(id));
        }
        // What pods are told by DNS is not followed: where a rule asks for that everything is planned with each change.
        self.view = View::default();
        self.has_names = draft.has_names();
        if self.has_names {
            let way = Way { old: &self.content, ops: &ops, is_direct, capacity: &self.capacity };
            self.view = View::of(wanted, &ids.sets, target, &way);
        } else if self.remembers && left_out.is_empty() {
            self.in_force = InForce::new(draft, &kept, wanted, ids, refused.values());
        }
        Ok(Plan { ops, cut_off: cut_off(draft, &refused), left_out })
    }

    /// The operations that bring into force what has changed since the last plan, where that is little and the plan was carried out:
    /// see [`follow`]. Nothing if everything has to be planned.
    #[must_use]
    pub fn follow(&mut self, model: &Model, dirty: &Dirty) -> Option<Plan> {
        let mut in_force = self.in_force.take()?;
        let plan = in_force.follow(&self.content, model, dirty, &self.capacity)?;
        let coming =
            plan.ops.iter().filter_map(|op| if let Op::PolicySet { value, .. } = op { Some(value.id) } else { None });
        self.sets.extend(coming.filter_map(|id| Some((id, in_force.info(id)?.clone()))));
        self.in_force = Some(in_force);
        Some(plan)
    }

    fn steps(&self, old: &Content, wanted: &Wanted) -> Result<Steps, PlanError> {
        let (target, ids) = change::target(old, wanted, &self.capacity, &self.former)?;
        Ok(Steps { ops: change::operations(old, &target, &self.capacity)?, ids, target })
    }

    /// Goes to the wanted content by way of one in which only these sets judge anybody, and nothing is new but they. Those that
    /// would miss what is new, and let it pass, judge nobody meanwhile.
    fn by_way_of(&self, draft: &Draft<'_>, stay: &[usize], wanted: &Wanted) -> Option<Steps> {
        let mut stay = stay.to_vec();
        let first = loop {
            let mut first = draft.finish(&stay);
            let whole = Whole::of(&first);
            let old = &self.content.peer;
            first.peers.retain(|addr, _| old.peers.contains_key(addr) && wanted.peers.contains_key(addr));
            first.cidrs.retain(|key, _| {
                first.named.contains(key) || old.cidrs.contains_key(key) && wanted.cidrs.contains_key(key)
            });
            let exposed = whole.exposed(&first);
            if exposed.is_empty() {
                break first;
            }
            let left = stay.iter().enumerate().filter(|(place, _)| !exposed.contains(place));
            stay = left.map(|(_, set)| *set).collect();
        };
        let mut content = self.content.clone();
        let mut ops = halt::halt(&content, &first, stay.is_empty());
        ops.iter().for_each(|op| content.apply(op));
        let more = self.steps(&content, &first).ok()?.ops;
        more.iter().for_each(|op| content.apply(op));
        ops.extend(more);
        let last = self.steps(&content, wanted).ok()?;
        ops.extend(last.ops);
        Some(Steps { ops, ..last })
    }

    /// What the last plan makes of addresses that pods are told, for a [`Teller`].
    #[must_use]
    pub fn take_view(&mut self) -> View {
        std::mem::take(&mut self.view)
    }

    /// Whether sets ask about names, by the last plan.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.has_names
    }

    /// Whether the tables have a set that judges no pod, which a plan for everything takes away.
    #[must_use]
    pub fn has_unused_sets(&self) -> bool {
        self.in_force.as_ref().is_some_and(InForce::has_unused_sets)
    }

    /// Takes note of an operation that was applied.
    pub fn applied(&mut self, op: &Op) {
        if let Op::Node { index, value } = op {
            self.former.note(*index, self.content.peer.nodes.get(index), value);
        }
        self.content.apply(op);
    }

    /// What the tables hold.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The sets that are there and those that operations bring, with what they stand for where that is known.
    #[must_use]
    pub fn sets_with(&self, ops: &[Op]) -> BTreeMap<u32, Option<&SetInfo>> {
        let coming = ops.iter().filter_map(|op| match op {
            Op::PolicySet { index: _, value } if value.id != 0 => Some(value.id),
            _ => None,
        });
        let there = self.content.policy.sets.values().map(|set| set.id);
        there.chain(coming).map(|id| (id, self.set(id))).collect()
    }

    /// What a set stands for, also for some time after it is gone.
    #[must_use]
    pub fn set(&self, id: u32) -> Option<&SetInfo> {
        self.sets.get(&id)
    }

    /// The rule that a bit of a set stands for.
    #[must_use]
    pub fn rule(&self, id: u32, bit: u16) -> Option<&RuleRef> {
        self.set(id)?.rules.get(usize::from(bit))
    }
}

/// From one content to another.
struct Steps {
    ops: Vec<Op>,
    /// The ids of what is wanted.
    ids: Ids,
    /// What the tables hold then.
    target: Content,
}

fn cut_off(draft: &Draft<'_>, refused: &BTreeMap<usize, Why>) -> Vec<CutOff> {
    let judged = draft
        .pods()
        .iter()
        .flat_map(|(slot, pod)| pod.judges().map(|(direction, judge)| (*slot, pod, direction, judge)));
    let cut_off = judged.filter_map(|(slot, pod, direction, judge)| {
        let Judge::Set(set) = judge else { return None };
        Some(CutOff {
            slot,
            pod: pod.local.key.clone(),
            uid: pod.local.uid.clone(),
            direction,
            policies: draft.info(set).policies.clone(),
            why: refused.get(&set)?.clone(),
        })
    });
    cut_off.collect()
}
