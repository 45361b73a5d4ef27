//! Maps of services.

use core::ptr;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::service::{
    Backend, Frontend, FrontendKey, MAX_BACKENDS, MAX_FRONTENDS, MAX_SLOTS, ServiceState, Tables,
};

use super::Maps;

#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, { MAX_FRONTENDS as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

#[btf_map]
static SLOTS: Array<u32, { MAX_SLOTS as usize }> = Array::new();

#[btf_map]
static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
static SERVICE_STATE: Array<ServiceState, 1> = Array::new();

impl Tables for Maps {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        let words = FRONTENDS.get_ptr(key)?.cast::<u64>();
        // SAFETY: a map's value is aligned to 8 and stays mapped while the program runs. The element may be reused
        // meanwhile, which the tag, read last, shows; volatile reads stay in their order.
        let words = unsafe {
            let rest = [1, 2, 3].map(|word| ptr::read_volatile(words.add(word)));
            let [a, b, c] = rest;
            [ptr::read_volatile(words), a, b, c]
        };
        Some(zerocopy::transmute!(words))
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn backend_state(&self, id: u32) -> u64 {
        // SAFETY: an array's element stays where it is, and its state is written as one word.
        BACKENDS.get_ptr(id).map_or(0, |backend| unsafe { ptr::read_volatile(&raw const (*backend).state) })
    }

    #[inline(always)]
    fn udp_generation(&self) -> u32 {
        SERVICE_STATE.get(0).map_or(0, |state| state.udp_generation as u32)
    }
}
