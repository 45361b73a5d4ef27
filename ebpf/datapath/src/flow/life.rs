//! How long an entry lives.

use crate::kernel::Kernel;
use crate::packet::{ICMP, ICMPV6, TCP, UDP};
use crate::tables::flow::{Flow, FlowKey, FlowState, Table};

/// Seconds that a flow lives after its last packet, by protocol and state.
///
/// As the kernel's conntrack has them (net/netfilter/nf_conntrack_proto_*.c) where applications rely on it; established
/// TCP as kube-proxy sets it (24 hours).
#[inline(always)]
#[must_use]
pub const fn lifetime(proto: u8, state: u32) -> u32 {
    match proto {
        TCP if state & FlowState::RESET != 0 => 10,
        TCP if state & FlowState::FINS == FlowState::FINS => 30,
        TCP if state & FlowState::FINS != 0 => 120,
        TCP if state & FlowState::ESTABLISHED != 0 => 86_400,
        TCP => 60,
        UDP if state & FlowState::STREAM != 0 => 120,
        UDP | ICMP | ICMPV6 => 30,
        _ => 600,
    }
}

/// Whether an entry has expired: it is a miss, whether or not it has been swept.
#[inline(always)]
#[must_use]
pub fn expired(flow: &Flow, proto: u8, now: u32) -> bool {
    let age = now.wrapping_sub(flow.seen.load());
    // Another CPU may have written a later second than this one has read.
    age > lifetime(proto, flow.state.load()) && age < u32::MAX / 2
}

/// The entry of a key in a table, if it is that key's and has not expired.
#[inline(always)]
pub(super) fn live<'k, K: Kernel>(k: &'k K, table: Table, key: &FlowKey) -> Option<&'k Flow> {
    let flow = k.flow(table, key)?;
    if flow.tag != key.tag() || expired(flow, key.proto, k.seconds()) { None } else { Some(flow) }
}
