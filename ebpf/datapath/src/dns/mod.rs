//! Answers of the cluster's DNS, in place of the node's server: to plain questions for addresses in the cluster's zone.
//!
//! What is said is what the server would say, byte for byte (`fast` in fairlead-dns). [`question`] reads a query and finds what
//! there is to say, [`response`] turns the packet into the response. Whatever is not sure goes on to the server.

mod question;
mod response;

pub use question::find;
pub use response::respond;

pub use crate::scratch::Question;
pub use crate::tables::dns::{
    DnsAnswer, DnsFacts, DnsFlags, DnsName, DnsZone, LONGEST_NAME, LONGEST_ZONE, MAX_DNS_NAMES, ZoneFlags,
};

/// The port of DNS.
pub const PORT: u16 = 53;

/// Length of a message's header.
const HEADER: u32 = 12;
/// Type and class of a question.
const TYPE_AND_CLASS: u32 = 4;
/// Length of an OPT record without options.
const OPT: u32 = 11;

/// Bits of a header's flags.
mod flags {
    pub(super) const RESPONSE: u16 = 1 << 15;
    pub(super) const OPCODE: u16 = 0xf << 11;
    pub(super) const AUTHORITATIVE: u16 = 1 << 10;
    pub(super) const TRUNCATED: u16 = 1 << 9;
    pub(super) const RECURSION_DESIRED: u16 = 1 << 8;
    pub(super) const RECURSION_AVAILABLE: u16 = 1 << 7;
    pub(super) const CHECKING_DISABLED: u16 = 1 << 4;
}
