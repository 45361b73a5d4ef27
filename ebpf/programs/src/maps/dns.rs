//! Maps of DNS.

use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use fairlead_datapath::catalog;
use fairlead_datapath::dns::{DnsFacts, DnsName, DnsZone};

use super::words;

/// The zone that is answered.
#[btf_map]
static DNS_ZONE: map_of!(Array, Zones) = Array::new();

/// What is at its names.
#[btf_map]
static DNS_NAMES: map_of!(HashMap, ZoneNames) = HashMap::new();

/// Answers, by what they say.
#[btf_map]
static DNS_ANSWERS: map_of!(PerCpuArray, ZoneAnswers) = PerCpuArray::new();

/// The zone that is answered.
#[inline(always)]
pub(crate) fn dns_zone() -> Option<&'static DnsZone> {
    DNS_ZONE.get(0)
}

/// What is at a name.
#[inline(always)]
pub(crate) fn dns_name(name: &DnsName) -> Option<DnsFacts> {
    DNS_NAMES.get_ptr(name).map(|value| zerocopy::transmute!(words::<_, 4>(value)))
}

/// Counts an answer.
#[inline(always)]
pub(crate) fn count_dns(answer: u32) {
    if let Some(count) = DNS_ANSWERS.get_ptr_mut(answer) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += 1 };
    }
}
