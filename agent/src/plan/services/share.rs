//! How much of a table a namespace may have, and a Service of it.
//!
//! A namespace may have as much as is left for the others when it has it, and one Service half of that. So whoever takes
//! all that it can get leaves half, the next one a quarter, and after `n` of them there is `1 / 2^n` of the table for the
//! rest: whoever needs no more than half of that fits, in whatever order things happen. What is there stays as the room
//! shrinks, and what needs no more than it has is never refused.

use std::collections::HashMap;
use std::ops::{AddAssign, SubAssign};

use fairlead_datapath::catalog::TableId;
use fairlead_objects::ObjectKey;

use super::state::Port;
use super::{Capacity, Holder, PlanError, Usage};

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.frontends += other.frontends;
        self.slots += other.slots;
        self.backends += other.backends;
        self.ranges += other.ranges;
    }
}

impl SubAssign for Usage {
    fn sub_assign(&mut self, other: Self) {
        self.frontends -= other.frontends;
        self.slots -= other.slots;
        self.backends -= other.backends;
        self.ranges -= other.ranges;
    }
}

impl Port {
    /// What it has of the tables.
    pub(super) fn usage(&self) -> Usage {
        Usage {
            frontends: self.frontends.len() as u32,
            slots: self.blocks.iter().map(|block| block.count().max(1).next_power_of_two()).sum(),
            backends: self.backends.len() as u32,
            ranges: self.ranges.len() as u32,
        }
    }
}

/// What each namespace has of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Holdings(HashMap<String, Usage>);

impl Holdings {
    pub(super) fn of(&self, namespace: &str) -> Usage {
        self.0.get(namespace).copied().unwrap_or_default()
    }

    /// A port came, if it is known whose it is.
    pub(super) fn add(&mut self, port: &Port) {
        if let Some(name) = &port.name {
            *self.0.entry(name.service.namespace.clone()).or_default() += port.usage();
        }
    }

    /// A port went.
    pub(super) fn remove(&mut self, port: &Port) {
        let Some(name) = &port.name else { return };
        if let Some(usage) = self.0.get_mut(&name.service.namespace) {
            *usage -= port.usage();
            if *usage == Usage::default() {
                self.0.remove(&name.service.namespace);
            }
        }
    }
}

/// A Service that changes.
#[derive(Debug)]
pub(super) struct Growth<'a> {
    pub(super) service: &'a ObjectKey,
    /// What it has.
    pub(super) before: Usage,
    /// What it is to have.
    pub(super) after: Usage,
    /// What its namespace has, with that.
    pub(super) namespace: Usage,
    /// What everybody has.
    pub(super) all: Usage,
}

impl Growth<'_> {
    /// Whether it may have that.
    pub(super) fn check(&self, capacity: Capacity) -> Result<(), PlanError> {
        let Capacity { frontends, slots, backends, ranges } = capacity;
        self.table(TableId::Frontends, frontends, |usage| usage.frontends)?;
        self.table(TableId::Slots, slots, |usage| usage.slots)?;
        self.table(TableId::Backends, backends, |usage| usage.backends)?;
        self.table(TableId::SourceRanges, ranges, |usage| usage.ranges)
    }

    fn table(&self, table: TableId, size: u32, of: fn(&Usage) -> u32) -> Result<(), PlanError> {
        let (before, after) = (of(&self.before), of(&self.after));
        if after <= before {
            return Ok(());
        }
        let namespace = of(&self.namespace);
        let others = of(&self.all).saturating_sub(namespace);
        let most = size.saturating_sub(others) / 2;
        let refuse = |holder, needed, most| {
            let service = self.service.clone();
            Err(PlanError::Share { service, table, size, holder, needed, most })
        };
        let of_namespace = namespace.saturating_sub(before) + after;
        if after > most / 2 {
            refuse(Holder::Service, after, most / 2)
        } else if of_namespace > most {
            refuse(Holder::Namespace, of_namespace, most)
        } else {
            Ok(())
        }
    }
}
