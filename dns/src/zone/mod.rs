//! Zone data: from objects to names ([`Builder`]), and from names to answers ([`Zone`]).
//!
//! The builder belongs to the one task that reads the objects. The zone is shared by everybody who answers and changes
//! by [`Delta`]s, one service at a time, so that a writer holds it only as long as its change is big. A delta is also
//! what another holder of the same facts needs, such as a table in the kernel.

mod build;
mod facts;
mod index;
mod options;
mod outside;
mod pods;
mod render;
mod reverse;
mod serial;

pub use build::Builder;
pub use facts::{Delta, Facts, Pointer, Srv};
pub use index::{Answer, Zone};
pub use options::{Options, PodMode};
pub use outside::{Outside, OutsideDelta, Outsides, Target};
pub use reverse::address_of;
pub use serial::is_newer;
