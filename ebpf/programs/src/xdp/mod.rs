//! Packets at the driver of an uplink, before the kernel has made an skb of them.

mod buff;
mod stages;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use fairlead_datapath::walk::{self, Step};

pub(crate) use buff::Buff;

use crate::maps;

/// What comes to the node from outside: what is not sent on here meets `from_uplink` next.
#[xdp]
pub(crate) fn xdp_uplink(XdpContext { ctx }: XdpContext) -> u32 {
    let Some(w) = maps::walk() else { return XDP_PASS };
    let k = Buff::new(ctx);
    let Some(ether_type) = k.ether_type() else { return XDP_PASS };
    let action = walk::xdp_uplink(&k, w, ether_type);
    match action.step() {
        // By the interface that it came in by: nothing else is a next hop here.
        Step::ToNode(..) | Step::Out(..) => {
            maps::count_by_xdp();
            XDP_TX
        }
        Step::Drop(reason) => {
            maps::count_drop(reason as u8);
            XDP_DROP
        }
        _ => XDP_PASS,
    }
}

/// In the place of [`xdp_uplink`] while an agent takes over what one before has pinned.
#[xdp]
pub(crate) fn xdp_pass(_: XdpContext) -> u32 {
    XDP_PASS
}
