//! What the decision asks of the kernel.

use super::{PeerKey, PolicySet, PortKey, RangeKey, Row};

/// The tables of policy. Methods copy values out.
///
/// An implementation over memory that others write reads [`Row::tag`] after the rest of the row: an element that is
/// reused is written from its start, so a reader that got anything of the new content also gets the new tag.
pub trait Tables {
    /// The element of `policy_sets` that a set lives in ([`PolicySet::index`]).
    fn policy_set(&self, index: u32) -> Option<PolicySet>;

    /// The row of `policy_peers` under a key.
    fn policy_peers(&self, key: &PeerKey) -> Option<Row>;

    /// The row of `policy_ports` under a key.
    fn policy_ports(&self, key: &PortKey) -> Option<Row>;

    /// The row of the longest prefix in `policy_ranges`.
    fn policy_range(&self, key: &RangeKey) -> Option<Row>;
}
