//! From operations to bytes.

use std::mem::offset_of;

use fairlead_datapath::peer::Pod;
use fairlead_datapath::service::{Backend, ServiceState};
use zerocopy::IntoBytes;

use crate::plan::Op;

/// The tables that plans change. Named as the object names the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// `FRONTENDS`
    Frontends,
    /// `SLOTS`
    Slots,
    /// `BACKENDS`
    Backends,
    /// `SERVICE_PORTS`
    ServicePorts,
    /// `SOURCE_RANGES`
    SourceRanges,
    /// `SERVICE_STATE`
    ServiceState,
    /// `PEERS`
    Peers,
    /// `CIDRS`
    Cidrs,
    /// `NODES`
    Nodes,
    /// `PODS`
    Pods,
    /// `POLICY_SETS`
    PolicySets,
    /// `POLICY_PEERS`
    PolicyPeers,
    /// `POLICY_PORTS`
    PolicyPorts,
    /// `POLICY_RANGES`
    PolicyRanges,
}

impl Table {
    /// The map's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Frontends => "FRONTENDS",
            Self::Slots => "SLOTS",
            Self::Backends => "BACKENDS",
            Self::ServicePorts => "SERVICE_PORTS",
            Self::SourceRanges => "SOURCE_RANGES",
            Self::ServiceState => "SERVICE_STATE",
            Self::Peers => "PEERS",
            Self::Cidrs => "CIDRS",
            Self::Nodes => "NODES",
            Self::Pods => "PODS",
            Self::PolicySets => "POLICY_SETS",
            Self::PolicyPeers => "POLICY_PEERS",
            Self::PolicyPorts => "POLICY_PORTS",
            Self::PolicyRanges => "POLICY_RANGES",
        }
    }
}

/// What is to be done with one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Write it.
    Put(Table, &'a [u8], &'a [u8]),
    /// Delete it.
    Delete(Table, &'a [u8]),
    /// Change the aligned word at an offset of its value, and nothing else of it.
    Word(Table, &'a [u8], usize, u64),
    /// Wait until no program is running that read the tables before.
    Barrier,
}

fn put<'a>(table: Table, key: &'a [u8], value: Option<&'a [u8]>) -> Action<'a> {
    value.map_or(Action::Delete(table, key), |value| Action::Put(table, key, value))
}

/// Hands the actions of an operation to `each`, in order, until it fails.
///
/// # Errors
/// What `each` returns.
pub fn encode<E>(op: &Op, mut each: impl FnMut(Action<'_>) -> Result<(), E>) -> Result<(), E> {
    match op {
        Op::Frontend { key, value } => {
            each(put(Table::Frontends, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::Slots { offset, ids } => ids
            .iter()
            .zip(*offset..)
            .try_for_each(|(id, index)| each(Action::Put(Table::Slots, index.as_bytes(), id.as_bytes()))),
        Op::Backend { id, value } => each(Action::Put(Table::Backends, id.as_bytes(), value.as_bytes())),
        Op::BackendState { id, state } => {
            each(Action::Word(Table::Backends, id.as_bytes(), offset_of!(Backend, state), *state))
        }
        Op::ServicePorts { index, bits } => each(Action::Put(Table::ServicePorts, index.as_bytes(), bits.as_bytes())),
        Op::SourceRange { key, present } => {
            each(put(Table::SourceRanges, key.as_bytes(), present.then_some(1_u32.as_bytes())))
        }
        Op::UdpFrontends { generation } => {
            let value = ServiceState { udp_generation: *generation };
            each(Action::Put(Table::ServiceState, 0_u32.as_bytes(), value.as_bytes()))
        }
        Op::Peer { addr, value } => each(put(Table::Peers, addr.as_bytes(), value.as_ref().map(IntoBytes::as_bytes))),
        Op::Cidr { key, value } => each(put(Table::Cidrs, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes))),
        Op::Node { index, value } => each(Action::Put(Table::Nodes, u32::from(*index).as_bytes(), value.as_bytes())),
        Op::Pod { slot, value } => each(Action::Put(Table::Pods, u32::from(*slot).as_bytes(), value.as_bytes())),
        Op::PodWord { slot, word } => {
            each(Action::Word(Table::Pods, u32::from(*slot).as_bytes(), offset_of!(Pod, word), *word))
        }
        Op::PolicySet { index, value } => each(Action::Put(Table::PolicySets, index.as_bytes(), value.as_bytes())),
        Op::PolicyPeers { key, value } => {
            each(put(Table::PolicyPeers, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::PolicyPorts { key, value } => {
            each(put(Table::PolicyPorts, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::PolicyRange { key, value } => {
            each(put(Table::PolicyRanges, key.as_bytes(), value.as_ref().map(IntoBytes::as_bytes)))
        }
        Op::Barrier => each(Action::Barrier),
    }
}
