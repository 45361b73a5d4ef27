//! Packets: tcx ingress and egress of pods' veths, of uplinks and of the node's VXLAN device, and egress of its device for
//! services. Before kernel 6.6 the same programs run as clsact
//! filters; the return codes are the same.

mod bare;
mod guard;
mod skb;
mod stages;
mod tunnel;

use core::mem::{size_of, zeroed};
use core::ptr::null_mut;

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::trace;
use fairlead_datapath::drop::DropReason;
use fairlead_datapath::kernel::Kernel;
use fairlead_datapath::peer::{Tables as _, is_foreign, side_of};
use fairlead_datapath::svc;
use fairlead_datapath::walk::stage::may_tell;
use fairlead_datapath::walk::{self, Action, Step, Walk};

use crate::maps;
use guard::{decided, decided_at};

pub(crate) use skb::Skb;

/// What a pod sends.
#[classifier]
pub(crate) fn from_pod(ctx: TcContext) -> i32 {
    trace!(&ctx, "from_pod: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let raw: *mut __sk_buff = ctx.skb.skb;
    // A pod's own qdiscs may write what `to_bare` goes by. SAFETY: a field of the context that programs may write.
    unsafe {
        if (*raw).tc_index == bare::SEEN {
            (*raw).tc_index = 0;
        }
    }
    let k = Skb::new(ctx);
    let action = walk::from_pod(&k, w, k.ether_type());
    decided_at(k.ifindex(), act(&k, w, action, true))
}

/// What the host's stack sends to a pod.
#[classifier]
pub(crate) fn to_pod(ctx: TcContext) -> i32 {
    trace!(&ctx, "to_pod: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::to_pod(&k, w, k.ether_type());
    decided_at(k.ifindex(), act(&k, w, action, true))
}

/// What comes to the node from outside.
#[classifier]
pub(crate) fn from_uplink(ctx: TcContext) -> i32 {
    trace!(&ctx, "from_uplink: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::from_uplink(&k, w, k.ether_type());
    act(&k, w, action, false)
}

/// What leaves the node.
#[classifier]
pub(crate) fn to_uplink(ctx: TcContext) -> i32 {
    trace!(&ctx, "to_uplink: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::to_uplink(&k, w, k.ether_type());
    act(&k, w, action, false)
}

/// What comes from other nodes through the tunnel.
#[classifier]
pub(crate) fn from_overlay(ctx: TcContext) -> i32 {
    trace!(&ctx, "from_overlay: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::from_overlay(&k, w, k.ether_type());
    decided(act(&k, w, action, false))
}

/// What the host's stack sends to other nodes through the tunnel. The packet is on its way out already, so what goes to a
/// node passes once it is addressed. Its outside is another packet, which nobody has judged.
#[classifier]
pub(crate) fn to_overlay(ctx: TcContext) -> i32 {
    trace!(&ctx, "to_overlay: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::to_overlay(&k, w, k.ether_type());
    let Step::ToNode(node, _) = action.step() else { return decided(act(&k, w, action, false)) };
    if let Some(config) = k.config() {
        k.remove_mark(config.mark);
    }
    match k.node(node) {
        Some(hop) if tunnel::address(&k, &hop) => decided(TC_ACT_UNSPEC),
        _ => TC_ACT_SHOT,
    }
}

/// What the node itself sends to addresses of services, past the socket hooks. It has the mark where it leaves, by which what
/// else the node sends is told from it.
#[classifier]
pub(crate) fn to_services(ctx: TcContext) -> i32 {
    trace!(&ctx, "to_services: {} bytes on interface {}", ctx.len(), interface(&ctx));
    let Some(w) = maps::walk() else { return TC_ACT_SHOT };
    let k = Skb::new(ctx);
    let action = walk::to_services(&k, w, k.ether_type());
    match action.step() {
        Step::Home => home(),
        Step::Out(_, by) => {
            if let Some(config) = k.config() {
                k.add_mark(config.mark);
            }
            out(&k, by, true)
        }
        Step::Refuse(error, reason) => {
            stages::report(k.raw(), w, reason);
            if may_tell(&k, w) && stages::refuse_as_asked(k.raw(), w, error) { home() } else { TC_ACT_SHOT }
        }
        Step::Drop(reason) => {
            stages::report(k.raw(), w, reason);
            TC_ACT_SHOT
        }
        Step::Ignore => TC_ACT_SHOT,
        // None of the others comes out of this walk.
        _ => {
            stages::report(k.raw(), w, DropReason::Internal);
            TC_ACT_SHOT
        }
    }
}

/// Takes out flows that are over. Attached nowhere: the agent runs it.
#[classifier]
pub(crate) fn sweep(ctx: TcContext) -> i32 {
    let Some(w) = maps::sweep() else { return 0 };
    walk::sweep(&Skb::new(ctx), w) as i32
}

/// The interface that a program runs on, for its log line. Unless the agent asks for those lines when it loads the
/// programs, the verifier finds that they can't be reached and takes them out.
#[inline(always)]
fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: a field of the context.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Carries out what the walk decided. `at_pod`: the interface is the host side of a pod's veth.
#[inline(always)]
fn act(k: &Skb, w: &mut Walk, action: Action, at_pod: bool) -> i32 {
    match action.step() {
        Step::Pass => TC_ACT_UNSPEC,
        Step::Stack => {
            // What another plugin's pods send leaves with the source that that plugin gives it.
            if !(at_pod && is_foreign(k.ifindex()))
                && let Some(config) = k.config()
            {
                k.add_mark(config.mark);
            }
            TC_ACT_UNSPEC
        }
        Step::Home => home(),
        Step::ToPod(slot) => into_pod(k, side_of(k, slot)),
        Step::Answer => into_pod(k, k.ifindex()),
        Step::ToNode(node, v6) => to_node(k, node, v6),
        Step::Out(_, by) => out(k, by, at_pod),
        Step::Refuse(error, reason) => {
            stages::report(k.raw(), w, reason);
            if !may_tell(k, w) || !stages::refuse(k.raw(), w, error) {
                return TC_ACT_SHOT;
            }
            // SAFETY: a helper call without pointers.
            if at_pod { into_pod(k, k.ifindex()) } else { unsafe { bpf_redirect(k.ifindex(), 0) as i32 } }
        }
        Step::Drop(reason) => {
            stages::report(k.raw(), w, reason);
            TC_ACT_SHOT
        }
        Step::Ignore => TC_ACT_SHOT,
    }
}

/// Past the host side of a veth into the pod's namespace: to the receive path of its peer, with no queue in between. On the network
/// of another plugin the frame may be addressed to a bridge, or to another pod.
#[inline(always)]
fn into_pod(k: &Skb, ifindex: u32) -> i32 {
    const PACKET_HOST: u32 = 0;
    if is_foreign(ifindex) {
        // SAFETY: a helper call with the program's context. Where it fails the pod does not take the packet.
        unsafe { bpf_skb_change_type(k.raw(), PACKET_HOST) };
    }
    // SAFETY: a helper call without pointers.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// To the node itself, as what comes in by the device that its own packets to services leave by: with its MAC, as what the node
/// sends there has it anyway.
#[inline(always)]
fn home() -> i32 {
    // SAFETY: a helper call without pointers.
    unsafe { bpf_redirect(svc::IFINDEX, u64::from(BPF_F_INGRESS)) as i32 }
}

/// Out of the node by its routes. A client that came by an uplink is answered by that, if they have no way to it.
#[inline(always)]
fn out(k: &Skb, by: u32, at_pod: bool) -> i32 {
    let by = match by {
        0 if at_pod => return TC_ACT_SHOT,
        0 => k.ifindex(),
        by => by,
    };
    // SAFETY: a helper call; without a next hop the kernel takes that of its route by this interface.
    unsafe { bpf_redirect_neigh(by, null_mut(), 0, 0) as i32 }
}

/// Towards a node: through the tunnel, or out of the uplink to its address, whose MAC the kernel knows or asks for, or to
/// the hop that the routes have.
#[inline(always)]
fn to_node(k: &Skb, node: u16, v6: bool) -> i32 {
    const AF_INET: u32 = 2;
    const AF_INET6: u32 = 10;
    let Some(hop) = k.node(node) else { return TC_ACT_SHOT };
    if hop.is_tunnelled(v6) {
        return tunnel::send(k, &hop).unwrap_or(TC_ACT_SHOT);
    }
    if hop.is_routed(v6) {
        // SAFETY: a helper call; without a next hop it asks the routes.
        return unsafe { bpf_redirect_neigh(hop.ifindex, null_mut(), 0, 0) as i32 };
    }
    // SAFETY: a struct of plain numbers and a union of them.
    let mut next: bpf_redir_neigh = unsafe { zeroed() };
    if v6 {
        next.nh_family = AF_INET6;
        next.__bindgen_anon_1.ipv6_nh =
            [hop.v6.hi as u32, (hop.v6.hi >> 32) as u32, hop.v6.lo as u32, (hop.v6.lo >> 32) as u32];
    } else {
        next.nh_family = AF_INET;
        next.__bindgen_anon_1.ipv4_nh = hop.v4.v4().bits();
    }
    // SAFETY: a helper call with a struct on the stack and its size.
    unsafe { bpf_redirect_neigh(hop.ifindex, &mut next, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}
