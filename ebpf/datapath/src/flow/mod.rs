//! Flows: what was decided for a connection, so that it is decided once.
//!
//! A flow that is not translated has one entry. A translated one has two, one for the tuple on each side: *near* is how
//! its opener sees it (client to service), *far* how its responder does (client to backend). Each carries the tuple of
//! the other, so a packet that meets either is rewritten without another lookup. The far entry is inserted first and
//! only if its place is free, which is what reserves the tuple: whoever would collide gets another source port.
//!
//! Nothing is evicted. Every entry is counted to who has it when it comes and when it goes (`account`), and bounded
//! (`create`, `ports`); what has expired is a miss, and is taken out by who needs its place, or by a sweep.

mod account;
mod change;
mod create;
mod find;
mod fragment;
mod life;
mod pair;
mod ports;
mod reuse;
mod tomb;
mod track;
mod window;

pub use change::put;
pub use find::{At, Place, find, meet, opens};
pub use fragment::resolve as resolve_fragment;
pub use life::{expired, idle_for, is_over, lifetime, outlived};
pub use reuse::keep_port;
pub use tomb::{is_worth_a_reset, outlives_its_pod};
pub use track::{Tracked, keep, pass_aside, track};

pub use crate::scratch::{Counted, Draft};
pub use crate::tables::flow::*;
pub use crate::tables::port::*;

/// The functions of flows that are stages, as a walk enters them.
pub mod stage {
    pub use super::account::stage::*;
    pub use super::create::stage::*;
    pub use super::find::stage::*;
    pub use super::pair::stage::*;
    pub use super::ports::stage::*;
    pub use super::tomb::stage::*;
    pub use super::track::stage::*;
}
