//! The object's tables, written and read as bytes.

use std::{collections::BTreeSet, mem::size_of};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, lpm_trie::Key},
};
use fairlead_datapath::{
    Addr,
    bandwidth::{Bandwidth, Pace},
    config::{Config, Uplink},
    flow::{Destination, Flow, FlowKey, FragmentKey, FragmentPorts, PodFlows, PortSet},
    peer::{CidrKey, NodeHop, Peer, Pod},
    policy::{PeerKey, PolicySet, PortKey, RangeKey, Row},
    service::{Affinity, AffinityKey, Backend, Frontend, FrontendKey, NodeAddress, ServiceState, SourceRangeKey},
};

/// Bytes of the length that a prefix's key begins with (`struct bpf_lpm_trie_key_u8`).
const LENGTH: usize = size_of::<u32>();

/// One table.
pub(crate) trait Store {
    /// Writes an element.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Takes an element away, if it is there; one of an array becomes zero.
    fn remove(&mut self, key: &[u8]) -> Result<()>;

    /// Every element that is there; of an array those that are not zero, if they are among the first or the
    /// last.
    fn elements(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// The elements of an array that are not zero, among these or, without any, among all.
    fn among(&self, _: Option<&BTreeSet<u32>>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        anyhow::bail!("only an array's elements are read by their index")
    }
}

/// How many elements of an array are looked at: tests have fewer pods.
const FIRST: u32 = 16;

/// How many at its end: what is counted of nobody and of all.
const LAST: u32 = 2;

/// Takes a table that tests write or read out of the object.
pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Box<dyn Store>> {
    match name {
        "AFFINITY" => hash::<{ size_of::<AffinityKey>() }, { size_of::<Affinity>() }>(ebpf, name),
        "BACKENDS" => array::<{ size_of::<Backend>() }>(ebpf, name),
        "BANDWIDTH" => array::<{ size_of::<Bandwidth>() }>(ebpf, name),
        "CIDRS" => trie::<{ size_of::<CidrKey>() - LENGTH }, { size_of::<Peer>() }>(ebpf, name),
        "CONFIG" => array::<{ size_of::<Config>() }>(ebpf, name),
        "CT_ANY" | "CT_EST" => hash::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>(ebpf, name),
        "FRAGS" => hash::<{ size_of::<FragmentKey>() }, { size_of::<FragmentPorts>() }>(ebpf, name),
        "FRONTENDS" => hash::<{ size_of::<FrontendKey>() }, { size_of::<Frontend>() }>(ebpf, name),
        "HOST_FLOWS" | "SLOTS" => array::<{ size_of::<u32>() }>(ebpf, name),
        "NODES" => array::<{ size_of::<NodeHop>() }>(ebpf, name),
        "NODE_ADDRESSES" => hash::<{ size_of::<Addr>() }, { size_of::<NodeAddress>() }>(ebpf, name),
        "PACE" => array::<{ size_of::<Pace>() }>(ebpf, name),
        "PEERS" => hash::<{ size_of::<Addr>() }, { size_of::<Peer>() }>(ebpf, name),
        "PODS" => array::<{ size_of::<Pod>() }>(ebpf, name),
        "POD_FLOWS" => array::<{ size_of::<PodFlows>() }>(ebpf, name),
        "PORTS" => hash::<{ size_of::<Destination>() }, { size_of::<PortSet>() }>(ebpf, name),
        "POLICY_PEERS" => hash::<{ size_of::<PeerKey>() }, { size_of::<Row>() }>(ebpf, name),
        "POLICY_PORTS" => hash::<{ size_of::<PortKey>() }, { size_of::<Row>() }>(ebpf, name),
        "POLICY_RANGES" => trie::<{ size_of::<RangeKey>() - LENGTH }, { size_of::<Row>() }>(ebpf, name),
        "POLICY_SETS" => array::<{ size_of::<PolicySet>() }>(ebpf, name),
        "SERVICE_PORTS" => array::<{ size_of::<u64>() }>(ebpf, name),
        "SERVICE_STATE" => array::<{ size_of::<ServiceState>() }>(ebpf, name),
        "SHARES" => array::<{ size_of::<u64>() }>(ebpf, name),
        "SOURCE_RANGES" => trie::<{ size_of::<SourceRangeKey>() - LENGTH }, { size_of::<u32>() }>(ebpf, name),
        "UPLINKS" => hash::<{ size_of::<u32>() }, { size_of::<Uplink>() }>(ebpf, name),
        _ => anyhow::bail!("fairlead-verifier does not know the table {name}: teach it in store.rs"),
    }
}

fn hash<const K: usize, const V: usize>(ebpf: &mut Ebpf, name: &str) -> Result<Box<dyn Store>> {
    let map = ebpf.take_map(name).with_context(|| format!("the object has no table {name}"))?;
    Ok(Box::new(HashMap::<_, [u8; K], [u8; V]>::try_from(map).with_context(|| name.to_owned())?))
}

fn array<const V: usize>(ebpf: &mut Ebpf, name: &str) -> Result<Box<dyn Store>> {
    let map = ebpf.take_map(name).with_context(|| format!("the object has no table {name}"))?;
    Ok(Box::new(Array::<_, [u8; V]>::try_from(map).with_context(|| name.to_owned())?))
}

fn trie<const K: usize, const V: usize>(ebpf: &mut Ebpf, name: &str) -> Result<Box<dyn Store>> {
    let map = ebpf.take_map(name).with_context(|| format!("the object has no table {name}"))?;
    Ok(Box::new(LpmTrie::<_, [u8; K], [u8; V]>::try_from(map).with_context(|| name.to_owned())?))
}

fn exact<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().with_context(|| format!("{} bytes where the table has {N}", bytes.len()))
}

impl<const K: usize, const V: usize> Store for HashMap<MapData, [u8; K], [u8; V]> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.insert(exact::<K>(key)?, exact::<V>(value)?, 0)?)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        let key = exact::<K>(key)?;
        if self.get(&key, 0).is_ok() {
            Self::remove(self, &key)?;
        }
        Ok(())
    }

    fn elements(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.iter()
            .map(|element| {
                let (key, value) = element?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .collect()
    }
}

impl<const V: usize> Store for Array<MapData, [u8; V]> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.set(u32::from_ne_bytes(exact(key)?), exact::<V>(value)?, 0)?)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.put(key, &[0; V])
    }

    fn elements(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let last = self.len().saturating_sub(LAST).max(FIRST);
        self.among(Some(&(0..FIRST.min(self.len())).chain(last..self.len()).collect()))
    }

    fn among(&self, wanted: Option<&BTreeSet<u32>>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut elements = Vec::new();
        let mut look = |index: u32| -> Result<()> {
            let value = self.get(&index, 0)?;
            if value != [0; V] {
                elements.push((index.to_ne_bytes().to_vec(), value.to_vec()));
            }
            Ok(())
        };
        match wanted {
            Some(wanted) => wanted.iter().try_for_each(|index| look(*index))?,
            None => (0..self.len()).try_for_each(look)?,
        }
        Ok(elements)
    }
}

impl<const K: usize, const V: usize> Store for LpmTrie<MapData, [u8; K], [u8; V]> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.insert(&prefix(key)?, exact::<V>(value)?, 0)?)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        Ok(Self::remove(self, &prefix(key)?)?)
    }

    fn elements(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        anyhow::bail!("no packet writes a table of prefixes")
    }
}

fn prefix<const K: usize>(key: &[u8]) -> Result<Key<[u8; K]>> {
    ensure!(key.len() == LENGTH + K, "{} bytes where the table's keys have {}", key.len(), LENGTH + K);
    let (length, data) = key.split_at(LENGTH);
    Ok(Key::new(u32::from_ne_bytes(exact(length)?), exact(data)?))
}
