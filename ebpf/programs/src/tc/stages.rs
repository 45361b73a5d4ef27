//! What the verifier checks once, whoever calls it: the stages of walks, and what is rare and only a program does.

use core::mem::{size_of, zeroed};

use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
};
use aya_ebpf::helpers::generated::{bpf_check_mtu, bpf_fib_lookup, bpf_ktime_get_ns};
use fairlead_datapath::Addr;
use fairlead_datapath::drop::{DropEvent, DropReason, counted_to, sampled_as};
use fairlead_datapath::flow::stage::{
    Admit, AimAtPort, AimFar, Bury, BuryOne, Count, CountIn, Create, FindFreePort, Forget, Look, Note, NoteLast,
    Paired, PutBack, PutIn, Replace, Reserve, Stands, Stays, TakeLoser, TakeOut, TrackChange, TranslateAtUplink,
};
use fairlead_datapath::flow::{self, Counted, Entry, Flow, FlowKey};
use fairlead_datapath::kernel::{Kernel as _, Onward};
use fairlead_datapath::packet::stage::{Behind, ClampMss, Parse, PayloadLen, ReadStamp};
use fairlead_datapath::packet::{IcmpError, send_error_v4, send_error_v6};
use fairlead_datapath::policy::{self, Common, Outcome, PortKey};
use fairlead_datapath::register::Register;
use fairlead_datapath::walk::stage::{
    AnswerNeighbour, CameByNodes, ChooseBackend, CountOpened, Decide, End, FindAnswer, GiveAnswer, GiveWay, HandOver,
    JudgeAgain, Leave, LetIn, LetPast, LookUp, MayTell, MetTunnel, OpenFromNode, OpenFromOutside, OpenFromPod,
    OpenInbound, PartOfSyn, Pass, ReadQuote, Relate, StillNoService, TakeTurn, TranslateError,
};
use fairlead_datapath::walk::{Walk, count_denied, decided};

use super::skb::Skb;
use crate::maps::{self, Maps};
use crate::stages::{resume, stages};

stages! {
    Skb, __sk_buff;
    Parse => tc_parse with packet(ether_type);
    Behind => tc_behind with packet(next, offset);
    ClampMss => tc_clamp_mss with packet(mtu);
    Look => tc_look with tables(from_a, opens);
    Create => tc_create with packet(new_source);
    TranslateAtUplink => tc_translate_at_uplink with packet();
    AimFar => tc_aim_far with packet(host);
    Stays => tc_stays with tables();
    Paired => tc_paired with tables(table);
    Admit => tc_admit with tables();
    Reserve => tc_reserve with packet(new_source);
    AimAtPort => tc_aim_at_port with packet(round, host);
    FindFreePort => tc_find_free_port with tables(from);
    ReadStamp => tc_read_stamp with packet();
    PayloadLen => tc_payload_len with packet();
    PutIn => tc_put_in with tables(table, which);
    Replace => tc_replace with tables(table, which);
    Count => tc_count with tables(table, change);
    CountIn => tc_count_in with tables(table, which);
    TakeLoser => tc_take_loser with tables(table, which);
    PutBack => tc_put_back with tables(table, which);
    TakeOut => tc_take_out with tables(table, which);
    Forget => tc_forget with tables(table);
    Note => tc_note with tables(table, before, state);
    End => tc_end with packet(table, over, at);
    Bury => tc_bury with tables(table, slot);
    BuryOne => tc_bury_one with tables(table, slot, which);
    NoteLast => tc_note_last with packet(place);
    Stands => tc_stands with tables(place);
    TrackChange => tc_track_change with packet(place);
    LookUp => tc_look_up with tables(whose);
    ChooseBackend => tc_choose_backend with tables(begins, from);
    StillNoService => tc_still_no_service with tables();
    Decide => tc_decide with tables(set, class, out);
    CountOpened => tc_count_opened with tables();
    JudgeAgain => tc_judge_again with tables(place);
    Leave => tc_leave with tables(place);
    MetTunnel => tc_met_tunnel with tables(place);
    PartOfSyn => tc_part_of_syn with packet(place);
    AnswerNeighbour => tc_answer_neighbour with packet(slot, arp);
    HandOver => tc_hand_over with packet();
    FindAnswer => tc_find_answer with packet(port);
    GiveAnswer => tc_give_answer with packet();
    GiveWay => tc_give_way with packet(slot);
    OpenFromPod => tc_open_from_pod with packet(slot);
    OpenFromOutside => tc_open_from_outside with packet();
    OpenFromNode => tc_open_from_node with packet();
    OpenInbound => tc_open_inbound with packet(slot, how);
    CameByNodes => tc_came_by_nodes with packet();
    LetIn => tc_let_in with packet(slot);
    Pass => tc_pass with packet(slot, how);
    ReadQuote => tc_read_quote with packet();
    LetPast => tc_let_past with tables(never);
    Relate => tc_relate with packet(side, slot);
    TranslateError => tc_translate_error with packet(side, forward);
    MayTell => tc_may_tell with packet();
    TakeTurn => tc_take_turn with tables(to, bucket);
}

/// Copies an entry of a flow.
#[inline(always)]
pub(super) fn copy(entry: &Entry, key: u32, into: &mut Flow) -> bool {
    tc_copy(entry, into, key) != 0
}

/// Notes an entry of a flow in what it is counted by.
#[inline(always)]
pub(super) fn note_counted(counted: &mut Counted, key: &FlowKey, flow: &Flow) {
    tc_note_counted(counted, key, flow);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_note_counted(counted: *mut Counted, key: *const FlowKey, flow: *const Flow) -> u32 {
    if counted.is_null() || key.is_null() || flow.is_null() {
        return 0;
    }
    // SAFETY: they are a caller's references, as the verifier sees to.
    unsafe { (*counted).set(&*key, &*flow) };
    1
}

/// Whether a flow that has been idle for so long has expired.
#[inline(always)]
pub(super) fn outlived(idle: u32, proto: u8, state: u32) -> bool {
    tc_outlived(idle, u32::from(proto), state) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_outlived(idle: u32, proto: u32, state: u32) -> u32 {
    u32::from(flow::outlived(maps::config(), idle, proto as u8, state))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_copy(entry: *const Entry, into: *mut Flow, key: u32) -> u32 {
    if entry.is_null() || into.is_null() {
        return 0;
    }
    // SAFETY: they are a caller's references, as the verifier sees to.
    u32::from(unsafe { (*entry).read_all(key, &mut *into) })
}

/// What a class and a port meet of a page of a policy set.
#[inline(always)]
pub(super) fn policy_page(key: PortKey, class: u32, ranges: bool) -> Result<Common, Outcome> {
    Register::unpack(tc_policy_page(zerocopy::transmute!(key), class, u32::from(ranges)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_policy_page(key: u64, class: u32, ranges: u32) -> u64 {
    policy::page(&Maps, zerocopy::transmute!(key), class, ranges != 0).pack()
}

/// Turns the packet into an ICMP error. False if none may be sent.
#[inline(always)]
pub(super) fn refuse(raw: *mut __sk_buff, w: &mut Walk, error: IcmpError) -> bool {
    let (kind, mtu) = error.pack();
    let sent = if w.packet.v6 == 1 {
        tc_refuse_v6(raw, w, u32::from(kind), mtu)
    } else {
        tc_refuse_v4(raw, w, u32::from(kind), mtu)
    };
    sent != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_refuse_v4(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let (Some(w), Some(config)) = (resume(walk), maps::config()) else { return 0 };
    u32::from(send_error_v4(&Skb::resume(raw), &w.packet, (kind as u16, mtu), config.v4))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_refuse_v6(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let (Some(w), Some(config)) = (resume(walk), maps::config()) else { return 0 };
    u32::from(send_error_v6(&Skb::resume(raw), &w.packet, (kind as u16, mtu), config.v6))
}

/// The same in the name of whom the packet was sent to: the node takes nothing that comes in from its own address.
#[inline(always)]
pub(super) fn refuse_as_asked(raw: *mut __sk_buff, w: &mut Walk, error: IcmpError) -> bool {
    let (kind, mtu) = error.pack();
    let sent = if w.packet.v6 == 1 {
        tc_refuse_as_asked_v6(raw, w, u32::from(kind), mtu)
    } else {
        tc_refuse_as_asked_v4(raw, w, u32::from(kind), mtu)
    };
    sent != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_refuse_as_asked_v4(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let Some(w) = resume(walk) else { return 0 };
    u32::from(send_error_v4(&Skb::resume(raw), &w.packet, (kind as u16, mtu), w.packet.tuple.dst))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_refuse_as_asked_v6(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let Some(w) = resume(walk) else { return 0 };
    u32::from(send_error_v6(&Skb::resume(raw), &w.packet, (kind as u16, mtu), w.packet.tuple.dst))
}

/// Where the host's routes would send a packet of a length on.
#[inline(always)]
pub(super) fn route(raw: *mut __sk_buff, w: &mut Walk, length: u32) -> Onward {
    let word = tc_route(raw, w, length);
    Onward { ifindex: word as u32, mtu: (word >> 32) as u32 }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_route(raw: *mut __sk_buff, walk: *mut Walk, length: u32) -> u64 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let Some(w) = resume(walk) else { return 0 };
    let k = Skb::resume(raw);
    let t = if w.way.translate != 0 { &w.draft.target } else { &w.packet.tuple };
    // SAFETY: a struct and unions of plain numbers.
    let mut lookup: bpf_fib_lookup = unsafe { zeroed() };
    lookup.ifindex = k.ifindex();
    lookup.l4_protocol = w.packet.proto;
    // The sizes that the kernel has learnt of ways come from errors that anybody may have forged: like the kernel when it forwards,
    // go by the interface, unless the sender wants to be told.
    let told = w.packet.no_fragment != 0;
    lookup.__bindgen_anon_1.tot_len = match told {
        true if length > 0xffff => 0xffff,
        true => length as u16,
        false => 0,
    };
    if w.packet.v6 == 1 {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = words(t.src);
        lookup.__bindgen_anon_4.ipv6_dst = words(t.dst);
    } else {
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = t.src.v4().bits();
        lookup.__bindgen_anon_4.ipv4_dst = t.dst.v4().bits();
    }
    // SAFETY: a helper call with the program's context and a struct on the stack and its size.
    let found = unsafe { bpf_fib_lookup(raw.cast(), &mut lookup, size_of::<bpf_fib_lookup>() as i32, 0) };
    match found as u32 {
        // SAFETY: a union of numbers.
        BPF_FIB_LKUP_RET_FRAG_NEEDED if told => u64::from(unsafe { lookup.__bindgen_anon_1.mtu_result }) << 32,
        // The neighbour is asked for where the packet is sent.
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            let mut mtu = 0;
            // SAFETY: a helper call with the program's context and a number on the stack.
            unsafe { bpf_check_mtu(raw.cast(), lookup.ifindex, &mut mtu, 0, 0) };
            u64::from(mtu) << 32 | u64::from(lookup.ifindex)
        }
        _ => 0,
    }
}

#[inline(always)]
const fn words(addr: Addr) -> [u32; 4] {
    [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32]
}

/// Counts a drop and tells about it.
#[inline(always)]
pub(super) fn report(raw: *mut __sk_buff, w: &mut Walk, reason: DropReason) {
    tc_report(raw, w, reason as u32);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tc_report(raw: *mut __sk_buff, walk: *mut Walk, reason: u32) -> u32 {
    let Some(w) = resume(walk) else { return 0 };
    let k = Skb::resume(raw);
    let because = DropReason::from_number(reason as u8).unwrap_or(DropReason::Internal);
    let event = || {
        let (p, asked) = (&w.packet, decided(w, because));
        DropEvent {
            // SAFETY: a helper call without arguments.
            time: unsafe { bpf_ktime_get_ns() },
            src: p.tuple.src,
            dst: p.tuple.dst,
            sport: p.tuple.sport,
            dport: p.tuple.dport,
            ifindex: k.ifindex(),
            set: asked.set,
            bit: asked.bit as u16,
            proto: p.proto,
            reason: reason as u8,
        }
    };
    let mut sampled = k.ifindex();
    if let Some(slot) = counted_to(&k, because, sampled, w) {
        maps::count_drop_of(slot, reason as u8);
        sampled = sampled_as(sampled, slot);
    }
    maps::report(event, reason as u8, k.seconds(), sampled);
    count_denied(&k, w, because);
    0
}
