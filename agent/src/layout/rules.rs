//! What tables mean to whom takes them over: beyond their layouts.

use fairlead_datapath::Addr;
use fairlead_datapath::catalog::{Kind, TableId};
use fairlead_datapath::config::{Config, Lifetimes, Uplink};
use fairlead_datapath::flow::{Flow, FlowKey, FragmentKey, FragmentPorts};
use fairlead_datapath::peer::Peer;
use fairlead_datapath::policy::{PeerKey, PortKey, RangeKey, Row};
use fairlead_datapath::service::{Affinity, AffinityKey, Frontend, FrontendKey, NodeAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Converter;

/// What is lost with a table that begins empty, if an agent may go on without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// In a few words, for the log and the status.
    pub what: &'static str,
    /// Whether another layout is not even tried: the kernel does not let it be filled, or what was in it is told again.
    pub always: bool,
}

/// What is lost if a table begins empty. `None`: too much, so an agent that can't read it does not start.
#[must_use]
pub fn loss(table: TableId) -> Option<Loss> {
    use TableId as T;
    let always = matches!(table.info().kind, Kind::SocketStorage | Kind::RingBuffer | Kind::ArrayOfMaps)
        || matches!(table, T::Zones | T::ZoneNames);
    let what = match table {
        T::Affinities => "clients of services with session affinity may get another endpoint",
        T::Fragments => "datagrams in fragments that are under way are dropped",
        T::Paces => "pods with a limit of bandwidth may send a burst",
        T::PolicyHits => "the counts of rules since the last save are lost",
        T::Drops | T::DropsOfPods => "counts of drops begin at zero",
        T::Zones | T::ZoneNames => "DNS queries are answered by the server alone until it has told its zone again",
        T::ZoneAnswers => "counts of DNS queries that the kernel answered begin at zero",
        T::DropEvents => "samples of drops that nobody has read are lost",
        T::Barrier => "nothing",
        T::Sockets => "sockets that are connected to a service no longer know it",
        T::SocketSenders => "answers to datagrams that are under way have the backend's address",
        _ => return None,
    };
    Some(Loss { what, always })
}

/// The oldest version of a table whose fields mean by their names what they mean today.
#[must_use]
pub fn oldest(table: TableId) -> u32 {
    match table {
        TableId::EstablishedFlows | TableId::OtherFlows => 5,
        TableId::FlowCounts | TableId::PortShares | TableId::Slots | TableId::Backends => 2,
        TableId::Settings => 4,
        _ => 1,
    }
}

/// Whether a table says something of flows that live, so that it is read only while no program runs: those that have to agree
/// with each other, and whether any flow of a kind was ever made.
#[must_use]
pub fn is_of_flows(table: TableId) -> bool {
    use TableId as T;
    matches!(table, T::EstablishedFlows | T::OtherFlows | T::FlowCounts | T::PortShares | T::PortSets | T::HostFlows)
}

impl Converter {
    /// What a key and a value of a table are where an older layout says nothing.
    #[must_use]
    pub fn blank(table: TableId) -> (Vec<u8>, Vec<u8>) {
        let info = table.info();
        let key = vec![0; info.key_size as usize];
        let value = match table {
            TableId::EstablishedFlows | TableId::OtherFlows => Flow::new().as_bytes().to_vec(),
            TableId::Peers | TableId::Cidrs => Peer::WORLD.as_bytes().to_vec(),
            TableId::Settings => Config {
                mark: Config::MARK,
                snat_first: Config::SNAT_FIRST,
                snat_count: Config::SNAT_COUNT,
                max_flows: Config::MAX_FLOWS,
                max_rate: Config::MAX_RATE,
                max_open: Config::MAX_OPEN,
                lifetimes: Lifetimes::default(),
                ..Config::default()
            }
            .as_bytes()
            .to_vec(),
            _ => vec![0; info.value_size as usize],
        };
        (key, value)
    }

    /// Puts in what follows from the rest of an element: the checks by which programs know their own. `None`: it is no element
    /// of the table.
    #[must_use]
    pub fn seal(table: TableId, key: &[u8], value: &mut [u8]) -> Option<()> {
        use TableId as T;
        match table {
            T::EstablishedFlows | T::OtherFlows => {
                let tag = FlowKey::read_from_bytes(key).ok()?.tag();
                let mut flow = Flow::read_from_bytes(value).ok()?;
                flow.seal(tag);
                write(value, &flow)
            }
            T::Frontends => reseal(key, value, |key: FrontendKey, frontend: Frontend| frontend.sealed(key.tag())),
            T::NodeAddresses => reseal(key, value, |key: Addr, address: NodeAddress| address.sealed(key.tag())),
            T::Affinities => reseal(key, value, |key: AffinityKey, memory: Affinity| memory.sealed(key.tag())),
            T::Peers => reseal(key, value, |key: Addr, peer: Peer| peer.sealed(key.tag())),
            T::PolicyPeers => reseal(key, value, |key: PeerKey, row: Row| row.sealed(key.tag())),
            T::PolicyPorts => reseal(key, value, |key: PortKey, row: Row| row.sealed(key.tag())),
            T::PolicyRanges => reseal(key, value, |key: RangeKey, row: Row| row.sealed(key.tag())),
            T::Fragments => reseal(key, value, |key: FragmentKey, ports: FragmentPorts| ports.sealed(key.tag())),
            T::Uplinks => reseal(key, value, |ifindex: u32, uplink: Uplink| uplink.sealed(ifindex)),
            _ => Some(()),
        }
    }
}

/// Seals a value again, of an element with this key.
fn reseal<K: FromBytes, V: FromBytes + IntoBytes + Immutable>(
    key: &[u8],
    value: &mut [u8],
    sealed: impl FnOnce(K, V) -> V,
) -> Option<()> {
    write(value, &sealed(K::read_from_bytes(key).ok()?, V::read_from_bytes(value).ok()?))
}

fn write<V: IntoBytes + Immutable>(place: &mut [u8], value: &V) -> Option<()> {
    let bytes = value.as_bytes();
    place.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}
