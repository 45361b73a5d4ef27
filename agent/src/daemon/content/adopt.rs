//! What the pinned tables hold, read back for the planners.

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::catalog::{self, Kind, Table};
use fairlead_datapath::config::{Config, Uplink};
use fairlead_datapath::service::ServiceState;
use fairlead_datapath::{peer, policy as rows, service};
use zerocopy::FromBytes;

use crate::bpf::{BpfError, Tables};
use crate::plan::policy::Content;
use crate::plan::{bandwidth, node};

/// The elements of a table. Those of an array whose value is zero were never written.
fn elements<T, C>(tables: &Tables) -> Result<C, BpfError>
where
    T: Table<Key: FromBytes, Value: FromBytes>,
    C: FromIterator<(T::Key, T::Value)>,
{
    let mut found = Vec::new();
    let map = tables.map(T::ID)?;
    let zero = vec![0; map.shape().value_size as usize];
    map.for_each(|key, value| {
        let is_there = T::ID.info().kind != Kind::Array || value != zero;
        if let (true, Ok(key), Ok(value)) = (is_there, T::Key::read_from_bytes(key), T::Value::read_from_bytes(value)) {
            found.push((key, value));
        }
    })?;
    Ok(found.into_iter().collect())
}

/// The elements of an array whose index is a slot or a node.
fn by_index<T, C>(tables: &Tables) -> Result<C, BpfError>
where
    T: Table<Key = u32, Value: FromBytes>,
    C: FromIterator<(u16, T::Value)>,
{
    let elements: Vec<(u32, T::Value)> = elements::<T, _>(tables)?;
    Ok(elements.into_iter().filter_map(|(index, value)| Some((u16::try_from(index).ok()?, value))).collect())
}

pub(super) fn services(tables: &Tables) -> Result<service::HostTables, BpfError> {
    let mut host = service::HostTables { frontends: elements::<catalog::Frontends, _>(tables)?, ..Default::default() };
    for (index, id) in elements::<catalog::Slots, Vec<_>>(tables)? {
        host.write_slots(index, &[id]);
    }
    for (id, backend) in elements::<catalog::Backends, Vec<_>>(tables)? {
        host.write_backend(id, backend);
    }
    let state = tables.map(TableId::ServiceGeneration)?.get(&0_u32.to_ne_bytes())?;
    host.source_ranges = elements::<catalog::SourceRanges, Vec<_>>(tables)?.into_iter().map(|(key, _)| key).collect();
    host.service_ports = elements::<catalog::ServicePorts, _>(tables)?;
    host.state = state.and_then(|bytes| ServiceState::read_from_bytes(&bytes).ok()).unwrap_or_default();
    Ok(host)
}

pub(super) fn node(tables: &Tables) -> Result<node::State, BpfError> {
    let config = tables.map(TableId::Settings)?.get(&0_u32.to_ne_bytes())?;
    // The plan compares content; what is written gets its check when it is written.
    let uplinks = elements::<catalog::Uplinks, Vec<_>>(tables)?;
    let addresses = elements::<catalog::NodeAddresses, Vec<_>>(tables)?;
    Ok(node::State {
        config: config.and_then(|bytes| Config::read_from_bytes(&bytes).ok()).unwrap_or_default(),
        uplinks: uplinks.into_iter().map(|(key, value)| (key, Uplink { tag: 0, ..value })).collect(),
        addresses: addresses.into_iter().map(|(key, value)| (key, value.kinds)).collect(),
    })
}

pub(super) fn bandwidth(tables: &Tables) -> Result<bandwidth::State, BpfError> {
    Ok(bandwidth::State::adopt(by_index::<catalog::Limits, _>(tables)?))
}

pub(super) fn policy(tables: &Tables) -> Result<Content, BpfError> {
    Ok(Content {
        policy: rows::HostTables {
            sets: elements::<catalog::PolicySets, _>(tables)?,
            peers: elements::<catalog::PolicyPeers, _>(tables)?,
            ports: elements::<catalog::PolicyPorts, _>(tables)?,
            ranges: elements::<catalog::PolicyRanges, _>(tables)?,
        },
        peer: peer::HostTables {
            peers: elements::<catalog::Peers, _>(tables)?,
            cidrs: elements::<catalog::Cidrs, _>(tables)?,
            nodes: by_index::<catalog::Nodes, _>(tables)?,
            pods: by_index::<catalog::Pods, _>(tables)?,
            // No planner writes it.
            host_sides: std::collections::BTreeMap::new(),
        },
    })
}
