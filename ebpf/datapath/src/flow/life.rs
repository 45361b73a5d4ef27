//! How long an entry lives.

use crate::kernel::Kernel;
use crate::packet::{ICMP, ICMPV6, TCP, UDP};
use crate::tables::config::{Config, Lifetimes};
use crate::tables::flow::{Flow, FlowState, Table, TaggedKey};

/// Seconds that a flow lives after its last packet, by protocol and state.
///
/// Those that applications rely on can be set ([`Lifetimes`]). After both FINs, as long as the end that closed first
/// waits (`TCP_TIMEWAIT_LEN`, 60 seconds); the opener by itself, so if it was that one, and has acknowledged, 10.
#[inline(always)]
#[must_use]
pub const fn lifetime(proto: u8, state: u32, set: &Lifetimes) -> u32 {
    match proto {
        TCP if state & FlowState::GONE != 0 => 120,
        TCP if state & FlowState::RESET != 0 => 10,
        TCP if state & FlowState::FINS == FlowState::FINS => {
            if state & (FlowState::RESPONDER_FIRST | FlowState::LAST_ACK) == FlowState::LAST_ACK { 10 } else { 60 }
        }
        TCP if state & FlowState::FINS != 0 => set.half_closed,
        TCP if state & FlowState::ESTABLISHED != 0 => set.established,
        TCP => 60,
        UDP if state & FlowState::STREAM != 0 => set.udp_stream,
        UDP => set.udp,
        ICMP | ICMPV6 => 30,
        _ => 600,
    }
}

/// Whether a TCP connection is over: both ends have closed, or one has reset it.
#[inline(always)]
#[must_use]
pub const fn is_over(state: u32) -> bool {
    state & FlowState::RESET != 0 || state & FlowState::FINS == FlowState::FINS
}

/// Whether an entry has expired: it is a miss, whether or not it has been swept.
#[inline(always)]
#[must_use]
pub fn expired(flow: &Flow, proto: u8, now: u32, set: &Lifetimes) -> bool {
    idle_for(flow, now) > lifetime(proto, flow.state.value, set)
}

/// The same, of the walk's own. What was in use just now has not, and nobody asks what is set.
#[inline(always)]
pub(super) fn has_expired<K: Kernel>(k: &K, flow: &Flow, proto: u8, now: u32) -> bool {
    let idle = idle_for(flow, now);
    idle > Lifetimes::SHORTEST && k.outlived(idle, proto, flow.state.value)
}

/// Whether one that has been idle for so long has expired.
#[inline(always)]
#[must_use]
pub fn outlived(config: Option<&Config>, idle: u32, proto: u8, state: u32) -> bool {
    config.is_none_or(|config| idle > lifetime(proto, state, &config.lifetimes))
}

/// Seconds since an entry's last packet.
#[inline(always)]
#[must_use]
pub fn idle_for(flow: &Flow, now: u32) -> u32 {
    let age = now.wrapping_sub(flow.seen as u32);
    // Another CPU may have written a later second than this one has read.
    if age < u32::MAX / 2 { age } else { 0 }
}

/// Copies the entry of a key, if there is one in the table that has not expired. If not, nothing in `copy` counts.
#[inline(always)]
pub(super) fn live<K: Kernel>(k: &K, table: Table, key: &TaggedKey, copy: &mut Flow) -> bool {
    match k.flow(table, key) {
        Some(entry) => k.copy(entry, key.tag(), copy) && !has_expired(k, copy, key.proto, k.seconds()),
        None => false,
    }
}
