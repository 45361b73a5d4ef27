//! The journal: the records of the ledger, on disk before anybody relies on them.
//!
//! A file of JSON lines under the run directory. Its first line names the boot: network namespaces do not outlive one,
//! so a journal of another boot is no longer true. A record is appended and synced; after many the file is replaced by
//! one with the state alone. A last line without its end is what a crash leaves and is forgotten: nobody was told of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CniError, Ledger, Record};
use crate::lines::{behind, line};

/// How many records are appended before the file is rewritten.
const COMPACT_AFTER: usize = 4096;

/// The layout of the file.
const VERSION: u32 = 1;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    journal: u32,
    boot_id: String,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot_id: String,
    file: File,
    length: u64,
    appended: usize,
}

impl Journal {
    /// Opens the journal and gives the state that it holds; an empty state when there is none, or one of another boot.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn open(path: &Path, boot_id: &str) -> Result<(Self, Ledger), CniError> {
        let content = match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            content => content.map_err(failed("read", path))?,
        };
        let ledger = replay(&content, boot_id);
        let (file, length) = write_new(path, boot_id, &ledger).map_err(failed("rewrite", path))?;
        Ok((Self { path: path.to_owned(), boot_id: boot_id.to_owned(), file, length, appended: 0 }, ledger))
    }

    /// Writes a record down and applies it. On an error neither has happened.
    ///
    /// The caller is blocked meanwhile; under /run, which is memory, that is microseconds.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn commit(&mut self, ledger: &mut Ledger, record: Record, now: Duration) -> Result<(), CniError> {
        let line = line(&record).map_err(failed("write", &self.path))?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line in the middle would spoil the record after it.
            self.file.set_len(self.length).map_err(failed("shorten", &self.path))?;
            return Err(failed("write", &self.path)(error));
        }
        self.length += line.len() as u64;
        self.appended += 1;
        ledger.apply(record, now);
        if self.appended >= COMPACT_AFTER {
            if let Err(error) = self.renew(ledger) {
                tracing::warn!(path = %self.path.display(), %error, "can't compact the CNI journal");
            }
            self.appended = 0;
        }
        Ok(())
    }

    /// Writes the state again where somebody has removed the file: the next agent knows its pods from it. Says whether it was
    /// so.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn keep(&mut self, ledger: &Ledger) -> Result<bool, CniError> {
        if self.path.try_exists().map_err(failed("find", &self.path))? {
            return Ok(false);
        }
        if let Some(directory) = self.path.parent() {
            std::fs::create_dir_all(directory).map_err(failed("make the directory of", &self.path))?;
        }
        self.renew(ledger).map_err(failed("rewrite", &self.path))?;
        Ok(true)
    }

    fn renew(&mut self, ledger: &Ledger) -> io::Result<()> {
        (self.file, self.length) = write_new(&self.path, &self.boot_id, ledger)?;
        self.appended = 0;
        Ok(())
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    move |source| CniError::Journal { what, path: path.to_owned(), source }
}

/// The state that a file's content stands for.
fn replay(content: &[u8], boot_id: &str) -> Ledger {
    let mut ledger = Ledger::default();
    let lines = match behind(content, &Header { journal: VERSION, boot_id: boot_id.to_owned() }) {
        Ok(lines) => lines,
        Err(header) => {
            if !content.is_empty() {
                tracing::info!(?header, "the CNI journal is from another boot or version: starting a new one");
            }
            return ledger;
        }
    };
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(record) => ledger.apply(record, Duration::ZERO),
            Err(error) => tracing::warn!(%error, "skipping an unreadable record of the CNI journal"),
        }
    }
    ledger
}

/// Writes the state to a new file that takes the place of the old one.
fn write_new(path: &Path, boot_id: &str, ledger: &Ledger) -> io::Result<(File, u64)> {
    let mut content = line(&Header { journal: VERSION, boot_id: boot_id.to_owned() })?;
    for record in ledger.snapshot() {
        content.extend(line(&record)?);
    }
    fairlead_files::put(path, &content, 0o644)?;
    Ok((OpenOptions::new().append(true).open(path)?, content.len() as u64))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use fairlead_cni::Mac;
    use fairlead_cni::protocol::{Attachment, PodRef};
    use proptest::prelude::*;

    use super::*;
    use crate::cni::Entry;

    fn attachment(n: u8) -> Attachment {
        Attachment { container_id: format!("c{n}"), ifname: "eth0".to_owned() }
    }

    fn reserved(n: u8) -> Record {
        let pod = PodRef { namespace: "shop".to_owned(), name: format!("web-{n}"), uid: Some("u".to_owned()) };
        let ips: Vec<IpAddr> = vec![format!("10.244.1.{n}").parse().unwrap()];
        let entry = Entry {
            slot: n.into(),
            ips,
            pod,
            netns: "/n".to_owned(),
            netns_inode: 1,
            attached: false,
            network: "pods".to_owned(),
            mac: Some(Mac([2, 0, 0, 0, 0, n])),
        };
        Record::Reserved { attachment: attachment(n), entry }
    }

    fn ranges() -> Record {
        Record::Ranges { cidrs: vec!["10.244.1.0/24".parse().unwrap()] }
    }

    fn directory() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // As /run is: memory, where thousands of syncs cost nothing.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = base.join(format!("fairlead-journal-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn c23_c24_a_killed_agent_finds_its_pods_again() {
        let directory = directory();
        let path = directory.join("journal");
        let (mut journal, mut ledger) = Journal::open(&path, "boot").unwrap();
        for record in [ranges(), reserved(5), Record::Attached { attachment: attachment(5) }, reserved(6)] {
            journal.commit(&mut ledger, record, Duration::ZERO).unwrap();
        }
        journal.commit(&mut ledger, Record::Released { attachment: attachment(6) }, Duration::ZERO).unwrap();
        let (_, again) = Journal::open(&path, "boot").unwrap();
        assert_eq!(again.snapshot(), ledger.snapshot());
        assert!(again.get(&attachment(5)).unwrap().attached);
        let (_, other_boot) = Journal::open(&path, "another boot").unwrap();
        assert_eq!(other_boot.entries().count(), 0);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn c23_a_journal_that_somebody_removes_is_written_again() {
        let directory = directory();
        let path = directory.join("run/journal");
        std::fs::create_dir(directory.join("run")).unwrap();
        let (mut journal, mut ledger) = Journal::open(&path, "boot").unwrap();
        journal.commit(&mut ledger, reserved(5), Duration::ZERO).unwrap();
        assert!(!journal.keep(&ledger).unwrap());
        std::fs::remove_dir_all(directory.join("run")).unwrap();
        assert!(journal.keep(&ledger).unwrap());
        journal.commit(&mut ledger, Record::Attached { attachment: attachment(5) }, Duration::ZERO).unwrap();
        assert_eq!(Journal::open(&path, "boot").unwrap().1.snapshot(), ledger.snapshot());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_long_journal_is_compacted() {
        let directory = directory();
        let path = directory.join("journal");
        let (mut journal, mut ledger) = Journal::open(&path, "boot").unwrap();
        for _ in 0..COMPACT_AFTER {
            journal.commit(&mut ledger, reserved(5), Duration::ZERO).unwrap();
        }
        journal.commit(&mut ledger, reserved(6), Duration::ZERO).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 10_000);
        assert_eq!(Journal::open(&path, "boot").unwrap().1.snapshot(), ledger.snapshot());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn c23_a_line_that_cannot_be_read_costs_only_itself() {
        let mut content = line(&Header { journal: VERSION, boot_id: "boot".to_owned() }).unwrap();
        content.extend(line(&reserved(5)).unwrap());
        content.extend(b"{\"record\":\"of a later release\"}\n\xff\xff\n");
        content.extend(line(&reserved(6)).unwrap());
        assert_eq!(replay(&content, "boot").entries().count(), 2);
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let record = (2..8u8, 0..3u8).prop_map(|(n, kind)| match kind {
            0 => reserved(n),
            1 => Record::Attached { attachment: attachment(n) },
            _ => Record::Released { attachment: attachment(n) },
        });
        prop::collection::vec(record, 0..10)
    }

    proptest! {
        // Every case loads some thousand prefixes.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn c23_every_prefix_of_a_torn_journal_loads(records in records()) {
            let mut content = line(&Header { journal: VERSION, boot_id: "boot".to_owned() }).unwrap();
            content.extend(line(&ranges()).unwrap());
            let mut ends = vec![content.len()];
            for record in &records {
                content.extend(line(record).unwrap());
                ends.push(content.len());
            }
            for end in 0..=content.len() {
                let mut expected = Ledger::default();
                if let Some(whole) = ends.iter().rposition(|e| *e <= end) {
                    expected.apply(ranges(), Duration::ZERO);
                    records[..whole].iter().for_each(|r| expected.apply(r.clone(), Duration::ZERO));
                }
                let replayed = replay(&content[..end], "boot");
                let (replayed, expected) = (replayed.entries(), expected.entries());
                prop_assert_eq!(replayed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
        }
    }
}
