//! What the agent tells the programs about the node: `CONFIG` (array of one) and `UPLINKS` (hash by ifindex).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr, WirePort};

/// The one element of `CONFIG`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// The node's IPv4 address, v4-mapped, or `::`. The source of what has to look as if it came from the node.
    pub v4: Addr,
    /// The node's IPv6 address, or `::`.
    pub v6: Addr,
    /// Largest IP packet that pods and the ways between nodes take, in bytes.
    pub mtu: u32,
    /// The mark bit on what was judged and goes to the host's stack.
    pub mark: u32,
    /// First port of the range that translated sources get theirs from, host order.
    pub snat_first: u16,
    /// Number of ports in that range.
    pub snat_count: u16,
    /// Established flows that a pod may have when it has no limit of its own.
    pub max_flows: u32,
    /// New flows a second that a pod may open when it has no limit of its own.
    pub max_rate: u32,
    /// The second (since boot) until which connections that are older than the tables are picked up; 0 for tables that were
    /// taken over from another agent, which know every connection.
    pub pickup_until: u32,
    /// Flows in `CT_ANY` that a pod may have opened, and as many that may be opened to it.
    pub max_open: u32,
    /// By which destinations are spread over the counters in `SHARES`, datagrams and senders over `FRAGS`, and networks over the
    /// buckets of errors: random, or who knows how they are spread could find those of others. It stays as long as `SHARES`.
    pub seed: u32,
    /// Addresses that pods may not open anything to, whatever their policies say; `::` is none.
    pub closed: [Addr; 8],
    /// UDP port of the tunnel between nodes; [`WirePort::NONE`] where there is none.
    pub tunnel_port: WirePort,
    /// Zero.
    pub pad: [u8; 6],
    /// How long flows are remembered.
    pub lifetimes: Lifetimes,
}

/// Seconds that flows live after their last packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Lifetimes {
    /// TCP connections after their handshake.
    pub established: u32,
    /// TCP connections of which one side has closed.
    pub half_closed: u32,
    /// UDP.
    pub udp: u32,
    /// UDP that is answered and in use for longer than a question and its answer take.
    pub udp_stream: u32,
}

impl Lifetimes {
    /// The shortest that any flow has, whatever is set. What was seen more recently lives.
    pub const SHORTEST: u32 = 10;
}

impl Default for Lifetimes {
    /// TCP as kube-proxy sets it, UDP as the kernel's conntrack has it (`nf_conntrack_proto_udp.c`).
    fn default() -> Self {
        Self { established: 86_400, half_closed: 3600, udp: 30, udp_stream: 120 }
    }
}

/// Length of [`Config::closed`].
pub const MAX_CLOSED: usize = 8;

impl Config {
    /// Default of [`Config::mark`]: no bit that kube-proxy (0xc000), Tailscale (0xff0000) or Istio (0x539) uses.
    pub const MARK: u32 = 0x2000_0000;
    /// Default of [`Config::snat_first`]: what is below needs a privilege to be had.
    pub const SNAT_FIRST: u16 = 1024;
    /// Default of [`Config::snat_count`]: all that are not below.
    pub const SNAT_COUNT: u16 = 64_512;
    /// Default of [`Config::max_flows`].
    pub const MAX_FLOWS: u32 = 65_536;
    /// Default of [`Config::max_rate`].
    pub const MAX_RATE: u32 = 50_000;
    /// Default of [`Config::max_open`].
    pub const MAX_OPEN: u32 = 65_536;

    /// Whether a port (as on the wire) is one that a translated source may have.
    #[inline(always)]
    #[must_use]
    pub const fn is_snat_port(&self, port: WirePort) -> bool {
        port.number().wrapping_sub(self.snat_first) < self.snat_count
    }

    /// Whether pods may not open anything to an address. Unused elements are `::`, which is never closed.
    #[inline(always)]
    #[must_use]
    pub fn closes(&self, addr: Addr) -> bool {
        addr != Addr::UNSPECIFIED && self.closed.contains(&addr)
    }

    /// The node's address in the family of another.
    #[inline(always)]
    #[must_use]
    pub const fn address_like(&self, other: Addr) -> Addr {
        if other.is_v4() { self.v4 } else { self.v6 }
    }
}

/// Elements of `UPLINKS`. Each container of somebody else's may have an interface of the node of its own.
pub const MAX_UPLINKS: u32 = 16_384;

/// Value of `UPLINKS`: an interface that leads out of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Uplink {
    /// Check of the interface's index and content: see [`super::reused`].
    pub tag: u32,
    /// [`UplinkFlags`].
    pub flags: u32,
    /// Its IPv4 address, v4-mapped, or `::`: the source of masqueraded packets that leave by it.
    pub v4: Addr,
    /// Its IPv6 address, or `::`.
    pub v6: Addr,
}

flags! {
    /// Bits of [`Uplink::flags`].
    pub struct UplinkFlags {
        /// Other nodes are reached by it. What comes in by others than such, as from containers of somebody else's on this node,
        /// goes to pods by the host's stack: both directions do, or a stateful firewall would see half of it.
        pub const PRIMARY: u32 = 1;
    }
}

super::reused::tagged! { Uplink, of 5 words; }
