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
mod ids;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fairlead_datapath::catalog::TableId;

use crate::compile::policy::{RuleRef, SetInfo, Wanted};
use crate::plan::Op;

pub use content::Content;

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
    /// More rules for one pod than a set can hold.
    #[error(
        "{policies} select one pod for {direction} with {rules} rules together, and {most} is the most: merge rules"
    )]
    TooManyRules {
        /// The policies.
        policies: String,
        /// The direction.
        direction: crate::compile::policy::Direction,
        /// How many rules they have.
        rules: usize,
        /// How many there may be.
        most: usize,
    },
}

/// What the tables hold, and what the sets in them stand for.
#[derive(Debug, Clone, Default)]
pub struct State {
    content: Content,
    sets: BTreeMap<u32, SetInfo>,
}

/// Sets that are remembered before those not in use are forgotten: a drop may be explained after its set is gone.
const REMEMBERED: usize = 16_384;

impl State {
    /// The state of tables that hold this: all of them, as pinned.
    #[must_use]
    pub fn adopt(content: Content) -> Self {
        Self { content, sets: BTreeMap::new() }
    }

    /// The operations that lead from what the tables hold to what they should hold.
    ///
    /// # Errors
    /// The new content does not fit: see [`PlanError`].
    pub fn plan(&mut self, wanted: &Wanted) -> Result<Vec<Op>, PlanError> {
        let (target, infos) = change::target(&self.content, wanted)?;
        let ops = change::operations(&self.content, &target)?;
        self.sets.extend(infos);
        if self.sets.len() > REMEMBERED {
            self.sets.retain(|id, _| target.sets().contains(id));
        }
        Ok(ops)
    }

    /// Takes note of an operation that was applied.
    pub fn applied(&mut self, op: &Op) {
        self.content.apply(op);
    }

    /// What the tables hold.
    #[must_use]
    pub fn content(&self) -> &Content {
        &self.content
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
