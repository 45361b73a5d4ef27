//! Why a packet was dropped: the number in the maps, the label of the metric and the word in the documentation are one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ifindex::{ifindex_of, slot_of};
use crate::peer::slot_at;
use crate::peer::{NO_SLOT, Tables};
use crate::scratch::Walk;
use crate::{Addr, Long, WirePort};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The label of metrics and the word that `fairlead drops` prints.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc,)+),)+
                }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// A header is cut off or contradicts itself.
    Malformed = 0, "malformed";
    /// Neither IP nor ARP.
    NotIp = 1, "not_ip";
    /// More IPv6 extension headers than the parser follows.
    ExtensionHeaders = 2, "extension_headers";
    /// A pod sent from an address that is not its own.
    SourceAddress = 3, "source_address";
    /// An address that is never forwarded: v4-mapped IPv6, loopback, IPv6 link-local, unspecified; the pods' gateway.
    BadAddress = 4, "bad_address";
    /// Multicast or broadcast, which is not forwarded.
    Multicast = 5, "multicast";
    /// The pod has no policy in force: it is being added or removed.
    Pending = 6, "pending";
    /// Denied by the egress policy of the sending pod.
    EgressPolicy = 7, "egress_policy";
    /// Denied by the ingress policy of the receiving pod.
    IngressPolicy = 8, "ingress_policy";
    /// A later fragment of a datagram whose first fragment was not seen.
    Fragment = 9, "fragment";
    /// The service has endpoints, but none that this client may use (traffic policy Local).
    NoEndpoint = 10, "no_endpoint";
    /// A TCP segment to a service that is part of no known connection.
    NoFlow = 11, "no_flow";
    /// The pod has reached its limit of flows.
    FlowLimit = 12, "flow_limit";
    /// The pod exceeds its rate of new flows.
    FlowRate = 13, "flow_rate";
    /// The flow table is full.
    FlowTableFull = 14, "flow_table_full";
    /// No source port was free for the translation.
    NoSourcePort = 15, "no_source_port";
    /// No pod has this address; the sender gets ICMP host unreachable.
    NoSuchPod = 16, "no_such_pod";
    /// The TTL has expired; the sender gets ICMP time exceeded.
    TtlExceeded = 17, "ttl_exceeded";
    /// Larger than the MTU and must not be fragmented; the sender gets ICMP packet too big.
    TooLarge = 18, "too_large";
    /// A table entry changed while it was read, twice in a row.
    Race = 19, "race";
    /// The kernel refused to rewrite the packet.
    Rewrite = 20, "rewrite";
    /// The service has no endpoints, or no service has this port of a cluster address; the sender gets a TCP reset or ICMP port unreachable.
    Rejected = 21, "rejected";
    /// The client is not in the service's `loadBalancerSourceRanges`.
    SourceRange = 22, "source_range";
    /// A VXLAN packet from a node that is not reached through the tunnel, or with another VNI than Fairlead's.
    Tunnel = 23, "tunnel";
    /// A program did not find its own memory or tables: a bug in Fairlead. Please report it.
    Internal = 24, "internal";
    /// A frame that a pod tagged for a VLAN (802.1Q): pods are on none.
    Vlan = 25, "vlan";
    /// More ICMP errors per second about one flow than any path causes.
    ErrorRate = 26, "error_rate";
    /// The pod, or the network that the client is in, has used up its share of the source ports for one destination.
    PortShare = 27, "port_share";
    /// The source address is that of a pod or of this node, but the packet came in where that one is not.
    LocalAddress = 28, "local_address";
    /// The flow belongs to an earlier pod that had this pod's slot.
    OtherPod = 29, "other_pod";
    /// A pod's packet that would leave the node with the pod's address, because its flow is gone.
    Untranslated = 30, "untranslated";
    /// Neither the outgoing interface nor the node has an address of the packet's family to masquerade with.
    NoAddress = 31, "no_address";
    /// Two packets opened one flow at once, or the flow was removed meanwhile; a retransmission passes.
    FlowRace = 32, "flow_race";
    /// A TCP segment that begins no connection and is part of none: neither SYN nor ACK nor RST.
    NoConnection = 33, "no_connection";
    /// An ICMP error that matches no packet of its receiver, or does not come from where that packet went.
    NotAsked = 34, "not_asked";
    /// A packet for the tunnel to an address that is behind no node.
    NoSuchNode = 35, "no_such_node";
    /// The program of a pod's interface or of the tunnel's is missing: nothing passes until the agent has restored it.
    NoProgram = 36, "no_program";
    /// The tables have no room for the pod's policies, for good or while others change: nothing passes in that direction.
    CutOff = 37, "cut_off";
    /// Part of a connection to a pod that is gone; the sender gets a TCP reset.
    Gone = 38, "gone";
    /// The pod sends or receives more than its bandwidth annotations allow.
    Bandwidth = 39, "bandwidth";
    /// The address of a metadata service, which the setting `metadata.access` closes to pods; the sender gets a TCP reset or
    /// ICMP port unreachable.
    Metadata = 40, "metadata";
    /// A packet from a pod, or from a client of a Service, to the UDP port of the tunnel at an address that is not a pod's.
    TunnelPort = 41, "tunnel_port";
    /// The flow tables fill up, and the pod, or the outside as a whole, has as many flows as are left for everybody else.
    FlowShare = 42, "flow_share";
    /// A VXLAN packet whose inner source is not behind the host that sent it, or that host is no node.
    TunnelSource = 43, "tunnel_source";
}

/// Size of the `DROPS` array: there is room for reasons to come, so that a new one changes no layout.
pub const MAX_DROP_REASONS: u32 = 64;

const _: () = {
    let mut index = 0;
    while index < DropReason::ALL.len() {
        assert!((DropReason::ALL[index] as u32) < MAX_DROP_REASONS, "DROPS has no room for this reason");
        index += 1;
    }
};

/// Element of `POD_DROPS`: packets of and for one pod that were dropped, by reason. CPUs add to one number: it is the pod that
/// is refused that waits, and with a number for each CPU the table would grow with them (2 MiB each).
#[derive(Debug)]
#[cfg_attr(any(test, feature = "host"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct PodDrops {
    /// By [`DropReason`].
    pub packets: [Long; MAX_DROP_REASONS as usize],
}

impl Default for PodDrops {
    fn default() -> Self {
        Self { packets: [const { Long::new(0) }; MAX_DROP_REASONS as usize] }
    }
}

/// The pod that a drop is counted to: whose ingress policy it was, else whose interface it is, else the one that the packet was
/// for. Ingress policy is that of the responder, which sent the packet where that is an answer, and has another address than the
/// packet where that is for a Service.
#[inline(always)]
pub fn counted_to<T: Tables>(tables: &T, reason: DropReason, ifindex: u32, w: &Walk) -> Option<u16> {
    let by_ingress = matches!(reason, DropReason::IngressPolicy);
    if !by_ingress && let Some(slot) = slot_at(tables, ifindex) {
        return Some(slot);
    }
    let dst = if by_ingress { &w.ends.responder } else { &w.packet.tuple.dst };
    let receiver = tables.peer(dst).filter(|peer| peer.slot != NO_SLOT && peer.is_of(dst.tag()));
    receiver.map(|peer| peer.slot)
}

/// Whose samples a drop is among that is counted to a pod: those of the interface, or, at one that others share, those of the pod.
/// So whoever sends much to one pod does not hide what others lose there.
#[inline(always)]
#[must_use]
pub const fn sampled_as(ifindex: u32, slot: u16) -> u32 {
    if slot_of(ifindex).is_some() { ifindex } else { ifindex_of(slot) }
}

/// Element of `EVENT_BUDGET`: what a CPU has sent samples of, in all and for each interface. So whoever has packets dropped all the
/// time is seen, and others are too.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EventBudget {
    /// The second (since boot) that `sent` is about.
    pub second: u32,
    /// Samples sent in it.
    pub sent: u32,
}

impl EventBudget {
    /// Elements: that of all, and those that interfaces share, neighbours in their numbers none.
    pub const ELEMENTS: u32 = 256;
    /// The element of all.
    pub const ALL: u32 = 0;
    /// Samples in a second.
    pub const OF_ALL: u32 = 64;
    /// Of one interface.
    pub const OF_ONE: u32 = Self::OF_ALL / 4;

    /// The element of an interface.
    #[inline(always)]
    #[must_use]
    pub const fn of(ifindex: u32) -> u32 {
        1 + ifindex % (Self::ELEMENTS - 1)
    }
}

/// Element of the `EVENTS` ring buffer: one dropped packet, sampled when there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DropEvent {
    /// Nanoseconds since boot.
    pub time: u64,
    /// Source as the packet had it when it was dropped.
    pub src: Addr,
    /// Destination as the packet had it: a service's has been translated by then.
    pub dst: Addr,
    /// Source port.
    pub sport: WirePort,
    /// Destination port.
    pub dport: WirePort,
    /// Interface that the program runs on.
    pub ifindex: u32,
    /// Policy set that decided, 0 when none did.
    pub set: u32,
    /// Bit of that set that decided, `u16::MAX` when none did.
    pub bit: u16,
    /// IP protocol number.
    pub proto: u8,
    /// [`DropReason`].
    pub reason: u8,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{DropReason, counted_to, sampled_as};
    use crate::peer::{HostTables, NO_NODE, NO_SLOT, Peer};
    use crate::scratch::Walk;
    use crate::{Addr, ifindex_of};

    #[test]
    fn a_drop_is_counted_to_whose_policy_it_was_else_to_the_pod_at_the_interface_else_to_the_receiver() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        let (local, elsewhere, outside) = (addr("10.244.1.2"), addr("10.244.2.2"), addr("192.0.2.1"));
        let mut tables = HostTables::default();
        for (addr, slot) in [(local, 7), (elsewhere, NO_SLOT)] {
            tables.peers.insert(addr, Peer { tag: 0, class: 0, slot, node: NO_NODE, flags: 0 }.sealed(addr.tag()));
        }
        let (pod, uplink) = (ifindex_of(3), 2);
        for (reason, ifindex, dst, whose) in [
            (DropReason::EgressPolicy, pod, local, Some(3)),
            (DropReason::SourceAddress, pod, outside, Some(3)),
            (DropReason::IngressPolicy, pod, local, Some(7)),
            (DropReason::IngressPolicy, uplink, local, Some(7)),
            (DropReason::IngressPolicy, ifindex_of(7), local, Some(7)),
            (DropReason::Bandwidth, uplink, local, Some(7)),
            (DropReason::NoFlow, uplink, outside, None),
            (DropReason::IngressPolicy, pod, elsewhere, None),
        ] {
            let mut w = Walk::default();
            w.packet.tuple.dst = dst;
            w.ends.responder = dst;
            assert_eq!(counted_to(&tables, reason, ifindex, &w), whose, "{reason:?} at {ifindex} for {dst}");
            let Some(slot) = whose else { continue };
            let sampled = if ifindex == uplink { ifindex_of(slot) } else { ifindex };
            assert_eq!(sampled_as(ifindex, slot), sampled, "{reason:?} at {ifindex} for {dst}");
        }
        let other = tables.peers[&local];
        tables.peers.insert(outside, other);
        let mut w = Walk::default();
        w.packet.tuple.dst = outside;
        assert_eq!(counted_to(&tables, DropReason::NoFlow, uplink, &w), None, "of another address");
    }
}
