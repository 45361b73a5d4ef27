//! One packet at one hook.

use core::cell::{Cell, OnceCell, RefCell};
use core::mem::size_of;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::flows::Flows;
use super::frame::{Frame, Partial};
use super::headers::fold;
use super::hook::{Fate, Hook};
use super::recording::Recorder;
use crate::bandwidth::{Bandwidth, Pace};
use crate::config::{Config, Uplink};
use crate::dns::{DnsAnswer, DnsFacts, DnsName, DnsZone, Question};
use crate::drop::{self, DropReason};
use crate::errors::{RECEIVERS, Receiver, TURNS};
use crate::flow::{self, FlowKey};
use crate::kernel::{Driver, Hop, Kernel, Onward};
use crate::overlay::{self, Outer};
use crate::packet::{ETH_LEN, IcmpError, Tuple, send_error_v4, send_error_v6};
use crate::peer::{NO_SLOT, PeerFlags};
use crate::walk::{self, Action, Step, Walk};
use crate::{Addr, Long, WirePort, Word};
use crate::{peer, policy, service, svc};

/// The tables, the clock and the rest of what a packet meets.
#[derive(Debug)]
pub struct Host {
    /// The tables of services.
    pub services: service::HostTables,
    /// The tables of addresses and pods.
    pub peers: peer::HostTables,
    /// The tables of policy.
    pub policies: policy::HostTables,
    /// What is counted of the rules that are.
    pub hits: RefCell<BTreeMap<policy::HitKey, policy::Hits>>,
    /// The tables of flows.
    pub flows: Flows,
    /// The node's settings.
    pub config: Config,
    /// Its uplinks.
    pub uplinks: HashMap<u32, Uplink>,
    /// Where its routes lead and what that way takes. Nowhere unless said.
    pub onward: Option<(u32, u32)>,
    /// Whether it knows the Ethernet addresses of whoever it sends to.
    pub knows_neighbours: bool,
    /// Sockets of the node: address, port, protocol.
    pub sockets: HashSet<(Addr, WirePort, u8)>,
    /// Whether clients outside have been sent to processes of the node.
    pub host_flows: Word,
    /// The clock, in seconds.
    pub now: u32,
    /// Nanoseconds of the clock's second that are over.
    pub nanos: u64,
    /// What pods may send and receive, by slot.
    pub bandwidth: BTreeMap<u16, Bandwidth>,
    /// How far they have gone with that.
    pub paces: BTreeMap<u16, Pace>,
    /// When the next error to each receiver may be sent; made when the first one is.
    pub(super) turns: OnceCell<Vec<Long>>,
    /// The zone of DNS that is answered here.
    pub zone: DnsZone,
    /// What is at its names.
    pub names: BTreeMap<DnsName, DnsFacts>,
    /// Queries that were answered.
    pub(super) answers: Cell<[u64; DnsAnswer::ALL.len()]>,
    /// Errors that were not sent, by receiver.
    unsent: [Cell<u64>; RECEIVERS as usize],
    /// The next random number, if it is not to be any.
    pub random: Option<u32>,
    /// Bytes of each packet that can be read and written directly.
    pub linear: usize,
    /// Those of this packet.
    reached: Cell<usize>,
    pub(super) chance: Cell<u64>,
    ifindex: u32,
    frame: RefCell<Frame>,
    /// As the last walk has left it.
    pub(super) walk: Walk,
    pub(super) recorder: Option<Recorder>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            services: service::HostTables::default(),
            peers: peer::HostTables::default(),
            policies: policy::HostTables::default(),
            hits: RefCell::default(),
            flows: Flows::default(),
            config: Config::default(),
            uplinks: HashMap::new(),
            onward: None,
            knows_neighbours: true,
            sockets: HashSet::new(),
            host_flows: Word::new(0),
            now: 1000,
            nanos: 0,
            bandwidth: BTreeMap::new(),
            paces: BTreeMap::new(),
            turns: OnceCell::new(),
            zone: DnsZone::default(),
            names: BTreeMap::new(),
            answers: Default::default(),
            unsent: Default::default(),
            random: None,
            linear: usize::MAX,
            reached: Cell::new(usize::MAX),
            chance: Cell::new(1),
            ifindex: 0,
            frame: RefCell::default(),
            walk: Walk::default(),
            recorder: Recorder::begin(),
        }
    }
}

/// Memory as a walk finds it: no field says what a packet would have left there, so whatever takes one for its own is wrong.
fn full_of_others() -> Walk {
    let walk = Walk::read_from_bytes(&[0xa5; size_of::<Walk>()]).expect("it is as large as itself");
    Walk { memory: 0, ..walk }
}

impl Host {
    /// The Ethernet addresses of what goes on from a driver.
    pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 3, 1], [2, 0, 0, 0, 3, 2]];

    /// Has the programs at a hook decide about a packet, and carries out what they do to its bytes, unrecorded.
    pub(super) fn decide(&mut self, hook: Hook, frame: &mut Frame) -> Fate {
        let ether_type = frame.ether_type();
        self.ifindex = match hook {
            Hook::FromPod(slot) | Hook::ToPod(slot) => peer::side_of(self, slot),
            Hook::FromUplink(ifindex) | Hook::ToUplink(ifindex) => ifindex,
            Hook::FromOverlay | Hook::ToOverlay => overlay::IFINDEX,
            Hook::ToServices => svc::IFINDEX,
        };
        self.frame = RefCell::new(core::mem::take(frame));
        self.reached.set(self.linear);
        let mut walk = full_of_others();
        let action = match hook {
            Hook::FromPod(_) => walk::from_pod(self, &mut walk, ether_type),
            Hook::ToPod(_) => walk::to_pod(self, &mut walk, ether_type),
            Hook::FromUplink(_) => walk::from_uplink(self, &mut walk, ether_type),
            Hook::ToUplink(_) => walk::to_uplink(self, &mut walk, ether_type),
            Hook::FromOverlay => walk::from_overlay(self, &mut walk, ether_type),
            Hook::ToOverlay => walk::to_overlay(self, &mut walk, ether_type),
            Hook::ToServices => walk::to_services(self, &mut walk, ether_type),
        };
        let fate = self.carry_out(action, &mut walk);
        self.walk = walk;
        *frame = self.frame.take();
        // What goes to a service is known by it where it leaves.
        let at_foreign = matches!(hook, Hook::FromPod(_) | Hook::ToPod(_)) && peer::is_foreign(self.ifindex);
        if (fate == Fate::Stack && !at_foreign) || (hook == Hook::ToServices && fate == Fate::Out) {
            frame.mark |= self.config.mark;
        }
        fate
    }

    /// Has the program at the driver of an uplink decide about a packet, unrecorded, before anybody else has seen it: what became of
    /// it, if it is not left to [`Hook::FromUplink`].
    pub fn at_driver(&mut self, ifindex: u32, frame: &mut Frame) -> Option<Fate> {
        let ether_type = frame.ether_type();
        self.ifindex = ifindex;
        self.frame = RefCell::new(core::mem::take(frame));
        self.reached.set(self.linear);
        let mut walk = full_of_others();
        let action = walk::xdp_uplink(self, &mut walk, ether_type);
        let fate = self.carry_out(action, &mut walk);
        self.walk = walk;
        *frame = self.frame.take();
        (fate != Fate::Pass).then_some(fate)
    }

    /// Has the program that sweeps run with a request: how many flows stay.
    pub fn sweep(&mut self, request: &[u8]) -> u32 {
        self.frame = RefCell::new(Frame::new(request.to_vec()));
        self.reached.set(usize::MAX);
        let mut walk = full_of_others();
        let left = walk::sweep(self, &mut walk);
        self.walk = walk;
        left
    }

    /// What happens from here on is not to happen in a kernel, and why.
    pub fn record_nothing(&mut self, reason: &str) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.leave_out(reason);
        }
    }

    /// The policy set and the bit that the last packet was dropped by, as the report of that has them.
    #[must_use]
    pub fn explanation(&self, reason: DropReason) -> (u32, u16) {
        let asked = walk::decided(&self.walk, reason);
        (asked.set, asked.bit as u16)
    }

    /// The pod that a drop of the last packet is counted to.
    #[must_use]
    pub fn counted_to(&self, reason: DropReason) -> Option<u16> {
        drop::counted_to(self, reason, self.ifindex, &self.walk)
    }

    /// Errors to a kind of receiver that were not sent, since there were too many.
    #[must_use]
    pub fn unsent(&self, to: Receiver) -> u64 {
        self.unsent[to as usize].get()
    }

    /// DNS queries that were answered.
    #[must_use]
    pub fn answers(&self, answer: DnsAnswer) -> u64 {
        self.answers.get()[answer as usize]
    }

    /// Who the last packet was from and to, as the walk has it; `None` if it could not be read.
    #[must_use]
    pub fn last_tuple(&self) -> Option<Tuple> {
        (self.walk.packet.proto != 0).then_some(self.walk.packet.tuple)
    }

    fn carry_out(&self, action: Action, walk: &mut Walk) -> Fate {
        match action.step() {
            Step::Pass => Fate::Pass,
            Step::Stack => Fate::Stack,
            Step::Home => Fate::Home,
            Step::ToPod(slot) => Fate::ToPod(slot),
            Step::ToNode(node, v6) => {
                assert_eq!(v6, walk.packet.v6 == 1);
                Fate::ToNode(node)
            }
            Step::Out(v6, _) => {
                assert_eq!(v6, walk.packet.v6 == 1);
                Fate::Out
            }
            Step::Answer => Fate::Answer,
            Step::Refuse(error, reason) => {
                walk::count_denied(self, walk, reason);
                if walk::stage::may_tell(self, walk) && self.refuse(walk, error) {
                    Fate::Refused(reason)
                } else {
                    Fate::Drop(reason)
                }
            }
            Step::Drop(reason) => {
                walk::count_denied(self, walk, reason);
                Fate::Drop(reason)
            }
            Step::Ignore => Fate::Ignore,
        }
    }

    fn refuse(&self, walk: &Walk, error: IcmpError) -> bool {
        let packet = &walk.packet;
        // The node takes nothing that comes in from its own address.
        let from = |own| if self.ifindex == svc::IFINDEX { packet.tuple.dst } else { own };
        if packet.v6 == 1 {
            send_error_v6(self, packet, error.pack(), from(self.config.v6))
        } else {
            send_error_v4(self, packet, error.pack(), from(self.config.v4))
        }
    }

    /// The bytes of something at an offset, if they are there and can be had directly.
    fn range(&self, offset: u32, size: usize) -> Option<core::ops::Range<usize>> {
        // As the programs do it, who have to give the verifier a bound.
        let start = (offset & 0x7fff) as usize;
        let end = start + size;
        (end <= self.frame.borrow().bytes.len().min(self.reached.get())).then_some(start..end)
    }
}

impl Driver for Host {
    fn hop(&self, _: &mut Walk, next: Addr, length: u32) -> Option<Hop> {
        // The other node is on the link of the one uplink.
        let (ifindex, mtu) = if next == Addr::UNSPECIFIED { self.onward? } else { (self.ifindex, u32::MAX) };
        (self.knows_neighbours && ifindex == self.ifindex && length <= mtu).then_some(Hop { ifindex, macs: Self::MACS })
    }
}

impl Kernel for Host {
    fn outlived(&self, idle: u32, proto: u8, state: u32) -> bool {
        flow::outlived(self.config(), idle, proto, state)
    }

    fn packet_len(&self) -> u32 {
        self.frame.borrow().bytes.len() as u32
    }

    fn segment_size(&self) -> u32 {
        self.frame.borrow().segment_size
    }

    fn reach(&self, end: u32) {
        self.reached.set(self.reached.get().max(end as usize));
    }

    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let range = self.range(offset, size_of::<T>())?;
        T::read_from_bytes(&self.frame.borrow().bytes[range]).ok()
    }

    fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> bool {
        let Some(range) = self.range(offset, size_of::<T>()) else { return false };
        value.write_to(&mut self.frame.borrow_mut().bytes[range]).is_ok()
    }

    /// `bpf_l4_csum_replace` (net/core/filter.c) and `inet_proto_csum_replace_by_diff` (net/core/utils.c).
    /// No network card gave a sum here.
    fn sum_changed(&self, _: u32) {}

    fn adjust_l4_csum(&self, offset: u32, diff: u32, pseudo: bool, udp: bool) -> bool {
        let mut frame = self.frame.borrow_mut();
        let at = offset as usize;
        let Some(&[high, low]) = frame.bytes.get(at..at + 2) else { return false };
        if offset & 1 != 0 {
            return false;
        }
        let before = u16::from_be_bytes([high, low]);
        if udp && before == 0 {
            return true;
        }
        // The words of a difference are as on the wire.
        let [a, b, c, d] = diff.to_ne_bytes().map(u64::from);
        let diff = (a << 8 | b) + (c << 8 | d);
        let mut after = match (frame.partial, pseudo) {
            (None, _) => !fold(u64::from(!before) + diff),
            (Some(_), true) => fold(u64::from(before) + diff),
            (Some(_), false) => before,
        };
        if udp && after == 0 {
            after = 0xffff;
        }
        frame.bytes[at..at + 2].copy_from_slice(&after.to_be_bytes());
        true
    }

    fn read_into(&self, offset: u32, length: u32, into: &mut [u64; Question::WORDS]) -> bool {
        let frame = self.frame.borrow();
        let start = offset as usize;
        let Some(bytes) = frame.bytes.get(start..start + length as usize) else { return false };
        into.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        true
    }

    /// `bpf_skb_change_tail`, which leaves a checksum that is still to be written (`__bpf_skb_min_len`).
    fn cut(&self, len: u32) -> bool {
        let mut frame = self.frame.borrow_mut();
        let least = frame.partial.map_or(0, |partial| partial.field + 2);
        if (len as usize) < least {
            return false;
        }
        frame.bytes.resize(len as usize, 0);
        frame.segment_size = 0;
        true
    }

    /// `bpf_skb_adjust_room` with `BPF_ADJ_ROOM_MAC`.
    fn make_room(&self, bytes: u32) -> bool {
        let mut frame = self.frame.borrow_mut();
        let (at, bytes) = (ETH_LEN as usize, bytes as usize);
        if frame.bytes.len() < at {
            return false;
        }
        frame.bytes.splice(at..at, core::iter::repeat_n(0, bytes));
        frame.partial = frame.partial.map(|p| Partial { start: p.start + bytes, field: p.field + bytes });
        true
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn ingress_ifindex(&self) -> u32 {
        self.frame.borrow().ingress
    }

    fn has_socket(&self) -> bool {
        !self.frame.borrow().is_remade
    }

    fn route(&self, w: &mut Walk, _: u32) -> Onward {
        let t = if w.way.translate != 0 { &w.draft.target } else { &w.packet.tuple };
        let to = peer::lookup(self, t.dst);
        if to.flags & PeerFlags::SELF != 0 {
            return Onward::NOWHERE;
        }
        if to.slot != NO_SLOT {
            return Onward { ifindex: peer::side_of(self, to.slot), mtu: self.config.mtu };
        }
        self.onward.map_or(Onward::NOWHERE, |(ifindex, mtu)| Onward { ifindex, mtu })
    }

    fn outer(&self) -> Option<Outer> {
        self.frame.borrow().outer
    }

    fn vlan(&self) -> Option<u16> {
        self.frame.borrow().vlan
    }

    fn untag(&self) -> bool {
        self.frame.borrow_mut().vlan = None;
        true
    }

    fn mark(&self) -> u32 {
        self.frame.borrow().mark
    }

    fn seconds(&self) -> u32 {
        self.now
    }

    fn nanoseconds(&self) -> u64 {
        u64::from(self.now) * 1_000_000_000 + self.nanos
    }

    fn depart_at(&self, time: u64) {
        self.frame.borrow_mut().departs = Some(time);
    }

    fn add(&self, word: &Long, by: i64) {
        word.store(word.load().wrapping_add_signed(by));
    }

    fn set_bits(&self, word: &Long, bits: u64) {
        word.store(word.load() | bits);
    }

    fn clear_bits(&self, word: &Long, bits: u64) {
        word.store(word.load() & !bits);
    }

    fn swap_if(&self, word: &Long, old: u64, new: u64) -> bool {
        let found = word.load() == old;
        if found {
            word.store(new);
        }
        found
    }

    fn random(&self) -> u32 {
        if let Some(random) = self.random {
            return random;
        }
        let next = self.chance.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.chance.set(next);
        (next >> 32) as u32
    }

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn uplink(&self, ifindex: u32) -> Option<Uplink> {
        self.uplinks.get(&ifindex).map(|uplink| uplink.sealed(ifindex))
    }

    fn host_flows(&self) -> Option<&Word> {
        Some(&self.host_flows)
    }

    fn bandwidth(&self, slot: u16) -> Option<&Bandwidth> {
        self.bandwidth.get(&slot)
    }

    fn pace(&self, slot: u16) -> Option<&Pace> {
        self.paces.get(&slot)
    }

    fn error_turn(&self, index: u32) -> Option<&Long> {
        let turns = self.turns.get_or_init(|| (0..TURNS).map(|_| Long::new(0)).collect());
        turns.get(index as usize)
    }

    fn count_unsent(&self, to: Receiver) {
        let count = &self.unsent[to as usize];
        count.set(count.get() + 1);
    }

    fn count_hit(&self, key: &policy::HitKey, denied: bool) {
        if let Some(hits) = self.hits.borrow_mut().get_mut(key) {
            *(if denied { &mut hits.denied } else { &mut hits.flows }) += 1;
            hits.last = u64::from(self.now);
        }
    }

    fn dns_zone(&self) -> Option<&DnsZone> {
        Some(&self.zone)
    }

    fn dns_name(&self, name: &DnsName) -> Option<DnsFacts> {
        self.names.get(name).map(|facts| facts.sealed(name.tag()))
    }

    fn count_dns(&self, answer: u32) {
        let mut answers = self.answers.get();
        answers[answer as usize] += 1;
        self.answers.set(answers);
    }

    fn host_socket(&self, key: &FlowKey, opener_is_a: bool) -> bool {
        let opener = key.tuple(opener_is_a);
        self.sockets.contains(&(opener.src, opener.sport, key.proto))
    }
}
