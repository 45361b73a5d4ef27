//! What the pinned tables hold, read back for the planners.

use fairlead_datapath::service::{Backend, ServiceState};
use fairlead_datapath::{peer, policy as rows, service};
use zerocopy::FromBytes;

use crate::bpf::{BpfError, Tables};
use crate::plan::policy::Content;

/// The elements of a table. Those whose value is zero are left out: of an array they were never written.
fn elements<K, V, C>(tables: &Tables, name: &str) -> Result<C, BpfError>
where
    K: FromBytes,
    V: FromBytes,
    C: FromIterator<(K, V)>,
{
    let mut found = Vec::new();
    let map = tables.map(name)?;
    let zero = vec![0; map.shape().value_size as usize];
    map.for_each(|key, value| {
        if let (true, Ok(key), Ok(value)) = (value != zero, K::read_from_bytes(key), V::read_from_bytes(value)) {
            found.push((key, value));
        }
    })?;
    Ok(found.into_iter().collect())
}

/// The elements of an array whose index is a slot or a node.
fn by_index<V: FromBytes, C: FromIterator<(u16, V)>>(tables: &Tables, name: &str) -> Result<C, BpfError> {
    let elements: Vec<(u32, V)> = elements(tables, name)?;
    Ok(elements.into_iter().filter_map(|(index, value)| Some((u16::try_from(index).ok()?, value))).collect())
}

pub(super) fn services(tables: &Tables) -> Result<service::HostTables, BpfError> {
    let mut host = service::HostTables { frontends: elements(tables, "FRONTENDS")?, ..Default::default() };
    for (index, id) in elements::<u32, u32, Vec<_>>(tables, "SLOTS")? {
        host.write_slots(index, &[id]);
    }
    for (id, backend) in elements::<u32, Backend, Vec<_>>(tables, "BACKENDS")? {
        host.write_backend(id, backend);
    }
    let state = tables.map("SERVICE_STATE")?.get(&0_u32.to_ne_bytes())?;
    host.source_ranges = elements::<_, u32, Vec<_>>(tables, "SOURCE_RANGES")?.into_iter().map(|(key, _)| key).collect();
    host.service_ports = elements(tables, "SERVICE_PORTS")?;
    host.state = state.and_then(|bytes| ServiceState::read_from_bytes(&bytes).ok()).unwrap_or_default();
    Ok(host)
}

pub(super) fn policy(tables: &Tables) -> Result<Content, BpfError> {
    Ok(Content {
        policy: rows::HostTables {
            sets: elements(tables, "POLICY_SETS")?,
            peers: elements(tables, "POLICY_PEERS")?,
            ports: elements(tables, "POLICY_PORTS")?,
            ranges: elements(tables, "POLICY_RANGES")?,
        },
        peer: peer::HostTables {
            peers: elements(tables, "PEERS")?,
            cidrs: elements(tables, "CIDRS")?,
            nodes: by_index(tables, "NODES")?,
            pods: by_index(tables, "PODS")?,
        },
    })
}
