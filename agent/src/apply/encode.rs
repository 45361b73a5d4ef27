//! From operations to bytes.

use std::mem::offset_of;

use fairlead_datapath::bandwidth::Pace;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::drop::PodDrops;
use fairlead_datapath::peer::Pod;
use fairlead_datapath::service::{Backend, NodeAddress, ServiceState};
use zerocopy::IntoBytes;

use crate::plan::Op;

/// What is to be done with one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Write it.
    Put(TableId, &'a [u8], &'a [u8]),
    /// Delete it.
    Delete(TableId, &'a [u8]),
    /// Change the aligned word at an offset of its value, and nothing else of it.
    Word(TableId, &'a [u8], usize, u64),
    /// Wait until no program is running that read the tables before.
    Barrier,
}

fn put<'a>(table: TableId, key: &'a [u8], value: Option<&'a [u8]>) -> Action<'a> {
    value.map_or(Action::Delete(table, key), |value| Action::Put(table, key, value))
}

/// Hands the actions of an operation to `each`, in order, until it fails.
///
/// # Errors
/// What `each` returns.
pub fn encode<E>(op: &Op, mut each: impl FnMut(Action<'_>) -> Result<(), E>) -> Result<(), E> {
    match op {
        Op::Frontend { key, value } => {
            each(put(TableId::Frontends, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::Slots { offset, ids } => ids
            .iter()
            .zip(*offset..)
            .try_for_each(|(id, index)| each(Action::Put(TableId::Slots, index.as_bytes(), id.as_bytes()))),
        Op::Backend { id, value } => each(Action::Put(TableId::Backends, id.as_bytes(), value.as_bytes())),
        Op::BackendState { id, state } => {
            each(Action::Word(TableId::Backends, id.as_bytes(), offset_of!(Backend, state), *state))
        }
        Op::ServicePorts { index, bits } => each(Action::Put(TableId::ServicePorts, index.as_bytes(), bits.as_bytes())),
        Op::SourceRange { key, present } => {
            each(put(TableId::SourceRanges, key.as_bytes(), present.then_some(1_u32.as_bytes())))
        }
        Op::UdpFrontends { generation } => {
            let value = ServiceState { udp_generation: *generation };
            each(Action::Put(TableId::ServiceGeneration, 0_u32.as_bytes(), value.as_bytes()))
        }
        Op::Peer { addr, value } => each(put(TableId::Peers, addr.as_bytes(), value.as_ref().map(IntoBytes::as_bytes))),
        Op::Cidr { key, value } => each(put(TableId::Cidrs, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes))),
        Op::Node { index, value } => each(Action::Put(TableId::Nodes, u32::from(*index).as_bytes(), value.as_bytes())),
        Op::Pod { slot, value } => {
            let index = u32::from(*slot);
            // What the slot's last pod was ahead of its limit by, and what was dropped of it, is not this one's.
            each(Action::Put(TableId::Paces, index.as_bytes(), &[0; size_of::<Pace>()]))?;
            each(Action::Put(TableId::DropsOfPods, index.as_bytes(), &[0; size_of::<PodDrops>()]))?;
            each(Action::Put(TableId::Pods, index.as_bytes(), value.as_bytes()))
        }
        Op::PodWord { slot, word } => {
            each(Action::Word(TableId::Pods, u32::from(*slot).as_bytes(), offset_of!(Pod, word), *word))
        }
        Op::PolicySet { index, value } => each(Action::Put(TableId::PolicySets, index.as_bytes(), value.as_bytes())),
        Op::PolicyPeers { key, value } => {
            each(put(TableId::PolicyPeers, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::PolicyPorts { key, value } => {
            each(put(TableId::PolicyPorts, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::PolicyRange { key, value } => {
            each(put(TableId::PolicyRanges, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::Config { value } => each(Action::Put(TableId::Settings, 0_u32.as_bytes(), value.as_bytes())),
        Op::Uplink { ifindex, value } => {
            let value = value.map(|value| value.sealed(*ifindex));
            each(put(TableId::Uplinks, ifindex.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::NodeAddress { addr, kinds } => {
            let value = kinds.map(|kinds| NodeAddress { tag: 0, kinds }.sealed(addr.tag()));
            each(put(TableId::NodeAddresses, addr.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::Bandwidth { slot, value } => {
            let index = u32::from(*slot);
            each(Action::Put(TableId::Limits, index.as_bytes(), value.as_bytes()))?;
            // What a lower rate made it wait for does not hold at a higher one.
            each(Action::Put(TableId::Paces, index.as_bytes(), &[0; size_of::<Pace>()]))
        }
        Op::Barrier => each(Action::Barrier),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_begins_with_nothing_of_the_one_before() {
        let mut written = Vec::new();
        let each = |action: Action<'_>| {
            if let Action::Put(table, key, value) = action {
                written.push((table, key.to_vec(), value.iter().all(|byte| *byte == 0)));
            }
            Ok::<_, ()>(())
        };
        encode(&Op::Pod { slot: 3, value: Pod { max_rate: 1, ..Pod::NONE } }, each).unwrap();
        let key = 3_u32.as_bytes().to_vec();
        // Before the record by which the pod is known.
        let before = [TableId::Paces, TableId::DropsOfPods].map(|table| (table, key.clone(), true));
        assert_eq!(written, [&before[..], &[(TableId::Pods, key, false)]].concat());
    }
}
