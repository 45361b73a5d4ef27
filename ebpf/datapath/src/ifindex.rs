//! A pod's place in the tables, from the interface that its packets come by.
//!
//! The host side of a pod's veth gets an ifindex of our choosing when it is created (`RTM_NEWLINK` takes one), so the
//! pod's slot, its row in every per-pod array, is a subtraction away and no table is asked.

/// Pods that a node can have.
pub const MAX_PODS: u16 = 4096;

/// The ifindex of slot 0. The kernel counts up from 1 and will not come here by itself in a node's lifetime.
pub const IFINDEX_BASE: u32 = 1_000_000;

/// The slot behind the host side of a pod's veth, or `None` for any other interface.
#[inline(always)]
#[must_use]
pub const fn slot_of(ifindex: u32) -> Option<u16> {
    let slot = ifindex.wrapping_sub(IFINDEX_BASE);
    if slot < MAX_PODS as u32 { Some(slot as u16) } else { None }
}

/// The ifindex of the host side of a slot's veth.
#[inline(always)]
#[must_use]
pub const fn ifindex_of(slot: u16) -> u32 {
    IFINDEX_BASE + slot as u32
}

#[cfg(test)]
mod tests {
    use super::{IFINDEX_BASE, MAX_PODS, ifindex_of, slot_of};

    #[test]
    fn slots_and_interfaces_correspond() {
        for slot in [0, 1, MAX_PODS - 1] {
            assert_eq!(slot_of(ifindex_of(slot)), Some(slot));
        }
        for other in [0, 1, 2, IFINDEX_BASE - 1, IFINDEX_BASE + u32::from(MAX_PODS), u32::MAX] {
            assert_eq!(slot_of(other), None);
        }
    }
}
