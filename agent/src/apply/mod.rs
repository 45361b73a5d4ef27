//! Executing a plan: operations become bytes, runs of them on one table become batches.
//!
//! Order is kept strictly: a batch ends where the table or the kind of the operation changes. The execution may stop
//! anywhere (an error, a killed process) and leaves a prefix of the plan applied, which the planner has made harmless.

mod encode;
mod kernel;
mod store;

pub use encode::{Action, encode};
pub use store::{ApplyError, Store, apply};
