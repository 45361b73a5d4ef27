//! The helpers of the tunnel: what a packet's metadata says to the VXLAN device, and what the device says of a packet.

use core::mem::{size_of, zeroed};

use aya_ebpf::bindings::{__sk_buff, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key};
use fairlead_datapath::kernel::Kernel as _;
use fairlead_datapath::overlay::{self, Outer, RECEIVER, SENDER, VNI};
use fairlead_datapath::peer::NodeHop;
use fairlead_datapath::{Addr, WireV4};

use super::skb::{Skb, words};

const SIZE: u32 = size_of::<bpf_tunnel_key>() as u32;

/// TTL of outer packets: that of the node's own.
const TTL: u8 = 64;

/// Sends a packet through the tunnel.
#[inline(always)]
pub(super) fn send(k: &Skb, hop: &NodeHop) -> Option<i32> {
    // SAFETY: a helper call without pointers.
    address(k, hop).then(|| unsafe { bpf_redirect(overlay::IFINDEX, 0) as i32 })
}

/// Gives a packet the addresses of its tunnel, outside and inside. False if it can't be.
///
/// Outer UDP has a checksum where it is IPv6's, which demands one (RFC 8200 section 8.1); the kernel derives it from the
/// inner one without reading the packet (local checksum offload). Over IPv4 it is zero, as RFC 7348 wants it.
/// The outer packet may be cut: a path between nodes that takes less than the uplink does not swallow packets.
#[inline(always)]
pub(super) fn address(k: &Skb, hop: &NodeHop) -> bool {
    let Some(config) = k.config() else { return false };
    let (local, remote) = overlay::ends(config, hop);
    // SAFETY: plain numbers and unions of them.
    let mut key: bpf_tunnel_key = unsafe { zeroed() };
    key.tunnel_id = VNI;
    key.tunnel_ttl = TTL;
    let flags = if remote.is_v4() {
        key.__bindgen_anon_1.remote_ipv4 = remote.v4().number();
        key.__bindgen_anon_3.local_ipv4 = local.v4().number();
        BPF_F_ZERO_CSUM_TX
    } else {
        key.__bindgen_anon_1.remote_ipv6 = words(remote.hi, remote.lo);
        key.__bindgen_anon_3.local_ipv6 = words(local.hi, local.lo);
        BPF_F_TUNINFO_IPV6
    };
    // SAFETY: a helper call with a struct on the stack and its size.
    k.store(0, &[RECEIVER, SENDER]) && unsafe { bpf_skb_set_tunnel_key(k.raw(), &mut key, SIZE, u64::from(flags)) == 0 }
}

/// The outside of a packet that the VXLAN device took.
#[inline(always)]
pub(super) fn outer(raw: *mut __sk_buff) -> Option<Outer> {
    // SAFETY: plain numbers and unions of them.
    let mut key: bpf_tunnel_key = unsafe { zeroed() };
    // The helper refuses the other family. SAFETY: helper calls with a struct on the stack and its size, which they fill;
    // any bytes are a number.
    let remote = unsafe {
        if bpf_skb_get_tunnel_key(raw, &mut key, SIZE, 0) == 0 {
            Addr::from_v4(WireV4::new(key.__bindgen_anon_1.remote_ipv4))
        } else if bpf_skb_get_tunnel_key(raw, &mut key, SIZE, u64::from(BPF_F_TUNINFO_IPV6)) == 0 {
            let [a, b, c, d] = key.__bindgen_anon_1.remote_ipv6.map(u64::from);
            Addr { hi: a | b << 32, lo: c | d << 32 }
        } else {
            return None;
        }
    };
    Some(Outer { remote, vni: key.tunnel_id })
}
