//! A system call on a socket, as the datapath sees it.

use core::marker::PhantomData;
use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie};
use aya_ebpf::programs::SockAddrContext;
use aya_ebpf::{EbpfContext as _, Global};
use fairlead_datapath::service::sock::{MAX_SENDERS, Sender, Socket, SocketMemory, Target};
use fairlead_datapath::service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendFlags, FrontendKey, SourceRangeKey, Tables,
};
use fairlead_datapath::{Addr, WirePort, WireV4};

use crate::maps::sock::{SENDERS, SOCKETS};
use crate::maps::{self, Maps};

/// The cookie of the node's own network namespace, set when the program is loaded.
#[unsafe(no_mangle)]
static HOST_NETNS_COOKIE: Global<u64> = Global::new(0);

/// Where a family has its address in `struct bpf_sock_addr`. The kernel allows aligned accesses of 4 bytes
/// (`sock_addr_is_valid_access` in net/core/filter.c), so each is volatile.
pub(crate) trait Family {
    /// Reads the address.
    ///
    /// # Safety
    /// `ctx` is the context of a hook of this family.
    unsafe fn read(ctx: *const bpf_sock_addr) -> Addr;

    /// Writes the address, which is of this family: v4-mapped is IPv4 to one and IPv6 to the other.
    ///
    /// # Safety
    /// `ctx` is the context of a hook of this family.
    unsafe fn write(ctx: *mut bpf_sock_addr, addr: Addr);
}

/// Hooks of IPv4 sockets.
pub(crate) enum V4 {}

/// Hooks of IPv6 sockets.
pub(crate) enum V6 {}

impl Family for V4 {
    #[inline(always)]
    unsafe fn read(ctx: *const bpf_sock_addr) -> Addr {
        // SAFETY: as the trait says.
        Addr::from_v4(WireV4::from_bits(unsafe { ptr::read_volatile(&raw const (*ctx).user_ip4) }))
    }

    #[inline(always)]
    unsafe fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        // SAFETY: as the trait says.
        unsafe { ptr::write_volatile(&raw mut (*ctx).user_ip4, addr.v4().bits()) }
    }
}

impl Family for V6 {
    #[inline(always)]
    unsafe fn read(ctx: *const bpf_sock_addr) -> Addr {
        // SAFETY: as the trait says.
        let [a, b, c, d] =
            [0, 1, 2, 3].map(|word| u64::from(unsafe { ptr::read_volatile(&raw const (*ctx).user_ip6[word]) }));
        Addr { hi: b << 32 | a, lo: d << 32 | c }
    }

    #[inline(always)]
    unsafe fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        let words = [addr.hi as u32, (addr.hi >> 32) as u32, addr.lo as u32, (addr.lo >> 32) as u32];
        for (word, value) in words.into_iter().enumerate() {
            // SAFETY: as the trait says.
            unsafe { ptr::write_volatile(&raw mut (*ctx).user_ip6[word], value) }
        }
    }
}

/// A system call on a socket of a family.
pub(crate) struct Call<F> {
    ctx: SockAddrContext,
    family: PhantomData<F>,
}

impl<F: Family> Call<F> {
    /// The call of a hook of this family.
    #[inline(always)]
    pub(crate) fn new(ctx: SockAddrContext) -> Self {
        Self { ctx, family: PhantomData }
    }
}

impl<F: Family> Tables for Call<F> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        Maps.frontend(key)
    }

    #[inline(always)]
    fn node_address(&self, addr: &Addr) -> u32 {
        // Loopback is the node's for its own processes (S5); those of pods are told before.
        if addr.is_loopback() { FrontendFlags::WILDCARDS } else { Maps.node_address(addr) }
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        Maps.affinity(key)
    }

    #[inline(always)]
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity) {
        Maps.remember_affinity(key, value);
    }

    #[inline(always)]
    fn service_ports(&self, index: u32) -> u64 {
        Maps.service_ports(index)
    }

    #[inline(always)]
    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        Maps.in_source_range(key)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        Maps.slot(index)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        <Maps as Tables>::backend(&Maps, id)
    }

    #[inline(always)]
    fn backend_state(&self, id: u32) -> u64 {
        Maps.backend_state(id)
    }

    #[inline(always)]
    fn udp_generation(&self) -> u32 {
        Maps.udp_generation()
    }
}

impl<F: Family> Socket for Call<F> {
    #[inline(always)]
    fn protocol(&self) -> u8 {
        // SAFETY: the kernel's context lives as long as the program runs; aligned access of 4 bytes.
        unsafe { ptr::read_volatile(&raw const (*self.ctx.sock_addr).protocol) as u8 }
    }

    #[inline(always)]
    fn is_host(&self) -> bool {
        // SAFETY: the helper takes the context of the program.
        unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) == HOST_NETNS_COOKIE.load() }
    }

    #[inline(always)]
    fn own_address(&self, like: Addr) -> Addr {
        match maps::config() {
            Some(config) if self.is_host() => config.address_like(like),
            _ => Addr::UNSPECIFIED,
        }
    }

    #[inline(always)]
    fn is_closed(&self, addr: Addr) -> bool {
        maps::config().is_some_and(|config| config.closes(addr))
    }

    #[inline(always)]
    fn seconds(&self) -> u32 {
        // SAFETY: a helper call without arguments.
        (unsafe { bpf_ktime_get_coarse_ns() } / 1_000_000_000) as u32
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context of the program.
        unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn target(&self) -> Target {
        let ctx = self.ctx.sock_addr;
        // SAFETY: the kernel's context lives as long as the program runs, and `Call::new` says which family it has.
        unsafe {
            Target {
                addr: F::read(ctx),
                port: WirePort::from_bits(ptr::read_volatile(&raw const (*ctx).user_port) as u16),
            }
        }
    }

    #[inline(always)]
    fn set_target(&mut self, target: Target) {
        let ctx = self.ctx.sock_addr;
        // SAFETY: as in `target`.
        unsafe {
            F::write(ctx, target.addr);
            ptr::write_volatile(&raw mut (*ctx).user_port, u32::from(target.port.bits()));
        }
    }

    #[inline(always)]
    fn memory(&self) -> Option<SocketMemory> {
        // SAFETY: the storage lives as long as its socket, which is in use; any bytes are a memory.
        unsafe { SOCKETS.get_ptr_mut(&self.ctx).as_ref().copied() }
    }

    #[inline(always)]
    fn remember(&mut self, memory: &SocketMemory) {
        let mut initial = *memory;
        // SAFETY: as in `memory`. The store matters when the socket had a memory before; the word that other threads
        // write too comes as one.
        unsafe {
            if let Some(storage) = SOCKETS.get_or_insert_ptr_mut(&self.ctx, Some(&mut initial)).as_mut() {
                *storage = *memory;
            }
        }
    }

    #[inline(always)]
    fn sender(&self, place: usize) -> Option<Sender> {
        if place >= MAX_SENDERS {
            return None;
        }
        // SAFETY: the storage lives as long as its socket, which is in use; the place is one of it.
        let place = unsafe {
            let senders = SENDERS.get_ptr_mut(&self.ctx);
            if senders.is_null() {
                return None;
            }
            (&raw const (*senders).places).cast::<Sender>().add(place)
        };
        Some(zerocopy::transmute!(maps::words::<_, 5>(place)))
    }

    #[inline(always)]
    fn remember_sender(&mut self, place: Option<usize>, sender: &Sender) {
        // SAFETY: as in `sender`. Threads that write at once leave a sender that its tag does not fit, or count once.
        unsafe {
            let senders = SENDERS.get_or_insert_ptr_mut(&self.ctx, None);
            if senders.is_null() {
                return;
            }
            let written = &raw mut (*senders).written;
            let place = place.unwrap_or_else(|| {
                let turn = *written;
                *written = turn.wrapping_add(1);
                turn as usize
            });
            let places = (&raw mut (*senders).places).cast::<Sender>();
            *places.add(place & (MAX_SENDERS - 1)) = *sender;
        }
    }
}
