//! A small model of what may pass between pods and others, whatever they send in whatever order.

use std::collections::HashMap;
use std::format;
use std::net::IpAddr;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::carry::Landed;
use super::frame::Frame;
use super::message::{L4, Message};
use super::node::Node;
use crate::policy::ALLOW_ALL;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A policy set that allows nothing that anybody sends here.
const NOTHING: u32 = 41;

/// Somebody who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A pod of the node, 0 or 1.
    Pod(u16),
    /// A pod of the other node.
    Far,
    /// A host outside.
    World,
}

impl End {
    const ALL: [Self; 4] = [Self::Pod(0), Self::Pod(1), Self::Far, Self::World];

    fn ip(self, v6: bool) -> IpAddr {
        match self {
            Self::Pod(slot) => Node::pod(slot, v6),
            Self::Far => Node::far_pod(v6),
            Self::World => Node::world(v6),
        }
    }

    /// Of one port each, so that everything that two send each other has one pair of ports.
    fn port(self) -> u16 {
        match self {
            Self::Pod(slot) => 1000 + slot,
            Self::Far => 2000,
            Self::World => 3000,
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|end| *end == self).expect("all are there")
    }

    fn slot(self) -> Option<u16> {
        if let Self::Pod(slot) = self { Some(slot) } else { None }
    }
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// Somebody sends a TCP segment: flags and sequence number.
    Segment(End, End, u8, u32),
    /// Somebody sends a datagram.
    Datagram(End, End),
    /// Somebody sends a piece of a datagram, from 0 to 2, with one of a few identifications.
    Fragment(End, End, usize, u16),
    /// The policy of a pod becomes this: whether it takes anything, and whether it may send anything.
    Police(u16, bool, bool),
    /// Seconds pass.
    Wait(u32),
}

impl Event {
    /// From three bytes: any three are an event.
    #[must_use]
    pub fn of([what, flags, more]: [u8; 3]) -> Self {
        let end = |bits: u8| End::ALL[usize::from(bits & 3)];
        match what >> 6 {
            0 | 1 => Self::Segment(end(what), end(what >> 2), flags & 0x3f, u32::from(more & 3)),
            2 => match what >> 4 & 3 {
                0 => Self::Datagram(end(what), end(what >> 2)),
                piece => Self::Fragment(end(what), end(what >> 2), usize::from(piece) - 1, u16::from(more & 3)),
            },
            _ if what & 0x20 == 0 => Self::Police(u16::from(what & 1), flags & 1 != 0, flags & 2 != 0),
            _ => Self::Wait(u32::from(flags) << (more & 7)),
        }
    }
}

/// The node, and what the model knows.
#[derive(Debug)]
pub struct Judged {
    node: Node,
    /// Addresses of [`End::ALL`]: reading them anew for each packet takes longer than the packet.
    ips: [IpAddr; 4],
    /// What each pod takes, and whether it may send.
    takes: [bool; 2],
    sends: [bool; 2],
    pickup: bool,
    /// Whether a packet that begins a flow has ever passed, by who sent it to whom, for TCP and for UDP.
    opened: [[[bool; 4]; 4]; 2],
    /// First pieces of datagrams, by who sent them to whom and their identification: when, and whether it passed.
    firsts: HashMap<(usize, usize, u16), (u32, bool)>,
    /// The last that each has sent. An earlier one may have lost its place to it.
    last: [Option<(usize, u16)>; 4],
}

impl Judged {
    /// Seconds that later pieces may take (`flow/fragment.rs`).
    const REMEMBERED: u32 = 30;

    /// A node whose pods take and send everything. `pickup`: connections that are older than the tables are picked up.
    #[must_use]
    pub fn new(v6: bool, pickup: bool) -> Self {
        let mut node = Node::new();
        node.policy_set(NOTHING, Some((6, 1)));
        node.host.config.pickup_until = if pickup { u32::MAX } else { 0 };
        Self {
            node,
            ips: End::ALL.map(|end| end.ip(v6)),
            takes: [true; 2],
            sends: [true; 2],
            pickup,
            opened: Default::default(),
            firsts: HashMap::new(),
            last: [None; 4],
        }
    }

    /// Whether policy lets one open something to another, now.
    fn may(&self, from: End, to: End) -> bool {
        let of = |end: End, what: [bool; 2]| end.slot().is_none_or(|slot| what[usize::from(slot)]);
        of(from, self.sends) && of(to, self.takes)
    }

    /// Whether what one sends gets to the other.
    fn passes(&mut self, from: End, to: End, l4: L4) -> (bool, Landed) {
        let message = Message::new(self.ips[from.index()], self.ips[to.index()], l4);
        self.arrives(from, to, &mut message.frame())
    }

    /// Whether a frame that one sends gets to the other.
    fn arrives(&mut self, from: End, to: End, frame: &mut Frame) -> (bool, Landed) {
        let landed = match from.slot() {
            Some(slot) => self.node.pod_sends(slot, frame),
            None => self.node.arrives(frame),
        };
        let passed = match to {
            End::Pod(slot) => landed == Landed::Pod(slot),
            End::Far => matches!(landed, Landed::Node(_)),
            End::World => matches!(landed, Landed::Outside | Landed::Out),
        };
        (passed, landed)
    }

    /// Has it happen.
    ///
    /// # Errors
    /// Something passed that was not judged for it, or did not that was.
    pub fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Wait(seconds) => self.node.host.now = self.node.host.now.saturating_add(seconds),
            Event::Police(slot, takes, sends) => {
                let set = |allowed| if allowed { ALLOW_ALL } else { NOTHING };
                (self.takes[usize::from(slot)], self.sends[usize::from(slot)]) = (takes, sends);
                self.node.police(slot, set(takes), set(sends));
            }
            Event::Segment(from, to, ..) | Event::Datagram(from, to) | Event::Fragment(from, to, ..)
                if from == to || (from.slot().is_none() && to.slot().is_none()) => {}
            Event::Segment(from, to, flags, seq) => {
                let (passed, landed) = self.passes(from, to, L4::TcpAt(from.port(), to.port(), flags, seq));
                let begins = flags & (SYN | ACK) == SYN;
                // A reset may be the end of what the other opened, and is answered by nobody.
                let older = self.pickup || flags & RST != 0;
                self.judge(0, (from, to), begins, older, passed)
                    .map_err(|text| format!("{text}: {flags:#x} from {from:?} to {to:?} is {landed:?}"))?;
            }
            Event::Datagram(from, to) => {
                let (passed, landed) = self.passes(from, to, L4::Udp(from.port(), to.port()));
                // What has the ports of a flow that the other opened is part of that, and judged as that.
                let begins = self.may(from, to) && !self.opened[1][to.index()][from.index()];
                self.judge(1, (from, to), begins, false, passed)
                    .map_err(|text| format!("{text}: a datagram from {from:?} to {to:?} is {landed:?}"))?;
            }
            Event::Fragment(from, to, piece, id) => {
                let mut message =
                    Message::new(self.ips[from.index()], self.ips[to.index()], L4::Udp(from.port(), to.port()));
                message.payload = vec![7; 100];
                let mut frame = message.fragments(48, id).swap_remove(piece);
                let (passed, landed) = self.arrives(from, to, &mut frame);
                self.judge_piece((from, to), piece, id, passed)
                    .map_err(|text| format!("{text}: piece {piece} of {id} from {from:?} to {to:?} is {landed:?}"))?;
            }
        }
        let seed = self.node.host.config.seed;
        let (counted, there) = (self.node.host.flows.counts(), self.node.host.flows.recounted(seed));
        if counted == there { Ok(()) } else { Err(format!("the counts of flows have drifted: {counted:?} {there:?}")) }
    }

    /// A later piece passes only behind its first one, and is judged as the datagram then.
    fn judge_piece(&mut self, ends: (End, End), piece: usize, id: u16, passed: bool) -> Result<(), &'static str> {
        let (from, to) = (ends.0.index(), ends.1.index());
        let begins = self.may(ends.0, ends.1) && !self.opened[1][to][from];
        let now = self.node.host.now;
        if piece == 0 {
            self.firsts.insert((from, to, id), (now, passed));
            self.last[from] = Some((to, id));
            return self.judge(1, ends, begins, false, passed);
        }
        let first = self.firsts.get(&(from, to, id)).filter(|(at, _)| now - at <= Self::REMEMBERED);
        let Some((_, first_passed)) = first else {
            return if passed { Err("it passed, and nobody knows its ports") } else { Ok(()) };
        };
        let is_kept = *first_passed && self.last[from] == Some((to, id));
        self.judge(1, ends, begins && is_kept, false, passed)
    }

    /// What begins a flow passes if and only if policy lets its sender open it. Anything else passes only if the sender may open
    /// something itself, or answers what the other opened and still may, or, with `older`, might have.
    fn judge(
        &mut self,
        table: usize,
        (from, to): (End, End),
        begins: bool,
        older: bool,
        passed: bool,
    ) -> Result<(), &'static str> {
        let may = self.may(from, to);
        let answers = self.may(to, from) && (older || self.opened[table][to.index()][from.index()]);
        if begins {
            self.opened[table][from.index()][to.index()] |= passed;
            return if passed == may { Ok(()) } else { Err("policy is not what decides") };
        }
        self.opened[table][from.index()][to.index()] |= passed && may && table == 1;
        if passed && !may && !answers { Err("it passed, and nothing was judged for it") } else { Ok(()) }
    }

    /// Has everything happen that is in these bytes: the first says of which family and whether connections are picked up.
    ///
    /// # Errors
    /// See [`Judged::happens`].
    pub fn run(input: &[u8]) -> Result<(), String> {
        let Some((first, rest)) = input.split_first() else { return Ok(()) };
        let mut judged = Self::new(first & 1 != 0, first & 2 != 0);
        let (events, _) = rest.as_chunks::<3>();
        let events: Vec<Event> = events.iter().map(|bytes| Event::of(*bytes)).collect();
        events.into_iter().try_for_each(|event| judged.happens(event).map_err(|text| format!("{event:?}: {text}")))
    }
}
