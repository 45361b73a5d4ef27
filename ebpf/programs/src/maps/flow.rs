//! Maps of flows, and of what the walk needs beside them.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::bandwidth::{Bandwidth, Pace};
use fairlead_datapath::catalog;
use fairlead_datapath::config::{Config, Uplink};
use fairlead_datapath::drop::{DropEvent, EventBudget};
use fairlead_datapath::errors::Receiver;
use fairlead_datapath::flow::{
    Destination, Entry, Flow, FlowKey, FragmentKey, FragmentPorts, InsertError, PodFlows, PortSet, Table, Tables,
};
use fairlead_datapath::walk::Walk;
use fairlead_datapath::{Long, Word};

use super::{Maps, words};

/// Established TCP connections, two entries for a translated one.
#[btf_map]
static CT_EST: map_of!(HashMap, EstablishedFlows) = HashMap::new();

/// Every other flow.
#[btf_map]
static CT_ANY: map_of!(HashMap, OtherFlows) = HashMap::new();

/// Counts of flows, by slot.
#[btf_map]
static POD_FLOWS: map_of!(Array, FlowCounts) = Array::new();

/// Counters of source ports in use.
#[btf_map]
static SHARES: map_of!(Array, PortShares) = Array::new();

/// Source ports in use, of crowded destinations.
#[btf_map]
static PORTS: map_of!(HashMap, PortSets) = HashMap::new();

/// What a set of ports begins with.
#[btf_map]
static NO_PORTS: map_of!(Array, NoPorts) = Array::new();

/// Ports of datagrams in fragments.
#[btf_map]
static FRAGS: map_of!(LruHashMap, Fragments) = LruHashMap::new();

/// The node's settings.
#[btf_map]
static CONFIG: map_of!(Array, Settings) = Array::new();

/// Addresses of the uplinks, by ifindex.
#[btf_map]
static UPLINKS: map_of!(HashMap, Uplinks) = HashMap::new();

/// What pods may send and receive, by slot.
#[btf_map]
static BANDWIDTH: map_of!(Array, Limits) = Array::new();

/// How far they have gone with that.
#[btf_map]
static PACE: map_of!(Array, Paces) = Array::new();

/// Not zero once a client outside has been sent to a process of the node.
#[btf_map]
static HOST_FLOWS: map_of!(Array, HostFlows) = Array::new();

/// Packets dropped, by reason.
#[btf_map]
static DROPS: map_of!(PerCpuArray, Drops) = PerCpuArray::new();

/// The same, of each pod.
#[btf_map]
static POD_DROPS: map_of!(Array, DropsOfPods) = Array::new();

/// Packets that XDP has sent on.
#[btf_map]
static XDP_PACKETS: map_of!(PerCpuArray, PacketsByXdp) = PerCpuArray::new();

/// When the next error to each receiver may be sent.
#[btf_map]
static ERROR_TURNS: map_of!(Array, ErrorTurns) = Array::new();

/// Errors that were not sent, by receiver.
#[btf_map]
static UNSENT: map_of!(PerCpuArray, ErrorsUnsent) = PerCpuArray::new();

/// Samples of dropped packets.
#[btf_map]
static EVENTS: map_of!(RingBuf, DropEvents) = RingBuf::new();

/// Events sent this second.
#[btf_map]
static EVENT_BUDGET: map_of!(PerCpuArray, EventBudgets) = PerCpuArray::new();

/// Memory of the walk that runs on a CPU. A walk is not interrupted by another: softirqs and the transmit path run with
/// bottom halves disabled.
#[btf_map]
static WALK: map_of!(PerCpuArray, Scratch) = PerCpuArray::new();

/// Replacing the one entry waits until every program that runs has ended: user space's grace period.
#[btf_map]
static BARRIER: ArrayOfMaps<
    Array<u32, 1>,
    { <catalog::Barrier as catalog::Table>::ELEMENTS },
    { <catalog::Barrier as catalog::Table>::FLAGS },
> = ArrayOfMaps::new();

impl Tables for Maps {
    #[inline(always)]
    fn flow(&self, table: Table, key: &FlowKey) -> Option<&Entry> {
        let flow = match table {
            Table::Established => CT_EST.get_ptr(key),
            Table::Any => CT_ANY.get_ptr(key),
        };
        // SAFETY: an entry has the layout of a flow. The element may be reused for another key while the reference lives; its
        // fields are words that are read one by one, and readers ask whose they are.
        flow.map(|flow| unsafe { &*flow.cast::<Entry>() })
    }

    #[inline(always)]
    fn insert_flow(&self, table: Table, key: &FlowKey, flow: &Flow, only_new: bool) -> Result<(), InsertError> {
        const EXISTS: i32 = -17;
        let flags = u64::from(if only_new { BPF_NOEXIST } else { BPF_ANY });
        let inserted = match table {
            Table::Established => CT_EST.insert(key, flow, flags),
            Table::Any => CT_ANY.insert(key, flow, flags),
        };
        inserted.map_err(|error| if error == EXISTS { InsertError::Exists } else { InsertError::Full })
    }

    #[inline(always)]
    fn remove_flow(&self, table: Table, key: &FlowKey) -> bool {
        match table {
            Table::Established => CT_EST.remove(key).is_ok(),
            Table::Any => CT_ANY.remove(key).is_ok(),
        }
    }

    #[inline(always)]
    fn pod_flows(&self, index: u16) -> Option<&PodFlows> {
        POD_FLOWS.get(u32::from(index))
    }

    #[inline(always)]
    fn share(&self, index: u32) -> Option<&Long> {
        SHARES.get(index)
    }

    #[inline(always)]
    fn ports(&self, key: &Destination) -> Option<&PortSet> {
        // SAFETY: bits of another destination's set would be ports that are tried in vain, no more.
        unsafe { PORTS.get(key) }
    }

    #[inline(always)]
    fn keep_ports(&self, key: &Destination) -> bool {
        NO_PORTS.get(0).is_some_and(|none| PORTS.insert(key, none, u64::from(BPF_NOEXIST)).is_ok())
    }

    #[inline(always)]
    fn drop_ports(&self, key: &Destination) {
        // Another CPU may have done it.
        let _ = PORTS.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        FRAGS.get_ptr(key).map(|value| zerocopy::transmute!(words::<_, 2>(value)))
    }

    #[inline(always)]
    fn insert_fragment(&self, key: &FragmentKey, ports: FragmentPorts) {
        // A full table evicts; there is nothing to do if even that fails.
        let _ = FRAGS.insert(key, ports, u64::from(BPF_ANY));
    }
}

/// The node's settings.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The addresses of an uplink.
#[inline(always)]
pub(crate) fn uplink(ifindex: u32) -> Option<Uplink> {
    UPLINKS.get_ptr(ifindex).map(|value| zerocopy::transmute!(words::<_, 5>(value)))
}

/// What a pod may send and receive.
#[inline(always)]
pub(crate) fn bandwidth(slot: u16) -> Option<&'static Bandwidth> {
    BANDWIDTH.get(u32::from(slot))
}

/// How far it has gone with that.
#[inline(always)]
pub(crate) fn pace(slot: u16) -> Option<&'static Pace> {
    PACE.get(u32::from(slot))
}

/// The word of [`HOST_FLOWS`].
#[inline(always)]
pub(crate) fn host_flows() -> Option<&'static Word> {
    const { assert!(size_of::<Word>() == size_of::<u32>() && align_of::<Word>() == align_of::<u32>()) };
    // SAFETY: an array's element stays where it is, and a `Word` is a `u32` that packets write.
    HOST_FLOWS.get_ptr(0).map(|word| unsafe { &*word.cast::<Word>() })
}

/// Adds to a word. (Core has no atomics for this target; the instructions exist.)
#[inline(always)]
pub(crate) fn add(word: &Long, by: i64) {
    // SAFETY: an aligned word in a map.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) by) };
}

/// Sets bits of a word.
#[inline(always)]
pub(crate) fn set_bits(word: &Long, bits: u64) {
    // SAFETY: an aligned word in a map.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) word, in(reg) bits) };
}

/// Clears bits of a word.
#[inline(always)]
pub(crate) fn clear_bits(word: &Long, bits: u64) {
    // SAFETY: an aligned word in a map.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) &= {1}", in(reg) word, in(reg) !bits) };
}

/// Gives a word another value if it has this one. True if it had.
#[inline(always)]
pub(crate) fn swap_if(word: &Long, old: u64, new: u64) -> bool {
    let mut found = old;
    // SAFETY: an aligned word in a map.
    unsafe { core::arch::asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) word, in(reg) new, inout("r0") found) };
    found == old
}

/// This CPU's memory for a sweep. It runs in a process, which packets may interrupt (before Linux 6.3 bottom halves are not
/// disabled in `bpf_test_run`).
#[inline(always)]
pub(crate) fn sweep() -> Option<&'static mut Walk> {
    let w = memory(1)?;
    w.memory = 1;
    Some(w)
}

/// This CPU's memory for a walk.
#[inline(always)]
pub(crate) fn walk() -> Option<&'static mut Walk> {
    memory(0)
}

/// One of this CPU's memories.
#[inline(always)]
pub(crate) fn memory(index: u32) -> Option<&'static mut Walk> {
    // SAFETY: a CPU runs one walk at a time. A program takes it once, and each of its stages again while the program
    // waits for the stage, which gets the program's reference as an argument.
    WALK.get_ptr_mut(index & 1).map(|walk| unsafe { &mut *walk })
}

/// Counts a drop.
#[inline(always)]
pub(crate) fn count_drop(reason: u8) {
    if let Some(count) = DROPS.get_ptr_mut(u32::from(reason)) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
}

/// Counts a packet that XDP has sent on.
#[inline(always)]
pub(crate) fn count_by_xdp() {
    if let Some(count) = XDP_PACKETS.get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
}

/// When the next error of a bucket may be sent.
#[inline(always)]
pub(crate) fn error_turn(index: u32) -> Option<&'static Long> {
    ERROR_TURNS.get(index)
}

/// Counts an error that is not sent.
#[inline(always)]
pub(crate) fn count_unsent(to: Receiver) {
    if let Some(count) = UNSENT.get_ptr_mut(to as u32) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
}

/// Counts a drop to a pod.
#[inline(always)]
pub(crate) fn count_drop_of(slot: u16, reason: u8) {
    if let Some(drops) = POD_DROPS.get(u32::from(slot))
        && let Some(packets) = drops.packets.get(usize::from(reason))
    {
        add(packets, 1);
    }
}

/// Counts a drop at an interface, and sends an event about it while there are not too many.
#[inline(always)]
pub(crate) fn report(event: impl FnOnce() -> DropEvent, reason: u8, second: u32, ifindex: u32) {
    count_drop(reason);
    if !spend(EventBudget::of(ifindex), second, EventBudget::OF_ONE)
        || !spend(EventBudget::ALL, second, EventBudget::OF_ALL)
    {
        return;
    }
    if let Some(mut entry) = EVENTS.reserve(0) {
        entry.write(event());
        entry.submit(0);
    }
}

/// Whether another event of a second is within a budget.
#[inline(always)]
fn spend(index: u32, second: u32, most: u32) -> bool {
    let Some(budget) = EVENT_BUDGET.get_ptr_mut(index) else { return false };
    // SAFETY: this CPU's own budget.
    let budget = unsafe { &mut *budget };
    if budget.second != second {
        budget.second = second;
        budget.sent = 0;
    }
    let left = budget.sent < most;
    budget.sent += u32::from(left);
    left
}
