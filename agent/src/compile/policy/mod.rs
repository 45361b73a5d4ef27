//! Policies: classes of peers and policy sets of this node's pods.
//!
//! An [`Atom`] is one thing that a policy of this node asks about a peer. Atoms that the same rules name have one number. A
//! class is what the numbers that an address meets mean to the sets; a [`PolicySet`] is the list of rules that judges a pod in a direction, a bit each. Ids come later, from
//! the planner, which knows those in use.
//!
//! [`mod@reference`] says the same as the tables in the plainest way: it is what they are tested against, and what explains
//! a verdict to a person.

mod asked_names;
mod asking;
mod atom;
mod blocks;
mod classifier;
mod coverage;
mod demand;
mod draft;
mod explain;
mod hash;
mod index;
mod judges;
mod numbers;
mod port_names;
mod questions;
pub mod reference;
mod rule_id;
mod rules;
mod set;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod told;
mod told_room;
mod wanted;
pub mod what_if;
mod world;

pub use atom::{Atom, Signature};
pub(super) use classifier::Classifier;
pub use coverage::{audited_coverage, coverage, has_names, with_audited};
pub use demand::Demand;
pub use draft::{Draft, DraftPod, Judge, WantedPod, compile};
pub use explain::{Explanation, Judged, Path, describe, explain, refused};
pub use hash::content_hash;
pub use index::{Change, InTables, Index, NewSet, Stored};
pub use numbers::Hashes;
pub(super) use numbers::Numbers;
pub use rule_id::{RuleId, RuleIds};
pub use rules::{Direction, RuleRef, SetInfo};
pub use set::{Bits, PolicySet};
pub use told::{Met, ToldAtoms};
pub use told_room::ToldRoom;
pub use wanted::{MOST_TOLD_ROWS, Wanted, WantedPeer};
pub use world::World;
pub(super) use world::{claim, is_object_of};
