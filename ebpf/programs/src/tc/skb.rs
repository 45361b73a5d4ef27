//! A packet in the kernel, as the datapath sees it.

use core::mem::{size_of, zeroed};
use core::ptr::read_volatile;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, bpf_adj_room_mode, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
    bpf_l4_csum_replace, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_adjust_room,
    bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_set_tstamp, bpf_skb_vlan_pop,
};
use aya_ebpf::programs::TcContext;
use fairlead_datapath::bandwidth::{Bandwidth, Pace};
use fairlead_datapath::config::{Config, Uplink};
use fairlead_datapath::dns::{DnsFacts, DnsName, DnsZone, Question};
use fairlead_datapath::errors::Receiver;
use fairlead_datapath::flow::{Counted, Entry, Flow, FlowKey};
use fairlead_datapath::kernel::{Kernel, Onward, Stage};
use fairlead_datapath::overlay::Outer;
use fairlead_datapath::packet::{TCP, UDP};
use fairlead_datapath::policy::{Common, HitKey, Outcome, PortKey};
use fairlead_datapath::walk::Walk;
use fairlead_datapath::{Long, Word};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{stages, tunnel};
use crate::maps;

/// Headers that are read directly must be in the linear part: Ethernet, IP with options, TCP with options.
const HEADERS: u32 = 14 + 60 + 60;

/// Any network namespace that the program itself runs in.
const CURRENT_NETNS: u64 = u64::MAX;

/// [`Kernel::segment_size`] of an aggregate whose packets are its fragments, each as large as it is (include/linux/skbuff.h).
const GSO_BY_FRAGS: u32 = 0xffff;

/// The packet that a program runs for.
pub(crate) struct Skb {
    ctx: TcContext,
}

impl Skb {
    /// Of a program's context, with its headers made readable.
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        let skb = Self { ctx };
        skb.reach(HEADERS);
        skb
    }

    /// The same packet again, in a stage of its program.
    #[inline(always)]
    pub(crate) fn resume(raw: *mut __sk_buff) -> Self {
        Self { ctx: TcContext::new(raw) }
    }

    /// The raw context, for helpers.
    #[inline(always)]
    pub(crate) fn raw(&self) -> *mut __sk_buff {
        self.ctx.as_ptr().cast()
    }

    /// The EtherType, as on the wire.
    #[inline(always)]
    pub(crate) fn ether_type(&self) -> u16 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).protocol as u16 }
    }

    /// Takes mark bits from the packet.
    #[inline(always)]
    pub(crate) fn remove_mark(&self, mark: u32) {
        // SAFETY: a field of the context that programs may write.
        unsafe { (*self.raw()).mark &= !mark };
    }

    /// Sets the packet's mark bits.
    #[inline(always)]
    pub(crate) fn add_mark(&self, mark: u32) {
        // SAFETY: a field of the context that programs may write.
        unsafe { (*self.raw()).mark |= mark };
    }

    /// First byte and end of what can be read directly. Read anew each time: a compiler that keeps the end in a register
    /// calculates with it, which the verifier forbids.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: fields of the context; the verifier knows them for packet pointers.
        unsafe {
            let data = read_volatile(&raw const (*self.raw()).data);
            let end = read_volatile(&raw const (*self.raw()).data_end);
            (data as usize, end as usize)
        }
    }

    /// The address of `size` bytes at an offset, if they are there. The mask gives the verifier the bound that it needs.
    ///
    /// One byte at an offset that is not constant can't be had: the check becomes `start < end`, from which the verifier
    /// learns nothing (`find_good_pkt_pointers` in kernel/bpf/verifier.c).
    #[inline(always)]
    fn at(&self, offset: u32, size: usize) -> Option<usize> {
        let (data, end) = self.bounds();
        let start = data + (offset & 0x7fff) as usize;
        if start + size > end { None } else { Some(start) }
    }
}

impl Kernel for Skb {
    #[inline(always)]
    fn packet_len(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).len }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).gso_size }
    }

    #[inline(always)]
    fn reach(&self, end: u32) {
        let (data, linear) = self.bounds();
        let len = self.packet_len();
        let wanted = if len < end { len } else { end };
        // The headers that packets of SCTP share are all that the linear part of their aggregate has. To pull more would make
        // bytes of the first one theirs (`sctp_inq_pop` in net/sctp/inqueue.c).
        if data + wanted as usize > linear && self.segment_size() != GSO_BY_FRAGS {
            // SAFETY: a helper call with the program's context. If it fails, loads see a short packet.
            unsafe { bpf_skb_pull_data(self.raw(), wanted) };
        }
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: u32) -> Option<T> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: the bytes are within the packet, and any bytes are a `T`. They may be aligned to less than `T` is: to
        // this target that is a load like any other, which the verifier allows where the machine does. Said to be
        // unaligned, every word would be put together from its bytes.
        Some(unsafe { (start as *const T).read() })
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&self, offset: u32, value: &T) -> bool {
        let Some(start) = self.at(offset, size_of::<T>()) else { return false };
        // SAFETY: the bytes are within the packet, and `value` has no padding. For alignment see `load`.
        unsafe { core::ptr::copy_nonoverlapping(value, start as *mut T, 1) };
        true
    }

    #[inline(always)]
    fn adjust_l4_csum(&self, offset: u32, diff: u32, pseudo: bool, udp: bool) -> bool {
        let mut flags = 0;
        if pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        if udp {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        // SAFETY: a helper call with the program's context; the helper checks the offset.
        unsafe { bpf_l4_csum_replace(self.raw(), offset, 0, u64::from(diff), flags) == 0 }
    }

    #[inline(always)]
    fn sum_changed(&self, diff: u32) {
        // SAFETY: a helper call with the program's context. It refuses where the kernel has no such sum, and all is well.
        unsafe { bpf_csum_update(self.raw(), diff) };
    }

    #[inline(always)]
    fn read_into(&self, offset: u32, length: u32, into: &mut [u64; Question::WORDS]) -> bool {
        // From 1 to as many as there is room for, whatever the compiler knows of it.
        let length = (self.plain(u64::from(length.wrapping_sub(1))) & u64::from(Question::BYTES - 1)) + 1;
        // SAFETY: a helper call with the program's context and that memory.
        unsafe { bpf_skb_load_bytes(self.raw().cast(), offset, into.as_mut_ptr().cast(), length as u32) == 0 }
    }

    #[inline(always)]
    fn cut(&self, len: u32) -> bool {
        // SAFETY: a helper call with the program's context.
        unsafe { bpf_skb_change_tail(self.raw(), len, 0) == 0 }
    }

    #[inline(always)]
    fn make_room(&self, bytes: u32) -> bool {
        // SAFETY: a helper call with the program's context.
        unsafe { bpf_skb_adjust_room(self.raw(), bytes as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, 0) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    #[inline(always)]
    fn has_socket(&self) -> bool {
        // SAFETY: a helper call with the program's context.
        unsafe { bpf_get_socket_cookie(self.raw().cast()) != 0 }
    }

    #[inline(always)]
    fn route(&self, w: &mut Walk, length: u32) -> Onward {
        stages::route(self.raw(), w, length)
    }

    #[inline(always)]
    fn outer(&self) -> Option<Outer> {
        tunnel::outer(self.raw())
    }

    #[inline(always)]
    fn vlan(&self) -> Option<u16> {
        // SAFETY: fields of the context.
        unsafe { ((*self.raw()).vlan_present != 0).then_some((*self.raw()).vlan_tci as u16 & 0x0fff) }
    }

    #[inline(always)]
    fn untag(&self) -> bool {
        // SAFETY: a helper call with the program's context.
        unsafe { bpf_skb_vlan_pop(self.raw()) == 0 }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { (*self.raw()).mark }
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
    fn depart_at(&self, time: u64) {
        /// `BPF_SKB_TSTAMP_DELIVERY_MONO` (include/uapi/linux/bpf.h).
        const DELIVERY: u32 = 1;
        // Said to be a delivery time, it is kept on the way to the uplink. SAFETY: a helper call with the program's context.
        unsafe { bpf_skb_set_tstamp(self.raw(), time, DELIVERY) };
    }

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
    fn copy(&self, entry: &Entry, key: u32, into: &mut Flow) -> bool {
        stages::copy(entry, key, into)
    }

    #[inline(always)]
    fn note_counted(&self, counted: &mut Counted, key: &FlowKey, flow: &Flow) {
        stages::note_counted(counted, key, flow);
    }

    #[inline(always)]
    fn outlived(&self, idle: u32, proto: u8, state: u32) -> bool {
        stages::outlived(idle, proto, state)
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

    #[inline(always)]
    fn dns_zone(&self) -> Option<&DnsZone> {
        maps::dns_zone()
    }

    #[inline(always)]
    fn dns_name(&self, name: &DnsName) -> Option<DnsFacts> {
        maps::dns_name(name)
    }

    #[inline(always)]
    fn count_dns(&self, answer: u32) {
        maps::count_dns(answer);
    }

    #[inline(always)]
    fn host_socket(&self, key: &FlowKey, opener_is_a: bool) -> bool {
        // As a packet from the responder to the opener would have it.
        let t = key.tuple(!opener_is_a);
        // SAFETY: a union of plain numbers.
        let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
        let v4 = t.src.is_v4();
        let size = if v4 {
            tuple.__bindgen_anon_1.ipv4.saddr = t.src.v4().bits();
            tuple.__bindgen_anon_1.ipv4.daddr = t.dst.v4().bits();
            tuple.__bindgen_anon_1.ipv4.sport = t.sport.bits();
            tuple.__bindgen_anon_1.ipv4.dport = t.dport.bits();
            12
        } else {
            tuple.__bindgen_anon_1.ipv6.saddr = words(t.src.hi, t.src.lo);
            tuple.__bindgen_anon_1.ipv6.daddr = words(t.dst.hi, t.dst.lo);
            tuple.__bindgen_anon_1.ipv6.sport = t.sport.bits();
            tuple.__bindgen_anon_1.ipv6.dport = t.dport.bits();
            36
        };
        // SAFETY: helper calls with the program's context and a tuple on the stack; the reference is released.
        unsafe {
            let socket = match key.proto {
                TCP => bpf_sk_lookup_tcp(self.raw().cast(), &mut tuple, size, CURRENT_NETNS, 0),
                UDP => bpf_sk_lookup_udp(self.raw().cast(), &mut tuple, size, CURRENT_NETNS, 0),
                _ => return false,
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
            true
        }
    }

    #[inline(always)]
    fn policy_page(&self, key: PortKey, class: u32, ranges: bool) -> Result<Common, Outcome> {
        stages::policy_page(key, class, ranges)
    }

    #[inline(always)]
    fn plain(&self, mut number: u64) -> u64 {
        // One instruction, for with none the kernel refuses what the compiler says of lines. SAFETY: a move between registers.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack)) };
        number
    }

    #[inline(always)]
    fn reread<T: Copy>(&self, number: &T) -> T {
        // SAFETY: a reference. The compiler has to have written the number there, and can't know that it is the same.
        unsafe { read_volatile(number) }
    }

    #[inline(always)]
    fn enter<S: Stage>(&self, w: &mut Walk, arguments: S::Arguments) -> S::Answer {
        stages::enter::<S>(self.raw(), w, arguments)
    }
}

/// An address as helpers take it.
#[inline(always)]
pub(super) fn words(hi: u64, lo: u64) -> [u32; 4] {
    [hi as u32, (hi >> 32) as u32, lo as u32, (lo >> 32) as u32]
}
