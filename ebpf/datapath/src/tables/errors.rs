//! How many errors the walks send in a second: `ERROR_TURNS` (array, memory of the programs) has a bucket for each receiver,
//! `UNSENT` (per CPU) counts what was not sent.
//!
//! A router has to limit them (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)): each costs more than what it is about, and goes
//! to whoever that says it is from. A bucket is one word, the time at which the next error's turn is, as for
//! [bandwidth](super::bandwidth). Each pod, each other node with all that is behind it, and the node itself has one of its own, and
//! each group of networks outside; those outside have one together as well. So nobody outside takes anything from pods or nodes.

use super::bandwidth::Limit;
use super::peer::MAX_NODES;
use super::reused::mixed;
use crate::{Addr, MAX_PODS};

/// Errors to one receiver: a thousand a second, and a thousand at once. The connections of one client to a pod that goes are told
/// of it in the second in which they notice.
pub const TO_ONE: Limit = Limit { rate: 1000, ahead: 1_000_000, paced: 0 };

/// Errors to all receivers outside together. As many as Linux sends in all (`icmp_msgs_per_sec` in net/ipv4/icmp.c).
pub const TO_OUTSIDE: Limit = Limit { rate: 10_000, ahead: 1_000_000, paced: 0 };

/// Groups of networks outside that are told apart.
const NETWORKS: u32 = 1024;

const FIRST_NODE: u32 = MAX_PODS as u32;
const FIRST_NETWORK: u32 = FIRST_NODE + MAX_NODES as u32;

/// Index of the bucket of the node itself.
pub const OWN: u32 = FIRST_NETWORK + NETWORKS;

/// Index of the bucket that all receivers outside share.
pub const OUTSIDE: u32 = OWN + 1;

/// Elements of `ERROR_TURNS`.
pub const TURNS: u32 = OUTSIDE + 1;

/// Index of the bucket of a pod of this node.
#[inline(always)]
#[must_use]
pub const fn of_pod(slot: u16) -> u32 {
    slot as u32
}

/// Index of the bucket of another node and of what is behind it.
#[inline(always)]
#[must_use]
pub const fn of_node(node: u16) -> u32 {
    FIRST_NODE + node as u32
}

/// Index of the bucket of a client outside: those of one network (/24, /64) share it, and networks may. By the seed
/// ([`super::config::Config::seed`]) nobody outside knows which.
#[inline(always)]
#[must_use]
pub const fn of_network(seed: u32, client: Addr) -> u32 {
    let network = if client.is_v4() { client.lo & 0x00ff_ffff_0000_0000 } else { client.hi };
    FIRST_NETWORK + (mixed(mixed(mixed(seed as u64) ^ network)) as u32 & (NETWORKS - 1))
}

/// Who an error goes to: its index in `UNSENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Receiver {
    /// A pod of this node.
    Pod = 0,
    /// The node itself.
    Own = 1,
    /// Another node, or what is behind it.
    Node = 2,
    /// The world outside.
    Outside = 3,
}

impl Receiver {
    /// Each, in the order of its index.
    pub const ALL: [Self; 4] = [Self::Pod, Self::Own, Self::Node, Self::Outside];

    /// The label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Own => "own",
            Self::Node => "node",
            Self::Outside => "outside",
        }
    }
}

/// Elements of `UNSENT`.
pub const RECEIVERS: u32 = Receiver::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn each_has_a_place_of_its_own_and_networks_are_spread_anew_by_each_seed() {
        let mut seen = BTreeSet::new();
        for index in (0..MAX_PODS).map(of_pod).chain((0..MAX_NODES).map(of_node)).chain([OWN, OUTSIDE]) {
            assert!(index < TURNS && seen.insert(index));
        }
        let at = |seed, text: &str| of_network(seed, Addr::from(text.parse::<IpAddr>().unwrap()));
        for (a, b) in [("192.0.2.1", "192.0.2.254"), ("2001:db8::1", "2001:db8::ffff")] {
            assert_eq!(at(1, a), at(1, b));
        }
        for seed in 0..64 {
            let places: BTreeSet<u32> = (0..=255).map(|third| at(seed, &std::format!("198.51.{third}.1"))).collect();
            assert!(places.len() > 150, "{seed}: {}", places.len());
            assert!(places.iter().all(|place| *place < OWN && !seen.contains(place)));
        }
        let together: Vec<_> = (0..4096).filter(|seed| at(*seed, "192.0.2.1") == at(*seed, "203.0.113.1")).collect();
        assert!(together.len() < 40, "{}", together.len());
    }
}
