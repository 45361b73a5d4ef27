//! Nodes that were reached through the tunnel until a short time ago. Each node takes another way when it comes to know of a
//! reason, so what some still send through the tunnel is accepted for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{HopFlags, NodeHop};

/// How long it is accepted. Agents whose settings changed are restarted one after the other, which takes minutes.
const OVERLAP: Duration = Duration::from_secs(600);

/// The addresses of such nodes, and until when each is one.
#[derive(Debug, Default)]
pub(super) struct Senders(BTreeMap<(Addr, Addr), Instant>);

impl Senders {
    /// Of what an agent before left in force, who may have reached them otherwise since.
    pub(super) fn adopt<'a, I: Iterator<Item = &'a NodeHop>>(hops: I, now: Instant) -> Self {
        Self(hops.filter(|hop| hop.sends()).map(|hop| (key(hop), now + OVERLAP)).collect())
    }

    /// Those that the next plan has to accept, whatever way it takes to them: these, and those that are reached through the
    /// tunnel as it begins.
    pub(super) fn begin<'a, I: Iterator<Item = &'a NodeHop>>(
        &mut self,
        hops: I,
        now: Instant,
    ) -> BTreeSet<(Addr, Addr)> {
        self.0.extend(hops.filter(|hop| is_tunnelled(hop)).map(|hop| (key(hop), now + OVERLAP)));
        self.0.keys().copied().collect()
    }

    /// The plan is in force: of those that are still reached through the tunnel nothing has to be remembered.
    pub(super) fn done<'a, I: Iterator<Item = &'a NodeHop>>(&mut self, hops: I) {
        for hop in hops.filter(|hop| is_tunnelled(hop)) {
            self.0.remove(&key(hop));
        }
    }

    /// Forgets those whose time is over. Whether there was one.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, until| *until > now);
        self.0.len() != before
    }

    /// When the next is over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.0.values().copied().min()
    }
}

fn is_tunnelled(hop: &NodeHop) -> bool {
    hop.flags & (HopFlags::TUNNEL_V4 | HopFlags::TUNNEL_V6) != 0
}

fn key(hop: &NodeHop) -> (Addr, Addr) {
    (hop.v4, hop.v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(number: u8, flags: u32) -> NodeHop {
        let v4 = std::net::IpAddr::from([172, 18, 0, number]).into();
        NodeHop { v4, v6: Addr::UNSPECIFIED, ifindex: 2, flags }
    }

    #[test]
    fn a_node_is_a_sender_for_a_while_after_it_was_reached_through_the_tunnel() {
        let start = Instant::now();
        let (tunnel, direct) = (hop(1, HopFlags::TUNNEL_V6 | HopFlags::SENDS), hop(1, 0));
        let mut senders = Senders::default();
        assert!(senders.begin([&direct, &hop(2, HopFlags::ROUTED_V4)].into_iter(), start).is_empty());
        assert_eq!(senders.begin([&tunnel].into_iter(), start), [key(&tunnel)].into());
        senders.done([&tunnel].into_iter());
        assert_eq!(senders.until(), None, "nothing changes by itself");
        // The next plan reaches it directly.
        assert_eq!(senders.begin([&tunnel].into_iter(), start), [key(&tunnel)].into());
        senders.done([&direct].into_iter());
        let later = start + OVERLAP / 2;
        assert!(!senders.expire(later));
        assert_eq!(senders.begin([&direct].into_iter(), later), [key(&tunnel)].into());
        senders.done([&direct].into_iter());
        assert_eq!(senders.until(), Some(start + OVERLAP));
        assert!(senders.expire(start + OVERLAP));
        assert!(!senders.expire(start + OVERLAP));
        assert!(senders.begin([&direct].into_iter(), start + OVERLAP).is_empty());
    }

    #[test]
    fn what_an_agent_before_accepted_is_accepted_for_a_while() {
        let start = Instant::now();
        let hops = [hop(1, HopFlags::SENDS), hop(2, 0)];
        let mut senders = Senders::adopt(hops.iter(), start);
        assert_eq!(senders.begin(hops.iter(), start), [key(&hops[0])].into());
        assert!(!senders.expire(start) && senders.expire(start + OVERLAP));
    }
}
