//! Order of the changes to the tables of services.
//!
//! A change writes new backends, new blocks of slots and new sets of source ranges where nothing refers to them, then
//! replaces the frontends: each replacement is the commit point of that frontend. Backends that left are marked at once, so that UDP flows move; their
//! ids and the old blocks are given out again, and old source ranges deleted, only after a [`super::Op::Barrier`]. On
//! removal the frontend goes first.
//!
//! A Service that does not fit is refused as a whole and keeps what it has; it fits if it needs no more than its
//! [share] of each table.
//!
//! [`State`] is what the tables hold when every plan so far has been applied. When applying fails halfway it is not;
//! then the agent does what it does after a restart: [`State::adopt`] what the tables hold, and plan everything again.

mod adopt;
mod blocks;
mod change;
mod ids;
mod share;
mod state;
#[cfg(test)]
mod tests;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::service::{MAX_BACKENDS, MAX_FRONTENDS, MAX_SLOTS, MAX_SOURCE_RANGES};
use fairlead_objects::ObjectKey;

use super::Op;

pub use crate::compile::services::{Claimant, Contested};
pub use state::State;

/// Numbers of elements of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Of `FRONTENDS`.
    pub frontends: u32,
    /// Of `SLOTS`, a power of two.
    pub slots: u32,
    /// Of `BACKENDS`.
    pub backends: u32,
    /// Of `SOURCE_RANGES`.
    pub ranges: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { frontends: MAX_FRONTENDS, slots: MAX_SLOTS, backends: MAX_BACKENDS, ranges: MAX_SOURCE_RANGES }
    }
}

impl Capacity {
    /// Takes note that the kernel has room for no more than so many elements of a table.
    pub fn limit(&mut self, table: TableId, most: u32) {
        let size = match table {
            TableId::Frontends => &mut self.frontends,
            TableId::SourceRanges => &mut self.ranges,
            _ => return,
        };
        *size = most.min(*size);
    }
}

/// How to bring changes into force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Plan {
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// Services that do not fit. What they had before goes on; they may fit once others have shrunk and the barrier at
    /// the end of this plan has passed.
    pub refused: Vec<(ObjectKey, PlanError)>,
    /// Frontends that were looked at and that more than one service port claims.
    pub contested: Vec<Contested>,
}

/// A change that can't be planned. Nothing of the service has changed, unless it is to keep out clients that it lets in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no room.
    #[error(
        "{service} needs {needed} more entries in table {table}, and fewer of its {size} are free: its previous state \
         stays in force; remove services or endpoints"
    )]
    Full {
        /// The service.
        service: ObjectKey,
        /// The table.
        table: TableId,
        /// Elements that it has.
        size: u32,
        /// Those in use.
        used: u32,
        /// Those that the service needs beside what it has.
        needed: u32,
    },
    /// It would have more than its share.
    #[error(
        "{service} does not fit: {holder} would use {needed} entries of table {table}, and may use {most} of its \
         {size} beside other namespaces: its previous state stays in force; use fewer endpoints and ports, or spread \
         them over namespaces"
    )]
    Share {
        /// The service.
        service: ObjectKey,
        /// The table.
        table: TableId,
        /// Elements that it has.
        size: u32,
        /// Who would have more.
        holder: Holder,
        /// What that would be.
        needed: u32,
        /// What it may be.
        most: u32,
    },
}

impl PlanError {
    /// The table that it is about.
    #[must_use]
    pub fn table(&self) -> TableId {
        match self {
            Self::Full { table, .. } | Self::Share { table, .. } => *table,
        }
    }
}

/// Who has a share of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// One Service.
    Service,
    /// All Services of a namespace.
    Namespace,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Service => "the Service",
            Self::Namespace => "its namespace",
        })
    }
}

/// Elements in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of `FRONTENDS`.
    pub frontends: u32,
    /// Of `SLOTS`, blocks rounded up.
    pub slots: u32,
    /// Of `BACKENDS`.
    pub backends: u32,
    /// Of `SOURCE_RANGES`.
    pub ranges: u32,
}
