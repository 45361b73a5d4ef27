//! A packet at the driver, as the datapath sees it: bytes in one buffer, and no metadata.

use core::mem::{size_of, zeroed};
use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup, xdp_md};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use fairlead_datapath::bandwidth::{Bandwidth, Pace};
use fairlead_datapath::config::{Config, Uplink};
use fairlead_datapath::dns::{DnsFacts, DnsName, DnsZone, Question};
use fairlead_datapath::errors::Receiver;
use fairlead_datapath::flow::{self, FlowKey};
use fairlead_datapath::kernel::{Driver, Hop, Kernel, Onward, Stage};
use fairlead_datapath::overlay::Outer;
use fairlead_datapath::packet::{ETH_LEN, csum};
use fairlead_datapath::policy::HitKey;
use fairlead_datapath::walk::Walk;
use fairlead_datapath::{Addr, Long, Word};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::stages;
use crate::maps;

/// Offset of the EtherType.
const ETHER_TYPE: u32 = ETH_LEN - 2;

/// The packet that a program runs for.
pub(crate) struct Buff {
    raw: *mut xdp_md,
}

impl Buff {
    /// Of a program's context.
    #[inline(always)]
    pub(crate) fn new(raw: *mut xdp_md) -> Self {
        Self { raw }
    }

    /// The same packet again, in a stage of its program.
    #[inline(always)]
    pub(crate) fn resume(raw: *mut xdp_md) -> Self {
        Self { raw }
    }

    /// The EtherType, as on the wire. Of a packet with a tag, the tag's.
    #[inline(always)]
    pub(crate) fn ether_type(&self) -> Option<u16> {
        self.load(ETHER_TYPE)
    }

    /// First byte and end of the packet. Read anew each time: a compiler that keeps the end in a register calculates with it, which
    /// the verifier forbids.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: fields of the context; the verifier knows them for packet pointers.
        unsafe {
            let data = read_volatile(&raw const (*self.raw).data);
            let end = read_volatile(&raw const (*self.raw).data_end);
            (data as usize, end as usize)
        }
    }

    /// The address of `size` bytes at an offset, if they are there. The mask gives the verifier the bound that it needs.
    #[inline(always)]
    fn at(&self, offset: u32, size: usize) -> Option<usize> {
        let (data, end) = self.bounds();
        let start = data + (offset & 0x7fff) as usize;
        if start + size > end { None } else { Some(start) }
    }
}

impl Driver for Buff {
    #[inline(always)]
    fn hop(&self, w: &mut Walk, next: Addr, length: u32) -> Option<Hop> {
        const AF_INET: u8 = 2;
        const AF_INET6: u8 = 10;
        let t = &w.draft.target;
        let dst = if next == Addr::UNSPECIFIED { t.dst } else { next };
        // SAFETY: a struct and unions of plain numbers.
        let mut lookup: bpf_fib_lookup = unsafe { zeroed() };
        lookup.ifindex = self.ifindex();
        lookup.l4_protocol = w.packet.proto;
        lookup.__bindgen_anon_1.tot_len = u16::try_from(length).unwrap_or(u16::MAX);
        let v6 = w.packet.v6 == 1;
        if v6 {
            lookup.family = AF_INET6;
            lookup.__bindgen_anon_3.ipv6_src = words(t.src);
            lookup.__bindgen_anon_4.ipv6_dst = words(dst);
        } else {
            lookup.family = AF_INET;
            lookup.__bindgen_anon_3.ipv4_src = t.src.v4().bits();
            lookup.__bindgen_anon_4.ipv4_dst = dst.v4().bits();
        }
        // SAFETY: a helper call with the program's context and a struct on the stack and its size.
        let found = unsafe { bpf_fib_lookup(self.raw.cast(), &mut lookup, size_of::<bpf_fib_lookup>() as i32, 0) };
        // Too large, unknown, or not by way of this interface: all of it the kernel sees to where it has an skb. Kernels before 6.3
        // have an answer also for a neighbour that they are still looking for.
        let is_known = found as u32 == BPF_FIB_LKUP_RET_SUCCESS && lookup.dmac != [0; 6];
        if !is_known || lookup.ifindex != self.ifindex() {
            return None;
        }
        // The kernel writes the gateway there, if there is one. SAFETY: unions of plain numbers, all written above.
        let is_next = unsafe {
            if v6 {
                lookup.__bindgen_anon_4.ipv6_dst == words(dst)
            } else {
                lookup.__bindgen_anon_4.ipv4_dst == dst.v4().bits()
            }
        };
        // Another station's, which a switch does not know, or a bridge or macvlan here takes.
        let is_ours = self.load::<[u8; 6]>(0)? == lookup.smac;
        let is_on_link = next == Addr::UNSPECIFIED || is_next;
        (is_ours && is_on_link).then_some(Hop { ifindex: lookup.ifindex, macs: [lookup.dmac, lookup.smac] })
    }
}

/// An address as helpers take it.
#[inline(always)]
const fn words(addr: Addr) -> [u32; 4] {
    [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32]
}

/// Much of what a walk may ask of the kernel only an skb has. The walk at the driver asks for none of it.
impl Kernel for Buff {
    #[inline(always)]
    fn packet_len(&self) -> u32 {
        let (data, end) = self.bounds();
        // Of 64 bits: the verifier allows no part of a pointer in a register.
        self.plain((end - data) as u64) as u32
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn reach(&self, _: u32) {}

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: the bytes are within the packet, and any bytes are a `T`. For alignment see `Skb::load`.
        Some(unsafe { (start as *const T).read() })
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> bool {
        let Some(start) = self.at(offset, size_of::<T>()) else { return false };
        // SAFETY: the bytes are within the packet, and `value` has no padding. For alignment see `Skb::load`.
        unsafe { core::ptr::copy_nonoverlapping(value, start as *mut T, 1) };
        true
    }

    /// A card has checked the sum that a packet comes with, if anybody has; here it is no more than bytes, always complete.
    #[inline(always)]
    fn adjust_l4_csum(&self, offset: u32, diff: u32, _: bool, udp: bool) -> bool {
        let Some(before) = self.load::<u16>(offset) else { return false };
        self.store(offset, &csum::adjust_l4(before, diff, udp))
    }

    #[inline(always)]
    fn sum_changed(&self, _: u32) {}

    // Nothing is answered here.
    #[inline(always)]
    fn read_into(&self, _: u32, _: u32, _: &mut [u64; Question::WORDS]) -> bool {
        false
    }

    #[inline(always)]
    fn dns_zone(&self) -> Option<&DnsZone> {
        None
    }

    #[inline(always)]
    fn dns_name(&self, _: &DnsName) -> Option<DnsFacts> {
        None
    }

    #[inline(always)]
    fn count_dns(&self, _: u32) {}

    #[inline(always)]
    fn cut(&self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn make_room(&self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw).ingress_ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn has_socket(&self) -> bool {
        false
    }

    #[inline(always)]
    fn route(&self, _: &mut Walk, _: u32) -> Onward {
        Onward::NOWHERE
    }

    #[inline(always)]
    fn outer(&self) -> Option<Outer> {
        None
    }

    #[inline(always)]
    fn vlan(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn untag(&self) -> bool {
        false
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn seconds(&self) -> u32 {
        // SAFETY: a helper call without arguments.
        (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: a helper call without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn depart_at(&self, _: u64) {}

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper call without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn add(&self, word: &Long, by: i64) {
        maps::add(word, by);
    }

    #[inline(always)]
    fn set_bits(&self, word: &Long, bits: u64) {
        maps::set_bits(word, bits);
    }

    #[inline(always)]
    fn clear_bits(&self, word: &Long, bits: u64) {
        maps::clear_bits(word, bits);
    }

    #[inline(always)]
    fn swap_if(&self, word: &Long, old: u64, new: u64) -> bool {
        maps::swap_if(word, old, new)
    }

    #[inline(always)]
    fn outlived(&self, idle: u32, proto: u8, state: u32) -> bool {
        flow::outlived(maps::config(), idle, proto, state)
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::config()
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<Uplink> {
        maps::uplink(ifindex)
    }

    #[inline(always)]
    fn host_flows(&self) -> Option<&Word> {
        maps::host_flows()
    }

    #[inline(always)]
    fn bandwidth(&self, slot: u16) -> Option<&Bandwidth> {
        maps::bandwidth(slot)
    }

    #[inline(always)]
    fn pace(&self, slot: u16) -> Option<&Pace> {
        maps::pace(slot)
    }

    #[inline(always)]
    fn error_turn(&self, index: u32) -> Option<&Long> {
        maps::error_turn(index)
    }

    #[inline(always)]
    fn count_unsent(&self, to: Receiver) {
        maps::count_unsent(to);
    }

    #[inline(always)]
    fn count_hit(&self, key: &HitKey, denied: bool) {
        maps::count_hit(key, denied, self.seconds());
    }

    /// Unknown, so taken for one.
    #[inline(always)]
    fn host_socket(&self, _: &FlowKey, _: bool) -> bool {
        true
    }

    #[inline(always)]
    fn plain(&self, mut number: u64) -> u64 {
        // SAFETY: a move between registers, as in `Skb::plain`.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
        number
    }

    #[inline(always)]
    fn reread<T: Copy>(&self, number: &T) -> T {
        // SAFETY: a reference. For why see `Skb::reread`.
        unsafe { read_volatile(number) }
    }

    #[inline(always)]
    fn enter<S: Stage>(&self, w: &mut Walk, arguments: S::Arguments) -> S::Answer {
        stages::enter::<S>(self.raw, w, arguments)
    }
}
