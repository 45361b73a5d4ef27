//! Interfaces of pods. The index of one that Fairlead has made says whose it is; those of pods that another plugin has wired are
//! in tables.

use super::Tables;
use crate::{ifindex_of, slot_of};

/// The slot of the pod whose host side an interface is.
#[inline(always)]
pub fn slot_at<T: Tables>(tables: &T, ifindex: u32) -> Option<u16> {
    match slot_of(ifindex) {
        Some(slot) => Some(slot),
        None => tables.foreign(ifindex).filter(|side| side.ifindex == ifindex).map(|side| side.slot as u16),
    }
}

/// The host side of the pod in a slot.
#[inline(always)]
pub fn side_of<T: Tables>(tables: &T, slot: u16) -> u32 {
    match tables.host_side(slot) {
        0 => ifindex_of(slot),
        ifindex => ifindex,
    }
}

/// Whether the interface of a pod is one that another plugin has made.
#[inline(always)]
#[must_use]
pub const fn is_foreign(ifindex: u32) -> bool {
    slot_of(ifindex).is_none()
}
