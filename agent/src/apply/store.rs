//! The executor, over whatever holds the tables.

use fairlead_datapath::catalog::TableId;

use super::encode::{Action, encode};
use crate::bpf::BpfError;
use crate::plan::Op;

/// What holds the tables: the kernel, or memory in tests.
pub trait Store {
    /// Writes `count` elements of a table: keys one after the other, values likewise.
    ///
    /// # Errors
    /// Some could not be written.
    fn put(&mut self, table: TableId, keys: &[u8], values: &[u8], count: usize) -> Result<(), BpfError>;

    /// Deletes `count` elements of a table, where they are there.
    ///
    /// # Errors
    /// Some could not be deleted.
    fn delete(&mut self, table: TableId, keys: &[u8], count: usize) -> Result<(), BpfError>;

    /// Changes one word of an element's value.
    ///
    /// # Errors
    /// There is no such element, or it could not be written.
    fn word(&mut self, table: TableId, key: &[u8], offset: usize, word: u64) -> Result<(), BpfError>;

    /// Waits for every program that is running.
    ///
    /// # Errors
    /// It could not be waited for.
    fn barrier(&mut self) -> Result<(), BpfError>;
}

/// A plan that stopped.
#[derive(Debug, thiserror::Error)]
#[error(
    "operation {at} of {of} in a plan failed ({op}): {source}; the operations before it are in force, the rest is \
     retried"
)]
pub struct ApplyError {
    /// Index of the operation that ended the failing batch.
    pub at: usize,
    /// Operations in the plan.
    pub of: usize,
    /// That operation.
    pub op: String,
    /// What failed.
    pub source: BpfError,
}

impl ApplyError {
    /// The table that the kernel says is full, or for which it has no memory.
    #[must_use]
    pub fn full(&self) -> Option<&str> {
        match &self.source {
            BpfError::Map { map, source, .. } => {
                let full = [libc::E2BIG, libc::ENOMEM, libc::ENOSPC].map(Some).contains(&source.raw_os_error());
                full.then_some(map.as_str())
            }
            _ => None,
        }
    }
}

/// A run of equal actions on one table.
#[derive(Default)]
struct Batch {
    run: Option<(TableId, bool)>,
    keys: Vec<u8>,
    values: Vec<u8>,
    count: usize,
}

impl Batch {
    /// Makes room for one more of this kind, executing what is of another.
    fn join(&mut self, store: &mut impl Store, run: (TableId, bool)) -> Result<(), BpfError> {
        if self.run != Some(run) {
            self.flush(store)?;
            self.run = Some(run);
        }
        self.count += 1;
        Ok(())
    }

    fn flush(&mut self, store: &mut impl Store) -> Result<(), BpfError> {
        let result = match self.run.take() {
            Some((table, true)) => store.put(table, &self.keys, &self.values, self.count),
            Some((table, false)) => store.delete(table, &self.keys, self.count),
            None => Ok(()),
        };
        self.keys.clear();
        self.values.clear();
        self.count = 0;
        result
    }

    fn take(&mut self, store: &mut impl Store, action: Action<'_>) -> Result<(), BpfError> {
        match action {
            Action::Put(table, key, value) => {
                self.join(store, (table, true))?;
                self.keys.extend_from_slice(key);
                self.values.extend_from_slice(value);
                Ok(())
            }
            Action::Delete(table, key) => {
                self.join(store, (table, false))?;
                self.keys.extend_from_slice(key);
                Ok(())
            }
            Action::Word(table, key, offset, word) => {
                self.flush(store)?;
                store.word(table, key, offset, word)
            }
            Action::Barrier => {
                self.flush(store)?;
                store.barrier()
            }
        }
    }
}

/// Executes a plan, strictly in order. Returns when all of it is in force.
///
/// # Errors
/// An operation failed; those after it were not tried.
pub fn apply(store: &mut impl Store, plan: &[Op]) -> Result<(), ApplyError> {
    let mut batch = Batch::default();
    let stopped = |at: usize, source| {
        let op = plan.get(at).map(|op| format!("{op:?}")).unwrap_or_default();
        ApplyError { at, of: plan.len(), op, source }
    };
    for (at, op) in plan.iter().enumerate() {
        encode(op, |action| batch.take(store, action)).map_err(|source| stopped(at, source))?;
    }
    batch.flush(store).map_err(|source| stopped(plan.len().saturating_sub(1), source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_datapath::Addr;
    use fairlead_datapath::peer::Peer;

    /// Writes down what it is asked for.
    #[derive(Default)]
    struct Log(Vec<String>, Option<TableId>);

    impl Store for Log {
        fn put(&mut self, table: TableId, keys: &[u8], values: &[u8], count: usize) -> Result<(), BpfError> {
            if self.1 == Some(table) {
                return Err(BpfError::Missing { what: "map", name: table.info().name.to_owned() });
            }
            self.0.push(format!("put {} {count} {} {}", table.info().name, keys.len(), values.len()));
            Ok(())
        }
        fn delete(&mut self, table: TableId, keys: &[u8], count: usize) -> Result<(), BpfError> {
            self.0.push(format!("delete {} {count} {}", table.info().name, keys.len()));
            Ok(())
        }
        fn word(&mut self, table: TableId, _: &[u8], offset: usize, word: u64) -> Result<(), BpfError> {
            self.0.push(format!("word {} {offset} {word}", table.info().name));
            Ok(())
        }
        fn barrier(&mut self) -> Result<(), BpfError> {
            self.0.push("barrier".to_owned());
            Ok(())
        }
    }

    fn plan() -> Vec<Op> {
        let addr = |n: u64| Addr { hi: 1, lo: n };
        vec![
            Op::Slots { offset: 7, ids: vec![1, 2, 3] },
            Op::Slots { offset: 90, ids: vec![4] },
            Op::Peer { addr: addr(1), value: Some(Peer::WORLD) },
            Op::Peer { addr: addr(2), value: Some(Peer::WORLD) },
            Op::Peer { addr: addr(3), value: None },
            Op::PodWord { slot: 5, word: 9 },
            Op::Barrier,
            Op::Peer { addr: addr(4), value: None },
        ]
    }

    #[test]
    fn runs_are_batched_and_order_is_kept() {
        let mut log = Log::default();
        apply(&mut log, &plan()).unwrap();
        assert_eq!(
            log.0,
            [
                "put SLOTS 4 16 16",
                "put PEERS 2 32 32",
                "delete PEERS 1 16",
                "word PODS 0 9",
                "barrier",
                "delete PEERS 1 16",
            ]
        );
    }

    #[test]
    fn a_failure_stops_the_plan_and_names_the_table() {
        let mut log = Log(Vec::new(), Some(TableId::Peers));
        let error = apply(&mut log, &plan()).unwrap_err();
        assert_eq!(log.0, ["put SLOTS 4 16 16"]);
        assert_eq!((error.at, error.of), (4, 8));
        assert!(error.to_string().contains("PEERS"), "{error}");
    }
}
