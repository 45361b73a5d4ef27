//! The object's tables, written and read as bytes.

use std::{collections::BTreeSet, mem::size_of};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
};
use fairlead_datapath::catalog::{self, Table, TableId};

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

/// Tables that tests write or read, by how they are reached.
macro_rules! reached {
    ($(by $by:ident: $($table:ident),+;)+) => {
        /// Takes a table that tests write or read out of the object.
        pub(crate) fn take(ebpf: &mut Ebpf, table: TableId) -> Result<Box<dyn Store>> {
            match table {
                $($(TableId::$table => reached!(@$by ebpf, catalog::$table),)+)+
                _ => anyhow::bail!("fairlead-verifier does not know the table {table}: add it in store.rs"),
            }
        }
    };
    (@key $ebpf:ident, $table:ty) => {
        hash::<{ size_of::<<$table as Table>::Key>() }, { size_of::<<$table as Table>::Value>() }>($ebpf, <$table>::ID)
    };
    (@index $ebpf:ident, $table:ty) => { array::<{ size_of::<<$table as Table>::Value>() }>($ebpf, <$table>::ID) };
    (@prefix $ebpf:ident, $table:ty) => {
        trie::<{ size_of::<<$table as Table>::Key>() - LENGTH }, { size_of::<<$table as Table>::Value>() }>(
            $ebpf,
            <$table>::ID,
        )
    };
}

reached! {
    by key: Affinities, EstablishedFlows, Fragments, Frontends, NodeAddresses, OtherFlows, Peers, PolicyPeers, PolicyPorts,
        PortSets, Uplinks, ZoneNames;
    by index: Backends, DropsOfPods, FlowCounts, HostFlows, Limits, Nodes, Paces, Pods, PolicySets, PortShares, ServiceGeneration,
        ServicePorts, Settings, Slots, Zones;
    by prefix: Cidrs, PolicyRanges, SourceRanges;
}

/// Takes a table out of the object.
pub(crate) fn map(ebpf: &mut Ebpf, table: TableId) -> Result<Map> {
    ebpf.take_map(table.info().name).with_context(|| format!("the object has no table {table}"))
}

fn hash<const K: usize, const V: usize>(ebpf: &mut Ebpf, table: TableId) -> Result<Box<dyn Store>> {
    let map = map(ebpf, table)?;
    Ok(Box::new(HashMap::<_, [u8; K], [u8; V]>::try_from(map).with_context(|| table.to_string())?))
}

fn array<const V: usize>(ebpf: &mut Ebpf, table: TableId) -> Result<Box<dyn Store>> {
    let map = map(ebpf, table)?;
    Ok(Box::new(Array::<_, [u8; V]>::try_from(map).with_context(|| table.to_string())?))
}

fn trie<const K: usize, const V: usize>(ebpf: &mut Ebpf, table: TableId) -> Result<Box<dyn Store>> {
    let map = map(ebpf, table)?;
    Ok(Box::new(LpmTrie::<_, [u8; K], [u8; V]>::try_from(map).with_context(|| table.to_string())?))
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
