//! Packets without an Ethernet header, as wireguard's and tun's have none: uplinks like any other, once they have one.
//!
//! The walks count their offsets from that header, and here it is put before the packet. What goes up the stack or to a pod
//! may keep it. A packet on its way out may not: it is sent to its device again, since the kernel takes the header off what
//! is redirected to a device that has none (`__bpf_redirect_no_mac` in net/core/filter.c).

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_change_head};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use fairlead_datapath::kernel::Kernel as _;
use fairlead_datapath::packet::ETH_LEN;
use fairlead_datapath::walk;

use super::act;
use super::skb::Skb;
use crate::maps;

/// `tc_index` of a packet that has been seen on its way out. Nobody else uses the field where no classful qdisc is told to.
pub(super) const SEEN: u32 = 0x666c;

/// What comes to the node from outside.
#[classifier]
pub(crate) fn from_bare(ctx: TcContext) -> i32 {
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let Some(k) = framed(ctx) else { return TC_ACT_SHOT };
    let action = walk::from_uplink(&k, w, k.ether_type());
    act(&k, w, action, false)
}

/// What leaves the node.
#[classifier]
pub(crate) fn to_bare(ctx: TcContext) -> i32 {
    let raw: *mut __sk_buff = ctx.skb.skb;
    // SAFETY: a field of the context that programs may write.
    let seen = unsafe { (*raw).tc_index } == SEEN;
    if seen {
        // SAFETY: as above.
        unsafe { (*raw).tc_index = 0 };
        return TC_ACT_UNSPEC;
    }
    let (Some(w), Some(config)) = (maps::walk(), maps::config()) else { return TC_ACT_SHOT };
    // SAFETY: fields of the context.
    let (mark, ingress) = unsafe { ((*raw).mark, (*raw).ingress_ifindex) };
    // What programs sent here past the stack: the walk would let it pass.
    if mark & config.mark == 0 && ingress != 0 {
        return TC_ACT_UNSPEC;
    }
    let Some(k) = framed(ctx) else {
        // Packets of more than 16 kB get no header. The node's own need none, and those to services have been translated.
        return if mark & config.mark == 0 || ingress == 0 { TC_ACT_UNSPEC } else { TC_ACT_SHOT };
    };
    let action = walk::to_uplink(&k, w, k.ether_type());
    match act(&k, w, action, false) {
        TC_ACT_UNSPEC => {
            // SAFETY: a field of the context that programs may write, and a helper call without pointers.
            unsafe {
                (*k.raw()).tc_index = SEEN;
                bpf_redirect(k.ifindex(), 0) as i32
            }
        }
        other => other,
    }
}

/// The packet with an Ethernet header of zeros and its EtherType.
#[inline(always)]
fn framed(ctx: TcContext) -> Option<Skb> {
    /// Offset of the EtherType.
    const ETHER_TYPE: u32 = ETH_LEN - 2;
    // SAFETY: a helper call with the program's context.
    if unsafe { bpf_skb_change_head(ctx.skb.skb, ETH_LEN, 0) } != 0 {
        return None;
    }
    let k = Skb::new(ctx);
    let ether_type = k.ether_type();
    k.store(ETHER_TYPE, &ether_type).then_some(k)
}
