//! Stages of the walk that are functions of their own: the verifier checks each once, whoever calls it, and their
//! variables are not on the walk's stack.
//!
//! What they take and give is numbers and the walk's scratch memory; each pair here is a call and its other side.

use core::mem::{size_of, zeroed};

use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_ktime_get_ns};
use fairlead_datapath::Addr;
use fairlead_datapath::drop::{DropEvent, DropReason};
use fairlead_datapath::flow::{self, Draft, InsertError, Place, Table, Tracked};
use fairlead_datapath::kernel::Kernel as _;
use fairlead_datapath::packet::{self, IcmpError, send_error_v4, send_error_v6};
use fairlead_datapath::policy::{self, Decision, Outcome};
use fairlead_datapath::service::From;
use fairlead_datapath::walk::{self, Action, Inbound, Walk};

use super::skb::Skb;
use crate::maps::{self, Maps};

/// What a stage gives that ends well. A reason to drop is its number and one.
const DONE: u32 = 0;

#[inline(always)]
fn reason_of(done: u32) -> Result<(), DropReason> {
    match done {
        DONE => Ok(()),
        number => Err(DropReason::from_number((number - 1) as u8).unwrap_or(DropReason::Rewrite)),
    }
}

#[inline(always)]
fn number_of(result: Result<(), DropReason>) -> u32 {
    match result {
        Ok(()) => DONE,
        Err(reason) => reason as u32 + 1,
    }
}

/// A packet and its walk, as a stage gets them.
///
/// The walk is taken from the map again: what comes as an argument is no memory that a helper may take a key from before
/// kernel 6.2. It has to be an argument all the same, and to be used, or the compiler would believe that the stage does
/// not touch what its caller holds.
#[inline(always)]
fn resume<'w>(raw: *mut __sk_buff, walk: *mut Walk) -> Option<(Skb, &'w mut Walk)> {
    if walk.is_null() {
        return None;
    }
    Some((Skb::resume(raw), maps::walk()?))
}

/// A walk for a stage that asks the tables only. An argument that a stage does not use is not passed either, which the
/// verifier takes for a wrong one; so such a stage has no context.
#[inline(always)]
fn resume_without_packet<'w>(walk: *mut Walk) -> Option<(Skb, &'w mut Walk)> {
    resume(core::ptr::null_mut(), walk)
}

/// [`packet::parse`].
#[inline(always)]
pub(super) fn parse(raw: *mut __sk_buff, w: &mut Walk, ether_type: u16) -> Result<(), DropReason> {
    reason_of(stage_parse(raw, w, u32::from(ether_type)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_parse(raw: *mut __sk_buff, walk: *mut Walk, ether_type: u32) -> u32 {
    let Some((k, w)) = resume(raw, walk) else { return number_of(Err(DropReason::Malformed)) };
    number_of(packet::parse(&k, &mut w.packet, ether_type as u16))
}

/// [`flow::insert_far`].
#[inline(always)]
pub(super) fn insert_far(raw: *mut __sk_buff, proto: u8, draft: &mut Draft, host: bool) -> Result<(), InsertError> {
    match stage_insert_far(raw, draft, u32::from(proto), u32::from(host)) {
        0 => Ok(()),
        1 => Err(InsertError::Exists),
        _ => Err(InsertError::Full),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_insert_far(raw: *mut __sk_buff, draft: *mut Draft, proto: u32, host: u32) -> u32 {
    // As in `resume`, of which this is a part.
    let Some(w) = maps::walk() else { return 1 };
    if draft.is_null() {
        return 1;
    }
    match flow::insert_far(&Skb::resume(raw), proto as u8, &mut w.draft, host != 0) {
        Ok(()) => 0,
        Err(InsertError::Exists) => 1,
        Err(InsertError::Full) => 2,
    }
}

/// [`flow::create`].
#[inline(always)]
pub(super) fn create_flow(raw: *mut __sk_buff, w: &mut Walk, new_source: bool) -> Result<(), DropReason> {
    reason_of(stage_create_flow(raw, w, u32::from(new_source)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_create_flow(raw: *mut __sk_buff, walk: *mut Walk, new_source: u32) -> u32 {
    let Some((k, w)) = resume(raw, walk) else { return number_of(Err(DropReason::Rewrite)) };
    number_of(flow::create(&k, &w.packet, &mut w.draft, new_source != 0))
}

/// [`flow::translate_at_uplink`].
#[inline(always)]
pub(super) fn translate_flow(raw: *mut __sk_buff, w: &mut Walk) -> Result<(), DropReason> {
    reason_of(stage_translate_flow(raw, w))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_translate_flow(raw: *mut __sk_buff, walk: *mut Walk) -> u32 {
    let Some((k, w)) = resume(raw, walk) else { return number_of(Err(DropReason::Rewrite)) };
    number_of(flow::translate_at_uplink(&k, &w.packet, &mut w.draft))
}

/// [`flow::track_change`].
#[inline(always)]
pub(super) fn track_change(w: &mut Walk, place: Place) -> Tracked {
    match stage_track_change(w, u32::from(place.table == Table::Any), u32::from(place.forward)) {
        0 => Tracked::Live,
        _ => Tracked::Reopened,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_track_change(walk: *mut Walk, any: u32, forward: u32) -> u32 {
    let Some((k, w)) = resume_without_packet(walk) else { return 0 };
    match flow::track_change(&k, &w.packet, &mut w.draft, place(any, forward)) {
        Tracked::Live => 0,
        Tracked::Reopened => 1,
    }
}

/// [`walk::look_up`].
#[inline(always)]
pub(super) fn look_up(w: &mut Walk, addr: Addr) {
    stage_look_up(w, addr.hi, addr.lo);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_look_up(walk: *mut Walk, hi: u64, lo: u64) -> u32 {
    let Some((k, w)) = resume_without_packet(walk) else { return 0 };
    walk::look_up(&k, w, Addr { hi, lo });
    0
}

/// [`walk::choose_backend`].
#[inline(always)]
pub(super) fn choose_backend(w: &mut Walk, begins: bool, from: From) -> Action {
    Action::from_word(stage_choose_backend(w, u32::from(begins), u32::from(from == From::Outside)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_choose_backend(walk: *mut Walk, begins: u32, outside: u32) -> u64 {
    let Some((k, w)) = resume_without_packet(walk) else { return Action::drop(DropReason::Rewrite).word() };
    let from = if outside == 0 { From::Inside } else { From::Outside };
    walk::choose_backend(&k, w, begins != 0, from).word()
}

/// [`walk::still_no_service`].
#[inline(always)]
pub(super) fn still_no_service(w: &Walk) -> bool {
    stage_still_no_service(core::ptr::from_ref(w).cast_mut()) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_still_no_service(walk: *mut Walk) -> u32 {
    let Some((k, w)) = resume_without_packet(walk) else { return 0 };
    u32::from(walk::still_no_service(&k, w))
}

/// [`walk::answer_neighbour`].
#[inline(always)]
pub(super) fn answer_neighbour(raw: *mut __sk_buff, w: &mut Walk, slot: u16, arp: bool) -> Action {
    Action::from_word(stage_answer_neighbour(raw, w, u32::from(slot), u32::from(arp)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_answer_neighbour(raw: *mut __sk_buff, walk: *mut Walk, slot: u32, arp: u32) -> u64 {
    let Some((k, w)) = resume(raw, walk) else { return Action::IGNORE.word() };
    walk::answer_neighbour(&k, w, slot as u16, arp != 0).word()
}

/// [`walk::open_from_pod`].
#[inline(always)]
pub(super) fn open_from_pod(raw: *mut __sk_buff, w: &mut Walk, slot: u16) -> Action {
    Action::from_word(stage_open_from_pod(raw, w, u32::from(slot)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_open_from_pod(raw: *mut __sk_buff, walk: *mut Walk, slot: u32) -> u64 {
    let Some((k, w)) = resume(raw, walk) else { return Action::drop(DropReason::Rewrite).word() };
    walk::open_from_pod(&k, w, slot as u16).word()
}

/// [`walk::open_from_outside`].
#[inline(always)]
pub(super) fn open_from_outside(raw: *mut __sk_buff, w: &mut Walk) -> Action {
    Action::from_word(stage_open_from_outside(raw, w))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_open_from_outside(raw: *mut __sk_buff, walk: *mut Walk) -> u64 {
    let Some((k, w)) = resume(raw, walk) else { return Action::drop(DropReason::Rewrite).word() };
    walk::open_from_outside(&k, w).word()
}

/// [`walk::open_inbound`].
#[inline(always)]
pub(super) fn open_inbound(raw: *mut __sk_buff, w: &mut Walk, slot: u16, how: Inbound) -> Action {
    Action::from_word(stage_open_inbound(raw, w, u32::from(slot), how as u32))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_open_inbound(raw: *mut __sk_buff, walk: *mut Walk, slot: u32, how: u32) -> u64 {
    let Some((k, w)) = resume(raw, walk) else { return Action::drop(DropReason::Rewrite).word() };
    let how = match how {
        0 => Inbound::Uplink,
        1 => Inbound::Forwarded,
        _ => Inbound::Node,
    };
    walk::open_inbound(&k, w, slot as u16, how).word()
}

/// [`walk::judge_again`].
#[inline(always)]
pub(super) fn judge_again(w: &mut Walk, place: Place) -> Result<(), DropReason> {
    reason_of(stage_judge_again(w, u32::from(place.table == Table::Any), u32::from(place.forward)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_judge_again(walk: *mut Walk, any: u32, forward: u32) -> u32 {
    let Some((k, w)) = resume_without_packet(walk) else { return number_of(Err(DropReason::Rewrite)) };
    number_of(walk::judge_again(&k, w, place(any, forward)))
}

/// [`flow::forget`].
#[inline(always)]
pub(super) fn forget_flow(w: &mut Walk, table: Table) {
    stage_forget_flow(w, u32::from(table == Table::Any));
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_forget_flow(walk: *mut Walk, any: u32) -> u32 {
    let Some((k, w)) = resume_without_packet(walk) else { return 0 };
    flow::forget(&k, &mut w.draft, place(any, 0).table);
    0
}

#[inline(always)]
fn place(any: u32, forward: u32) -> Place {
    Place { table: if any != 0 { Table::Any } else { Table::Established }, forward: forward != 0 }
}

/// [`policy::decide`].
#[inline(always)]
pub(super) fn judge(set: u32, class: u32, proto: u8, port: u16) -> Decision {
    let packed = stage_judge(set, class, u32::from(proto), u32::from(port));
    let outcome = match packed >> 16 {
        0 => Outcome::Allow,
        1 => Outcome::Isolated,
        2 => Outcome::Pending,
        3 => Outcome::Missing,
        _ => Outcome::Race,
    };
    Decision { bit: packed as u16, outcome }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_judge(set: u32, class: u32, proto: u32, port: u32) -> u32 {
    let Decision { bit, outcome } = policy::decide(&Maps, set, class, proto as u8, port as u16);
    let outcome = match outcome {
        Outcome::Allow => 0,
        Outcome::Isolated => 1,
        Outcome::Pending => 2,
        Outcome::Missing => 3,
        Outcome::Race => 4,
    };
    u32::from(bit) | outcome << 16
}

/// [`walk::relate`].
#[inline(always)]
pub(super) fn relate_error(raw: *mut __sk_buff, w: &mut Walk, leaving: bool) -> Action {
    Action::from_word(stage_relate_error(raw, w, u32::from(leaving)))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_relate_error(raw: *mut __sk_buff, walk: *mut Walk, leaving: u32) -> u64 {
    let Some((k, w)) = resume(raw, walk) else { return Action::drop(DropReason::Rewrite).word() };
    walk::relate(&k, w, leaving != 0).word()
}

/// Turns the packet into an ICMP error. False if none may be sent.
#[inline(always)]
pub(super) fn refuse(raw: *mut __sk_buff, w: &mut Walk, error: IcmpError) -> bool {
    let (kind, mtu) = error.pack();
    let sent = if w.packet.v6 == 1 {
        stage_refuse_v6(raw, w, u32::from(kind), mtu)
    } else {
        stage_refuse_v4(raw, w, u32::from(kind), mtu)
    };
    sent != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_refuse_v4(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let (Some((k, w)), Some(config)) = (resume(raw, walk), maps::config()) else { return 0 };
    u32::from(send_error_v4(&k, &w.packet, IcmpError::unpack(kind as u16, mtu), config.v4))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_refuse_v6(raw: *mut __sk_buff, walk: *mut Walk, kind: u32, mtu: u32) -> u32 {
    let (Some((k, w)), Some(config)) = (resume(raw, walk), maps::config()) else { return 0 };
    u32::from(send_error_v6(&k, &w.packet, IcmpError::unpack(kind as u16, mtu), config.v6))
}

/// The interface by which the host's routes would send a packet on, 0 if they would not.
#[inline(always)]
pub(super) fn route(raw: *mut __sk_buff, w: &mut Walk) -> u32 {
    stage_route(raw, w)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_route(raw: *mut __sk_buff, walk: *mut Walk) -> u32 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    let Some((k, w)) = resume(raw, walk) else { return 0 };
    let t = &w.packet.tuple;
    // SAFETY: a struct and unions of plain numbers.
    let mut lookup: bpf_fib_lookup = unsafe { zeroed() };
    lookup.ifindex = k.ifindex();
    lookup.l4_protocol = w.packet.proto;
    if w.packet.v6 == 1 {
        lookup.family = AF_INET6;
        lookup.__bindgen_anon_3.ipv6_src = words(t.src);
        lookup.__bindgen_anon_4.ipv6_dst = words(t.dst);
    } else {
        lookup.family = AF_INET;
        lookup.__bindgen_anon_3.ipv4_src = t.src.v4_wire();
        lookup.__bindgen_anon_4.ipv4_dst = t.dst.v4_wire();
    }
    // SAFETY: a helper call with the program's context and a struct on the stack and its size.
    let found = unsafe { bpf_fib_lookup(raw.cast(), &mut lookup, size_of::<bpf_fib_lookup>() as i32, 0) };
    match found as u32 {
        // The neighbour is asked for, and the size is checked, where the packet is sent.
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => lookup.ifindex,
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
    stage_report(raw, w, reason as u32);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn stage_report(raw: *mut __sk_buff, walk: *mut Walk, reason: u32) -> u32 {
    let Some((k, w)) = resume(raw, walk) else { return 0 };
    let event = || {
        let p = &w.packet;
        DropEvent {
            // SAFETY: a helper call without arguments.
            time: unsafe { bpf_ktime_get_ns() },
            src: p.tuple.src,
            dst: p.tuple.dst,
            sport: p.tuple.sport,
            dport: p.tuple.dport,
            ifindex: k.ifindex(),
            set: w.set,
            bit: w.bit as u16,
            proto: p.proto,
            reason: reason as u8,
        }
    };
    maps::report(event, reason as u8, k.seconds());
    0
}
