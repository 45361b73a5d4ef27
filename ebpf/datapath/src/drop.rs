//! Why a packet was dropped: the number in the maps, the label of the metric and the word in the documentation are one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, WirePort};

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
    /// A pod sent from a foreign address, or a local pod's or node's address came in from outside.
    SourceAddress = 3, "source_address";
    /// An address that no router forwards: v4-mapped IPv6, loopback, link-local, unspecified.
    BadAddress = 4, "bad_address";
    /// Multicast or broadcast, which is not forwarded.
    Multicast = 5, "multicast";
    /// The pod has no policy in force yet, is being removed, or is not the one that the flow was for.
    Pending = 6, "pending";
    /// Denied by the egress policy of the sending pod.
    EgressPolicy = 7, "egress_policy";
    /// Denied by the ingress policy of the receiving pod.
    IngressPolicy = 8, "ingress_policy";
    /// A later fragment of a datagram whose first fragment was not seen.
    Fragment = 9, "fragment";
    /// The service has endpoints, but none that this client may use (traffic policy Local).
    NoEndpoint = 10, "no_endpoint";
    /// Part of an unknown TCP connection to a service, or a pod's packet that would leave untranslated.
    NoFlow = 11, "no_flow";
    /// The pod has reached its limit of established flows.
    FlowLimit = 12, "flow_limit";
    /// The pod exceeds its rate of new flows.
    FlowRate = 13, "flow_rate";
    /// The flow table is full.
    FlowTableFull = 14, "flow_table_full";
    /// No source port was free for the translation, or the interface has no address to translate to.
    NoSourcePort = 15, "no_source_port";
    /// No pod has this address; the sender gets ICMP host unreachable.
    NoSuchPod = 16, "no_such_pod";
    /// The TTL has expired; the sender gets ICMP time exceeded.
    TtlExceeded = 17, "ttl_exceeded";
    /// Larger than the MTU and must not be fragmented; the sender gets ICMP packet too big.
    TooLarge = 18, "too_large";
    /// A table entry changed while it was read, twice in a row, or two packets opened one flow at once.
    Race = 19, "race";
    /// The kernel refused to rewrite the packet.
    Rewrite = 20, "rewrite";
    /// The service has no endpoints; the sender gets a TCP reset or ICMP port unreachable.
    Rejected = 21, "rejected";
    /// The client is not in the service's `loadBalancerSourceRanges`.
    SourceRange = 22, "source_range";
    /// A VXLAN packet not sent by a node of the cluster, or whose inner source is not behind that node.
    Tunnel = 23, "tunnel";
    /// A program did not find its own memory or tables: a fault of Fairlead. Please report it.
    Internal = 24, "internal";
    /// A frame that a pod tagged for a VLAN (802.1Q): pods are on none.
    Vlan = 25, "vlan";
    /// More ICMP errors about one flow in a second than any path gives rise to.
    ErrorRate = 26, "error_rate";
    /// The program of a pod's interface is missing, or of the tunnel's: nothing passes until the agent has put it back.
    NoProgram = 36, "no_program";
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

/// Element of `EVENT_BUDGET`: what a CPU has sent samples of.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EventBudget {
    /// The second (since boot) that `sent` is about.
    pub second: u32,
    /// Samples sent in it.
    pub sent: u32,
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
