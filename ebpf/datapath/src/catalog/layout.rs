//! Layouts as text, made from the types: what `layouts.txt` records.

use std::fmt::Write;
use std::string::String;

use super::TableInfo;
use crate::drop::{DropEvent, EventBudget, MAX_DROP_REASONS, PodDrops};
use crate::scratch::Walk;
use crate::tables::bandwidth::{Bandwidth, Limit, Pace};
use crate::tables::config::{Config, Lifetimes, Uplink, UplinkFlags};
use crate::tables::dns::{DnsFacts, DnsFlags, DnsName, DnsZone, ZoneFlags};
use crate::tables::flow::{End, Flow, FlowFlags, FlowKey, FlowState, FragmentKey, FragmentPorts, Owned, PodFlows};
use crate::tables::peer::{CidrKey, HopFlags, HostSide, NodeHop, Peer, PeerFlags, Pod, PodWord};
use crate::tables::policy::{HitKey, Hits, PeerKey, PolicySet, PortKey, RangeKey, Row, SetFlags};
use crate::tables::port::{Destination, PortSet};
use crate::tables::service::{
    Affinity, AffinityKey, Backend, BackendState, Frontend, FrontendFlags, FrontendKey, NodeAddress, Scope,
    ServiceState, SourceRangeKey,
};
use crate::tables::sock::{MAX_SENDERS, Sender, Senders, SocketMemory};
use crate::{Addr, Long, Tuple, WirePort, WireV4, Word};

/// The text of a table's layout.
pub(super) fn record<K: Layout, V: Layout>(info: &TableInfo, version: u32) -> String {
    let TableInfo { name, kind, key_size: _, value_size: _, elements, flags, version: _ } = info;
    let mut text = std::format!("{name} v{version}: {}, {elements} elements, flags {flags}\n", kind.as_str());
    K::write(&mut text, "key", 0, "");
    V::write(&mut text, "value", 0, "");
    text
}

/// A type that stands in tables.
pub(super) trait Layout {
    /// Writes a line for each field: `name@offset+size: meaning`, and one for each set of bits.
    fn write(out: &mut String, name: &str, offset: usize, meaning: &str);
}

/// The layout of a field, whose type the compiler finds.
fn field<S, F: Layout>(_: fn(&S) -> &F, out: &mut String, name: &str, offset: usize, meaning: &str) {
    F::write(out, name, offset, meaning);
}

fn bits(out: &mut String, name: &str, bits: &[(&str, u64)]) {
    let list: std::vec::Vec<_> = bits.iter().map(|(bit, value)| std::format!("{bit}={value:#x}")).collect();
    let _infallible = writeln!(out, "    {name}: {}", list.join(" "));
}

macro_rules! plain {
    ($($type:ty),+) => {
        $(impl Layout for $type {
            fn write(out: &mut String, name: &str, offset: usize, meaning: &str) {
                let colon = if meaning.is_empty() { "" } else { ": " };
                let _infallible = writeln!(out, "  {name}@{offset}+{}{colon}{meaning}", size_of::<Self>());
            }
        })+
    };
}

plain!(
    u8,
    u16,
    u32,
    u64,
    Word,
    Long,
    WirePort,
    WireV4,
    [Long; 1024],
    [Long; MAX_DROP_REASONS as usize],
    [Sender; MAX_SENDERS],
    [Addr; 8],
    [u8; 3],
    [u8; 4],
    [u8; 5],
    [u8; 6],
    [u8; 16],
    [u64; 4],
    [u64; 8],
    [u64; 20]
);

// Memory of the programs, which is never recorded.
plain!(EventBudget, Walk);

impl Layout for () {
    fn write(_: &mut String, _: &str, _: usize, _: &str) {}
}

/// Describes a struct: each field with what it means, then its sets of bits. A field that is not named does not compile.
macro_rules! layout {
    ($type:ident { $($field:ident: $meaning:literal),+ $(,)? } $($set:literal: $bits:expr;)*) => {
        impl Layout for $type {
            fn write(out: &mut String, name: &str, offset: usize, _: &str) {
                let _every_field = |Self { $($field: _,)+ }: &Self| ();
                $(field(
                    |this: &Self| &this.$field,
                    out,
                    &std::format!("{name}.{}", stringify!($field)),
                    offset + core::mem::offset_of!(Self, $field),
                    $meaning,
                );)+
                $(bits(out, &std::format!("{name}.{}", $set), &$bits);)*
            }
        }
    };
}

impl Layout for Addr {
    fn write(out: &mut String, name: &str, offset: usize, meaning: &str) {
        let colon = if meaning.is_empty() { "" } else { ": " };
        let _infallible =
            writeln!(out, "  {name}@{offset}+{}{colon}{meaning} (v4-mapped, wire order)", size_of::<Self>());
    }
}

impl Layout for Scope {
    fn write(out: &mut String, name: &str, offset: usize, meaning: &str) {
        let word = |scope: Self| -> u64 { zerocopy::transmute!(scope) };
        let nothing = word(Self::forward(0, 0));
        u64::write(out, name, offset, meaning);
        let list = [
            ("OFFSET", word(Self::forward(u32::MAX, 0)) ^ nothing),
            ("COUNT", word(Self::forward(0, u32::MAX)) ^ nothing),
            ("FORWARD", nothing),
            ("REJECT", word(Self::REJECT)),
            ("DROP", word(Self::DROP)),
        ];
        bits(out, name, &list);
    }
}

layout!(FrontendKey {
    addr: "address, or the family's wildcard",
    port: "wire order",
    proto: "IP protocol",
    pad: "zero",
});
layout!(Frontend {
    tag: "check of key and content",
    service: "service port id",
    internal: "clients in the cluster",
    external: "clients outside",
    affinity_seconds: "0: no affinity",
    flags: "bits; from 8 on the source set",
} "flags": FrontendFlags::BITS; "flags": [("SOURCE_SET", u64::from(FrontendFlags::source_set(u32::MAX)))];);
layout!(Backend {
    addr: "endpoint",
    port: "wire order",
    proto: "IP protocol",
    pad: "zero",
    service: "service port id",
    state: "one word",
} "state": [("SERVING", BackendState::SERVING), ("ENDING", BackendState::ENDING), ("GENERATION", BackendState::new(u32::MAX, false).0)];);
layout!(ServiceState { udp_generation: "changes of the UDP frontends" });
layout!(AffinityKey { who: "client or networks", place: "one of its places" });
layout!(Affinity {
    tag: "check of key and content",
    service: "service port id",
    client: "client",
    backend: "backend id",
    generation: "of the backend",
    seen: "second since boot",
    pad: "zero",
});
layout!(SourceRangeKey { prefix_len: "bits", set: "source set", addr: "prefix" });
layout!(Peer {
    tag: "check of key and content",
    class: "class",
    slot: "pod's slot or 65535",
    node: "index in NODES or 65535",
    flags: "bits",
} "flags": PeerFlags::BITS;);
layout!(CidrKey { prefix_len: "bits, 8 of the family", family: "4 or 6", addr: "prefix", pad: "zero" });
layout!(NodeHop { v4: "IPv4", v6: "IPv6", ifindex: "uplink", flags: "bits; from bit 8 on the end of SENDS in units of 16 seconds, 0: none", } "flags": HopFlags::BITS;);
layout!(Pod {
    word: "sets and epoch",
    v4: "IPv4",
    v6: "IPv6",
    max_flows: "0: default",
    max_rate: "0: default",
    pod_mac: "pod's side",
    host_mac: "host's side",
    pad: "zero",
} "word": [
    ("INGRESS", PodWord::new(u32::MAX, 0, 0).0),
    ("EGRESS", PodWord::new(0, u32::MAX, 0).0),
    ("EPOCH", PodWord::new(0, 0, u32::MAX).0),
];);
layout!(HostSide { ifindex: "the key", slot: "pod's slot" });
layout!(Limit { rate: "bytes a second, 0: no limit", ahead: "microseconds", paced: "1: waits at the uplink" });
layout!(Bandwidth { egress: "sent", ingress: "received" });
layout!(Pace { egress: "of what it sends, nanoseconds since boot", ingress: "of what it receives" });
layout!(PolicySet {
    id: "set id",
    pages: "pages of 256 rules",
    flags: "bits",
    content: "hash of its source",
    admin_pages: "pages of the Admin tier",
    pad: "zero",
} "flags": SetFlags::BITS;);
layout!(PeerKey { set: "set id", class: "class", page: "page" });
layout!(PortKey { set: "set id", port: "wire order, 0: any", proto: "IP protocol, 0: others", page: "page" });
layout!(RangeKey {
    prefix_len: "bits, 48 before the port",
    set: "set id",
    page: "page",
    proto: "IP protocol",
    port: "wire order",
});
layout!(HitKey { set: "set id", bit: "rule or 65535" });
layout!(Hits {
    rule: "hash of the rule",
    flows: "flows made",
    denied: "packets dropped",
    last: "second since boot, 0: never",
});
layout!(Row { tag: "check of key and content", pad: "zero", bits: "rule n: bit n % 64 of word n / 64" });
layout!(FlowKey {
    a: "lower end",
    b: "higher end",
    a_port: "wire order",
    b_port: "wire order",
    proto: "IP protocol",
    alternate: "1: another flow's far tuple",
    pad: "zero",
});
layout!(Tuple { src: "source", dst: "destination", sport: "wire order", dport: "wire order", pad: "zero" });
layout!(End { slot: "pod's slot or 65535", node: "index in NODES or 65535" });
layout!(Owned { value: "value", owner: "FlowKey::tag" });
layout!(Flow {
    tag: "check of key and of everything up to other, of which it is a part with NEAR, FAR, MASQUERADE",
    flags: "bits",
    opener: "end",
    responder: "end",
    backend: "backend id or 4294967295",
    service: "service port id",
    opened: "second since boot",
    isn: "sequence number of the opener's SYN, wire order",
    other: "the other entry's tuple, from opener to responder; with MASQUERADE its source port alone, as wanted",
    state: "bits",
    opener_epoch: "epoch",
    responder_epoch: "epoch",
    generation: "of the backend or the UDP frontends",
    acked: "what the opener has acknowledged << 16 | what the responder has: number >> 17 << 1 | 1, 0: unknown",
    claim: "1: a CPU takes it out or replaces it",
    last_stamp: "the opener's last TCP timestamp, 0: none",
    last_seq: "what the responder expects next of the opener, host order",
    aside: "what acknowledges the SYN that was passed on last, host order, 0: none",
    errors: "second << 8 | ICMP errors let through in it",
    seen: "second since boot",
} "flags": FlowFlags::BITS; "state": FlowState::BITS;);
layout!(PodFlows {
    established: "flows in CT_EST that it opened",
    accepted: "flows in CT_EST opened to it",
    outgoing: "flows in CT_ANY that it opened",
    incoming: "flows in CT_ANY opened to it",
    second: "second since boot",
    opened: "flows that it opened in that second"
});
layout!(Destination {
    dst: "receiver",
    src: "source that its packets have",
    port: "receiver's, wire order",
    proto: "IP protocol",
    pad: "zero",
});
layout!(PortSet { words: "port n in use: bit n % 64 of word n / 64" });
layout!(FragmentKey { who: "sender", place: "one of its places" });
layout!(FragmentPorts {
    tag: "check of key and content",
    sport: "wire order",
    dport: "wire order",
    seen: "second since boot",
    datagram: "which one",
});
layout!(Config {
    v4: "node's IPv4",
    v6: "node's IPv6",
    mtu: "bytes",
    mark: "mark of judged packets",
    snat_first: "host order",
    snat_count: "ports",
    max_flows: "flows of a pod",
    max_rate: "new flows of a pod a second",
    pickup_until: "second since boot, 0: never",
    max_open: "flows in CT_ANY of a pod, each way",
    seed: "of the counters in SHARES",
    closed: "addresses closed to pods, up to the first of zeros",
    tunnel_port: "wire order, 0: none",
    pad: "zero",
    lifetimes: "of flows",
});
layout!(Lifetimes {
    established: "seconds, TCP",
    half_closed: "seconds, TCP of which one side has closed",
    udp: "seconds",
    udp_stream: "seconds, answered and in use",
});
layout!(Uplink { tag: "check of key and content", flags: "bits", v4: "IPv4", v6: "IPv6" } "flags": UplinkFlags::BITS;);
layout!(DnsName { words: "wire format, lower case, zeros behind" });
layout!(DnsFacts {
    tag: "check of key and content",
    flags: "bits",
    v4: "A record",
    session: "of the server that said so",
    v6: "AAAA record",
} "flags": DnsFlags::BITS;);
layout!(DnsZone {
    until: "second since boot",
    flags: "bits",
    serial: "of the SOA",
    ttl: "seconds",
    soa_ttl: "seconds",
    server: "pod's slot",
    port: "wire order",
    pad: "zero",
    length: "of the zone's name",
    origin: "its name, wire format, lower case, zeros behind",
} "flags": ZoneFlags::BITS;);
layout!(NodeAddress {
    tag: "check of key and content",
    kinds: "bits",
} "kinds": FrontendFlags::BITS; "kinds": [("BROADCAST", u64::from(NodeAddress::BROADCAST))];);
layout!(SocketMemory {
    service: "service",
    backend: "backend",
    service_port: "wire order",
    backend_port: "wire order",
    pad: "zero",
    last: "backend id << 32 | generation",
});
layout!(Senders { places: "tag, ports of backend and service, backend, service", written: "in all" });
layout!(PodDrops { packets: "by DropReason" });
layout!(DropEvent {
    time: "nanoseconds since boot",
    src: "source",
    dst: "destination",
    sport: "wire order",
    dport: "wire order",
    ifindex: "interface",
    set: "policy set or 0",
    bit: "rule or 65535",
    proto: "IP protocol",
    reason: "DropReason",
});
