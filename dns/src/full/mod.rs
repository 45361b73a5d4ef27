//! Every answer, made with a complete codec: what [`fast`](crate::fast) leaves alone, and what has to be asked
//! elsewhere. The bytes are the same over UDP and TCP, but for what does not fit into a datagram.

mod decide;
mod external;
mod outcome;
mod records;
mod responder;
mod response;
mod transfer;
mod translate;

pub use self::outcome::{Asking, Outcome, Pending, Short};
pub use self::responder::Responder;
pub use self::response::Response;
pub use self::transfer::{Transfer, TransferError, Transfers};
