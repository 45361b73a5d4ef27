//! What a program asks of the kernel, as a trait: the programs implement it with maps and helpers, the tests with
//! hash maps and a vector.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::config::{Config, Uplink};
use crate::drop::DropReason;
use crate::flow::{self, Draft, FlowKey, InsertError, Place, Table, Tracked};
use crate::overlay::Outer;
use crate::packet::{self, Packet};
use crate::walk::{self, Action, Inbound, Walk};
use crate::{Addr, Word};
use crate::{peer, policy, service};

/// The kernel under a packet: its bytes, its metadata, the tables, the clock and chance.
///
/// Offsets count from the Ethernet header. Methods take `&self`: the kernel keeps the packet, the walk keeps what it
/// has read of it.
pub trait Kernel: flow::Tables + peer::Tables + policy::Tables + service::Tables {
    /// Length of the packet with its Ethernet header, all segments of an aggregate together.
    fn packet_len(&self) -> u32;

    /// Payload of each segment when the packet is an aggregate (GSO), else 0.
    fn segment_size(&self) -> u32;

    /// Bytes at an offset, or `None` when the packet ends before.
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T>;

    /// Overwrites bytes; false when the packet ends before.
    fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> bool;

    /// Adds a difference (see [`crate::packet::csum`]) to the L4 checksum at an offset, in the way that fits how far
    /// the kernel has computed it. `pseudo`: what changed is part of the pseudo-header. `udp`: zero means no checksum.
    fn adjust_l4_csum(&self, offset: u32, diff: u32, pseudo: bool, udp: bool) -> bool;

    /// Says that an IPv6 header has changed by a difference. A network card may have given the kernel the sum over the
    /// packet's bytes (`CHECKSUM_COMPLETE`), and there is no header checksum to make up for the change, which
    /// `bpf_l4_csum_replace` with a pseudo-header counts on (`inet_proto_csum_replace_by_diff` in net/core/utils.c).
    fn sum_changed(&self, diff: u32);

    /// Cuts the packet to a length.
    fn cut(&self, len: u32) -> bool;

    /// Makes room for so many bytes between the Ethernet header and what follows it.
    fn make_room(&self, bytes: u32) -> bool;

    /// The interface that the program runs on.
    fn ifindex(&self) -> u32;

    /// The interface that the packet came in by, 0 when the node itself made it.
    fn ingress_ifindex(&self) -> u32;

    /// The outside of a packet that came through the tunnel.
    fn outer(&self) -> Option<Outer>;

    /// The packet's mark.
    fn mark(&self) -> u32;

    /// Seconds since boot, by a clock that is cheap to read.
    fn seconds(&self) -> u32;

    /// A random number.
    fn random(&self) -> u32;

    /// The node's settings.
    fn config(&self) -> Option<&Config>;

    /// The addresses of an uplink.
    fn uplink(&self, ifindex: u32) -> Option<&Uplink>;

    /// Whether a socket of the node itself would take packets of a flow's responder to its opener: then the opener's
    /// port is not free to be given to somebody else's flow. `key` holds both ends, `opener_is_a` says which is which.
    fn host_socket(&self, key: &FlowKey, opener_is_a: bool) -> bool;

    /// A word that is not zero once a client outside has been sent to a process of the node as a service's backend.
    fn host_flows(&self) -> Option<&Word>;

    // The stages below are rare or large. A program makes each a function of its own, which the verifier checks once
    // and whose variables are not on the walk's stack; everywhere else they are plain calls.

    /// [`packet::parse`]. Its branches are many, and what it leaves is in memory: as a function of its own it spares the
    /// verifier to follow each of them through the rest of the walk.
    fn parse(&self, w: &mut Walk, ether_type: u16) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        packet::parse(self, &mut w.packet, ether_type)
    }

    /// [`flow::insert_far`].
    fn insert_far(&self, p: &Packet, draft: &mut Draft, host: bool) -> Result<(), InsertError>
    where
        Self: Sized,
    {
        flow::insert_far(self, p.proto, draft, host)
    }

    /// [`flow::create`].
    fn create_flow(&self, w: &mut Walk, new_source: bool) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        flow::create(self, &w.packet, &mut w.draft, new_source)
    }

    /// [`flow::translate_at_uplink`].
    fn translate_flow(&self, w: &mut Walk) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        flow::translate_at_uplink(self, &w.packet, &mut w.draft)
    }

    /// [`flow::track_change`].
    fn track_change(&self, w: &mut Walk, place: Place) -> Tracked
    where
        Self: Sized,
    {
        flow::track_change(self, &w.packet, &mut w.draft, place)
    }

    /// [`walk::look_up`].
    fn look_up(&self, w: &mut Walk, addr: Addr)
    where
        Self: Sized,
    {
        walk::look_up(self, w, addr);
    }

    /// [`walk::choose_backend`].
    fn choose_backend(&self, w: &mut Walk, begins: bool, from: service::From) -> Action
    where
        Self: Sized,
    {
        walk::choose_backend(self, w, begins, from)
    }

    /// [`walk::still_no_service`].
    fn still_no_service(&self, w: &Walk) -> bool
    where
        Self: Sized,
    {
        walk::still_no_service(self, w)
    }

    /// [`walk::answer_neighbour`].
    fn answer_neighbour(&self, w: &mut Walk, slot: u16, arp: bool) -> Action
    where
        Self: Sized,
    {
        walk::answer_neighbour(self, w, slot, arp)
    }

    /// [`walk::open_from_pod`].
    fn open_from_pod(&self, w: &mut Walk, slot: u16) -> Action
    where
        Self: Sized,
    {
        walk::open_from_pod(self, w, slot)
    }

    /// [`walk::open_from_outside`].
    fn open_from_outside(&self, w: &mut Walk) -> Action
    where
        Self: Sized,
    {
        walk::open_from_outside(self, w)
    }

    /// [`walk::open_inbound`].
    fn open_inbound(&self, w: &mut Walk, slot: u16, how: Inbound) -> Action
    where
        Self: Sized,
    {
        walk::open_inbound(self, w, slot, how)
    }

    /// [`walk::judge_again`].
    fn judge_again(&self, w: &mut Walk, place: Place) -> Result<(), DropReason>
    where
        Self: Sized,
    {
        walk::judge_again(self, w, place)
    }

    /// [`flow::forget`].
    fn forget_flow(&self, w: &mut Walk, table: Table)
    where
        Self: Sized,
    {
        flow::forget(self, &mut w.draft, table);
    }

    /// [`policy::decide`].
    fn judge(&self, set: u32, class: u32, proto: u8, port: u16) -> policy::Decision
    where
        Self: Sized,
    {
        policy::decide(self, set, class, proto, port)
    }

    /// [`walk::relate`].
    fn relate_error(&self, w: &mut Walk, leaving: bool) -> Action
    where
        Self: Sized,
    {
        walk::relate(self, w, leaving)
    }
}
