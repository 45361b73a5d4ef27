//! ARP (RFC 826) and neighbour discovery (RFC 4861) at a pod's veth.
//!
//! A pod has one neighbour, its gateway, and knows it for good. If it asks all the same (somebody flushed its table,
//! or uses arping), the answer is the host side's MAC, whoever it asks for but itself: everything is behind the gateway.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::csum;
use super::headers::{ETH_LEN, ETH_P_IP, ICMPV6, Macs};
use crate::kernel::Kernel;
use crate::peer::Pod;
use crate::scratch::Packet;
use crate::{Addr, WireV4};

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
struct Arp {
    hardware: u16,
    protocol: u16,
    sizes: [u8; 2],
    operation: u16,
    sender_mac: [u8; 6],
    sender: WireV4,
    target_mac: [u8; 6],
    target: WireV4,
}

/// Turns an ARP request of a pod into the answer. False when it is no request that wants one.
#[inline(always)]
pub fn answer_arp<K: Kernel>(k: &K, pod: &Pod) -> bool {
    const REQUEST: u16 = 1_u16.to_be();
    const REPLY: u16 = 2_u16.to_be();
    const ETHERNET: u16 = 1_u16.to_be();
    let Some(arp) = k.load::<Arp>(ETH_LEN) else { return false };
    let (sender, target) = (arp.sender, arp.target);
    let asks = arp.hardware == ETHERNET
        && arp.protocol == ETH_P_IP
        && arp.sizes == [6, 4]
        && arp.operation == REQUEST
        && target != sender
        && Addr::from_v4(target) != pod.v4;
    asks && k.store(
        ETH_LEN,
        &Arp {
            operation: REPLY,
            sender_mac: pod.host_mac,
            sender: target,
            target_mac: arp.sender_mac,
            target: sender,
            ..arp
        },
    ) && k.store(0, &Macs { dst: arp.sender_mac, src: pod.host_mac })
}

/// A neighbour solicitation, or advertisement, with one link-layer address option, from the IPv6 addresses on.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Neighbour {
    src: Addr,
    dst: Addr,
    kind: u8,
    code: u8,
    csum: u16,
    flags: u32,
    target: Addr,
    option: [u8; 2],
    mac: [u8; 6],
}

/// Turns a neighbour solicitation of a pod into the advertisement. False when it is none that wants an answer.
#[inline(always)]
pub fn answer_solicitation<K: Kernel>(k: &K, p: &Packet, pod: &Pod) -> bool {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    /// Router, solicited, override.
    const FLAGS: u32 = 0xe000_0000_u32.to_be();
    const SOURCE_LINK_LAYER: [u8; 2] = [1, 1];
    const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
    const AT: u32 = ETH_LEN + 8;

    if p.icmp_type != SOLICITATION || p.ttl != 255 || p.l4 != ETH_LEN + 40 {
        return false;
    }
    let Some(asked) = k.load::<Neighbour>(AT) else { return false };
    let to_itself = asked.target == pod.v6 || asked.target == asked.src;
    if asked.src == Addr::UNSPECIFIED || to_itself || asked.option != SOURCE_LINK_LAYER {
        return false;
    }
    let mut told = Neighbour {
        src: asked.target,
        dst: asked.src,
        kind: ADVERTISEMENT,
        code: 0,
        csum: 0,
        flags: FLAGS,
        target: asked.target,
        option: TARGET_LINK_LAYER,
        mac: pod.host_mac,
    };
    told.csum = !csum::fold16(sum(&told));
    k.store(AT, &told) && k.store(ETH_LEN + 7, &255_u8) && k.store(0, &Macs { dst: asked.mac, src: pod.host_mac })
}

/// The sum over the message and its pseudo-header (RFC 8200 section 8.1).
#[inline(always)]
fn sum(n: &Neighbour) -> u64 {
    let [a, b, c, d, e, f] = n.mac;
    let words = [
        u16::from_ne_bytes([n.kind, n.code]),
        u16::from_ne_bytes(n.option),
        u16::from_ne_bytes([a, b]),
        u16::from_ne_bytes([c, d]),
        u16::from_ne_bytes([e, f]),
        32_u16.to_be(),
        u16::from(ICMPV6).to_be(),
    ];
    let mut sum = csum::addr_sum(n.src) + csum::addr_sum(n.dst) + csum::addr_sum(n.target) + u64::from(n.flags);
    for word in words {
        sum += u64::from(word);
    }
    sum
}
