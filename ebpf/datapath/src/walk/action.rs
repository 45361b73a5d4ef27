//! What becomes of a packet.

use crate::drop::DropReason;
use crate::packet::IcmpError;
use crate::register::{Answer, Register};

/// What the program is to do with the packet: a [`Step`] in one word.
///
/// A word, since an enum with payloads leaves parts of itself undefined when it is handed on, and the verifier refuses a
/// register that holds whatever was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Action(u64);

/// The kinds of action, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it goes where it would have gone.
    Pass,
    /// To the host's stack, with the mark that says that it was judged.
    Stack,
    /// Into a pod of this node, past its host side.
    ToPod(u16),
    /// To another node: index in `NODES`, and whether the packet is IPv6.
    ToNode(u16, bool),
    /// Out of the node by the route to its destination, past the stack: whether it is IPv6, and the route's interface, 0 if
    /// there is no route.
    Out(bool, u32),
    /// To the node itself, past the device that its own packets to services leave by.
    Home,
    /// Back into the pod that it came from: it has been turned into an answer.
    Answer,
    /// Turned into this ICMP error and sent back, and counted under the reason.
    Refuse(IcmpError, DropReason),
    /// Nowhere, with a reason that is counted.
    Drop(DropReason),
    /// Nowhere, and nobody needs to know: what a pod sends as a matter of course and no router forwards.
    Ignore,
}

impl Action {
    /// [`Step::Pass`].
    pub const PASS: Self = Self(0);
    /// [`Step::Stack`].
    pub const STACK: Self = Self(1);
    /// [`Step::Answer`].
    pub const ANSWER: Self = Self(4);
    /// [`Step::Home`].
    pub const HOME: Self = Self(9);
    /// [`Step::Ignore`].
    pub const IGNORE: Self = Self(7);
    /// None yet: the walk goes on with its next stage.
    pub const GO_ON: Self = Self(u64::MAX);
    /// None yet: where the packet goes is known and noted in the walk ([`crate::scratch::Way`]); what is left is to send it there.
    pub const DELIVER: Self = Self(u64::MAX - 1);

    /// [`Step::ToPod`].
    #[inline(always)]
    #[must_use]
    pub const fn to_pod(slot: u16) -> Self {
        Self(2 | (slot as u64) << 16)
    }

    /// [`Step::ToNode`].
    #[inline(always)]
    #[must_use]
    pub const fn to_node(node: u16, v6: bool) -> Self {
        Self(3 | (v6 as u64) << 8 | (node as u64) << 16)
    }

    /// [`Step::Out`].
    #[inline(always)]
    #[must_use]
    pub const fn out(v6: bool, by: u32) -> Self {
        Self(8 | (v6 as u64) << 8 | (by as u64) << 32)
    }

    /// [`Step::Refuse`].
    #[inline(always)]
    #[must_use]
    pub const fn refuse(error: IcmpError, reason: DropReason) -> Self {
        let (kind, mtu) = error.pack();
        Self(5 | (reason as u64) << 8 | (kind as u64) << 16 | (mtu as u64) << 32)
    }

    /// [`Step::Drop`].
    #[inline(always)]
    #[must_use]
    pub const fn drop(reason: DropReason) -> Self {
        Self(6 | (reason as u64) << 8)
    }

    /// Whether the walk goes on.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on(self) -> bool {
        self.0 == Self::GO_ON.0
    }

    /// Whether what is left is to deliver the packet.
    #[inline(always)]
    #[must_use]
    pub const fn delivers(self) -> bool {
        self.0 == Self::DELIVER.0
    }

    /// Taken apart. What can't be read is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn step(self) -> Step {
        let word = self.0;
        match word as u8 {
            0 => Step::Pass,
            1 => Step::Stack,
            2 => Step::ToPod((word >> 16) as u16),
            3 => Step::ToNode((word >> 16) as u16, (word >> 8) as u8 != 0),
            4 => Step::Answer,
            5 => Step::Refuse(IcmpError::unpack((word >> 16) as u16, (word >> 32) as u32), reason(word)),
            6 => Step::Drop(reason(word)),
            8 => Step::Out((word >> 8) as u8 != 0, (word >> 32) as u32),
            9 => Step::Home,
            _ => Step::Ignore,
        }
    }
}

#[inline(always)]
const fn reason(word: u64) -> DropReason {
    match DropReason::from_number((word >> 8) as u8) {
        Some(reason) => reason,
        None => DropReason::Internal,
    }
}

impl Register for Action {
    #[inline(always)]
    fn pack(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        Self(word)
    }
}

impl Answer for Action {
    const BROKEN: Self = Self::drop(DropReason::Internal);
}

#[cfg(test)]
mod tests {
    use super::{Action, Step};
    use crate::drop::DropReason;
    use crate::packet::IcmpError;

    #[test]
    fn an_action_is_what_it_was_made_of() {
        for reason in DropReason::ALL {
            assert_eq!(Action::drop(*reason).step(), Step::Drop(*reason));
            for error in [IcmpError::PortUnreachable, IcmpError::TimeExceeded, IcmpError::TooBig(65_535)] {
                assert_eq!(Action::refuse(error, *reason).step(), Step::Refuse(error, *reason));
            }
        }
        for number in [0, 1, 4095, u16::MAX] {
            assert_eq!(Action::to_pod(number).step(), Step::ToPod(number));
            assert_eq!(Action::to_node(number, true).step(), Step::ToNode(number, true));
            assert_eq!(Action::to_node(number, false).step(), Step::ToNode(number, false));
        }
        for v6 in [false, true] {
            assert_eq!(Action::out(v6, 1_000_000).step(), Step::Out(v6, 1_000_000));
        }
        let plain = [Action::PASS, Action::STACK, Action::HOME, Action::ANSWER, Action::IGNORE];
        assert_eq!(plain.map(Action::step), [Step::Pass, Step::Stack, Step::Home, Step::Answer, Step::Ignore]);
        assert!(Action::GO_ON.goes_on() && plain.iter().all(|action| !action.goes_on()));
    }
}
