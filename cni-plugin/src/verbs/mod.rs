//! The verbs of CNI, one file each.

mod add;
mod check;
mod del;
mod gc;
mod status;
mod version;

pub(crate) use add::add;
pub(crate) use check::check;
pub(crate) use del::del;
pub(crate) use gc::gc;
pub(crate) use status::status;
pub(crate) use version::version;
