//! Packets: what a header says, how it is changed, and the few packets that the datapath makes itself.

pub mod csum;
mod headers;
mod icmp;
mod mss;
mod neighbour;
mod parse;
mod reset;
mod rewrite;
mod size;
mod stamp;

pub use headers::{ETH_LEN, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP};
pub(crate) use headers::{Ipv4, Ipv6, Macs, Ports};
pub(crate) use icmp::is_answerable;
pub use icmp::{IcmpError, quoted, send_error_v4, send_error_v6, translate_quote};
pub use mss::says_mss;
pub use neighbour::{answer_arp, answer_solicitation};
pub use rewrite::{decrement_ttl, rewrite};
pub(crate) use size::headers_len;

pub use crate::Tuple;
pub use crate::scratch::{Class, Fragment, Packet, Quoted, TcpFlags};

/// The functions of packets that are stages, as a walk enters them.
pub mod stage {
    pub use super::mss::stage::*;
    pub use super::parse::stage::*;
    pub use super::stamp::stage::*;
}
