//! Where packets are looked at, and what becomes of them there.

use crate::drop::DropReason;

/// Where a packet is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// What the pod in a slot sends.
    FromPod(u16),
    /// What the stack sends to the pod in a slot.
    ToPod(u16),
    /// What comes in by an uplink.
    FromUplink(u32),
    /// What leaves by an uplink.
    ToUplink(u32),
    /// What comes in through the tunnel.
    FromOverlay,
    /// What the stack sends through the tunnel.
    ToOverlay,
    /// What the node itself sends to services.
    ToServices,
}

/// What became of a packet at a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes where it would have gone.
    Pass,
    /// To the host's stack, with the mark.
    Stack,
    /// To the node itself.
    Home,
    /// Into a pod of this node.
    ToPod(u16),
    /// To another node.
    ToNode(u16),
    /// Out of the node by its routes.
    Out,
    /// Back to where it came from: it is an answer now.
    Answer,
    /// Back to where it came from: it is an ICMP error now.
    Refused(DropReason),
    /// Nowhere.
    Drop(DropReason),
    /// Nowhere, uncounted.
    Ignore,
}
