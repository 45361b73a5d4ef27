//! Scratch memory: what is remembered of a packet while it is on its way. It is the CPU's, since the stack is small, and
//! whoever needs it finds it here: it stands below all that read it.

mod draft;
mod packet;
mod question;
mod walk;

pub use draft::{Counted, Draft};
pub use packet::{Class, Fragment, Packet, TcpFlags};
pub use question::Question;
pub use walk::{Asked, Ends, Quoted, Route, RouteFlags, Walk, Way};
