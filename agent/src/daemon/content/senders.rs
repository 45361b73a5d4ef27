//! Nodes that were reached through the tunnel until a short time ago. Each node takes another way when it comes to know of a
//! reason, so what some still send through the tunnel is accepted for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use fairlead_datapath::Addr;
use fairlead_datapath::peer::{HopFlags, NodeHop};

/// Seconds for which it is accepted. Agents whose settings changed are restarted one after the other, which takes minutes.
const OVERLAP: u32 = 600;

/// The addresses of such nodes, and the second (since boot) from which on each is none. The table of nodes has it too, so an
/// agent that is restarted goes on where the one before was.
#[derive(Debug, Default)]
pub(super) struct Senders(BTreeMap<(Addr, Addr), u32>);

impl Senders {
    /// Of what an agent before left in force, who may have reached them otherwise since.
    pub(super) fn adopt<'a, I: Iterator<Item = &'a NodeHop>>(hops: I, now: u32) -> Self {
        let sending = hops.filter(|hop| hop.sends());
        Self(sending.map(|hop| (key(hop), hop.sends_until().unwrap_or(now + OVERLAP))).collect())
    }

    /// Those that the next plan has to accept, whatever way it takes to them, and until when: these, and those that are reached
    /// through the tunnel as it begins.
    pub(super) fn begin<'a, I: Iterator<Item = &'a NodeHop>>(
        &mut self,
        hops: I,
        now: u32,
    ) -> BTreeMap<(Addr, Addr), u32> {
        self.0.extend(hops.filter(|hop| is_tunnelled(hop)).map(|hop| (key(hop), now + OVERLAP)));
        self.0.clone()
    }

    /// The plan is in force: of those that are still reached through the tunnel nothing has to be remembered.
    pub(super) fn done<'a, I: Iterator<Item = &'a NodeHop>>(&mut self, hops: I) {
        for hop in hops.filter(|hop| is_tunnelled(hop)) {
            self.0.remove(&key(hop));
        }
    }

    /// Forgets those whose time is over. Whether there was one.
    pub(super) fn expire(&mut self, now: u32) -> bool {
        let before = self.0.len();
        self.0.retain(|_, until| *until > now);
        self.0.len() != before
    }

    /// In how many seconds the next is over.
    pub(super) fn next(&self, now: u32) -> Option<Duration> {
        self.0.values().min().map(|until| Duration::from_secs(until.saturating_sub(now).into()))
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
        let start = 1000;
        let (tunnel, direct) = (hop(1, HopFlags::TUNNEL_V6 | HopFlags::SENDS), hop(1, 0));
        let until = [(key(&tunnel), start + OVERLAP)].into();
        let mut senders = Senders::default();
        assert!(senders.begin([&direct, &hop(2, HopFlags::ROUTED_V4)].into_iter(), start).is_empty());
        assert_eq!(senders.begin([&tunnel].into_iter(), start), until);
        senders.done([&tunnel].into_iter());
        assert_eq!(senders.next(start), None, "nothing changes by itself");
        // The next plan reaches it directly.
        assert_eq!(senders.begin([&tunnel].into_iter(), start), until);
        senders.done([&direct].into_iter());
        let later = start + OVERLAP / 2;
        assert!(!senders.expire(later));
        assert_eq!(senders.begin([&direct].into_iter(), later), until);
        senders.done([&direct].into_iter());
        assert_eq!(senders.next(later), Some(Duration::from_secs(u64::from(OVERLAP / 2))));
        assert!(senders.expire(start + OVERLAP));
        assert!(!senders.expire(start + OVERLAP));
        assert!(senders.begin([&direct].into_iter(), start + OVERLAP).is_empty());
    }

    #[test]
    fn what_an_agent_before_accepted_is_accepted_for_a_while_that_no_restart_makes_longer() {
        let mut now = 1000;
        let hops = [hop(1, HopFlags::SENDS), hop(2, 0)];
        let mut until = Senders::adopt(hops.iter(), now).begin(hops.iter(), now)[&key(&hops[0])];
        assert_eq!(until, now + OVERLAP, "the agent before reached it so");
        for _ in 0..3 {
            now += OVERLAP / 4;
            let left = [hop(1, HopFlags::SENDS | NodeHop::end(until))];
            let again = Senders::adopt(left.iter(), now).begin(left.iter(), now)[&key(&left[0])];
            assert!((until..until + NodeHop::STEP).contains(&again), "{again}");
            until = again;
        }
        let left = [hop(1, HopFlags::SENDS | NodeHop::end(until))];
        let mut senders = Senders::adopt(left.iter(), now);
        assert!(!senders.expire(now) && senders.expire(until));
    }
}
