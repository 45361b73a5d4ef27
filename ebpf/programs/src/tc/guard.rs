//! What stands behind the programs of pods' interfaces and of the tunnel's device, as a filter of the clsact qdisc: it drops
//! whatever gets there, and nothing does while the program is attached that decides first.
//!
//! A packet that a tcx program has decided on is shown to no filter (`sch_handle_ingress` and `sch_handle_egress` in
//! net/core/dev.c); before tcx, filters are asked in the order of their priority until one decides (`tcf_classify` in
//! net/sched/cls_api.c). So it costs no packet anything.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::peer::is_foreign;
use fairlead_datapath::slot_of;

use crate::maps;

/// Drops what no program has decided on.
#[classifier]
pub(crate) fn fairlead_guard(TcContext { skb }: TcContext) -> i32 {
    let reason = DropReason::NoProgram as u8;
    maps::count_drop(reason);
    // SAFETY: a field of the context.
    if let Some(slot) = slot_of(unsafe { (*skb.skb).ifindex }) {
        maps::count_drop_of(slot, reason);
    }
    TC_ACT_SHOT
}

/// Leaves every packet to whoever comes next: what stands before the programs until a pause begins, and after it, so that the guard
/// can take its place, and give it back, at once.
#[classifier]
pub(crate) fn fairlead_pass(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// What a program answers at an interface that has a guard: passing a packet is a decision there, and never left to who comes
/// next.
#[inline(always)]
pub(super) fn decided(action: i32) -> i32 {
    if action == TC_ACT_UNSPEC { TC_ACT_OK } else { action }
}

/// The same at the interface of a pod. One that another plugin has made has no guard, and what that plugin or others have attached
/// there decides next.
#[inline(always)]
pub(super) fn decided_at(ifindex: u32, action: i32) -> i32 {
    if is_foreign(ifindex) { action } else { decided(action) }
}
