//! VXLAN between nodes (RFC 7348): what both ends of it have in common.
//!
//! Each node has one device for it, which takes the other end of a packet from the packet's own metadata
//! (`bpf_skb_set_tunnel_key`), so it serves every node and both families. No addresses are learnt or asked for: all
//! devices have one MAC, and what a program or the stack sends has another as its source, since a device drops what comes
//! from its own (`vxlan_set_mac` in drivers/net/vxlan).

use crate::Addr;
use crate::config::Config;
use crate::ifindex::IFINDEX_BASE;
use crate::peer::NodeHop;

/// The interface index of the node's device: chosen when it is made, as a pod's is, so that no table has to say it.
pub const IFINDEX: u32 = IFINDEX_BASE - 1;

/// The network identifier: "fl". Everything else that comes in is somebody else's.
pub const VNI: u32 = 0x666c;

/// The MAC of every node's device.
pub const RECEIVER: [u8; 6] = *b"\x02flvx\x01";

/// The source of every frame inside.
pub const SENDER: [u8; 6] = *b"\x02flvx\x02";

/// What is before the inner packet when the outer one is IPv4: its header, UDP's, VXLAN's and the inner Ethernet header.
pub const OVERHEAD_V4: u32 = 20 + 8 + 8 + 14;

/// The same for IPv6.
pub const OVERHEAD_V6: u32 = 40 + 8 + 8 + 14;

/// The outside of a packet that came through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// Who sent it.
    pub remote: Addr,
    /// Its network identifier.
    pub vni: u32,
}

/// The outer addresses of packets to a node, this node's first: IPv4 where both have it, which costs less.
#[inline(always)]
#[must_use]
pub fn ends(config: &Config, hop: &NodeHop) -> (Addr, Addr) {
    if config.v4 != Addr::UNSPECIFIED && hop.v4 != Addr::UNSPECIFIED {
        (config.v4, hop.v4)
    } else {
        (config.v6, hop.v6)
    }
}

/// The largest IP packet that goes to a node.
#[inline(always)]
#[must_use]
pub fn largest(config: &Config, hop: &NodeHop, v6: bool) -> u32 {
    if !hop.is_tunnelled(v6) {
        return config.mtu;
    }
    let (local, _) = ends(config, hop);
    config.mtu.saturating_sub(if local.is_v4() { OVERHEAD_V4 } else { OVERHEAD_V6 })
}
