//! What pods were told, on disk: an agent that starts anew has the names in force that the one before had.
//!
//! A file of JSON lines under the run directory, as the CNI's journal is, for one boot: another has other pods. A line is written
//! before its addresses are in force. It is not synced: what it is for is an agent that ends, not a machine that does. A last line
//! without its end is forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fairlead_objects::ObjectKey;
use serde::{Deserialize, Serialize};

use super::{Answer, Names};
use crate::lines::{behind, line};

/// The layout of the file.
const VERSION: u32 = 1;

/// Lines that are appended, beside as many as there are entries, before the file is written anew.
const MOST_APPENDED: usize = 4096;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    names: u32,
    boot_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    pod: ObjectKey,
    uid: String,
    name: String,
    until: u64,
    addresses: Vec<IpAddr>,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    boot_id: String,
    /// Nothing after it could not be written: tried again when it is written anew.
    file: Option<File>,
    appended: usize,
}

impl Journal {
    /// Opens the journal, and takes in what it has of pods that are there: (pod, uid).
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn open(
        path: &Path,
        boot_id: &str,
        names: &mut Names,
        now: u64,
        is_there: impl Fn(&ObjectKey, &str) -> bool,
    ) -> io::Result<Self> {
        let content = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            content => content?,
        };
        replay(&content, boot_id, names, now, is_there);
        let mut journal = Self { path: path.to_owned(), boot_id: boot_id.to_owned(), file: None, appended: 0 };
        journal.renew(names)?;
        Ok(journal)
    }

    /// Writes an answer down.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&mut self, answer: &Answer<'_>) -> io::Result<()> {
        let Answer { pod, uid, name, addresses, until } = *answer;
        let line = line(&Line {
            pod: pod.clone(),
            uid: uid.to_owned(),
            name: name.to_owned(),
            until,
            addresses: addresses.to_vec(),
        })?;
        let Some(file) = &mut self.file else { return Err(io::Error::other("the file could not be written before")) };
        let written = file.write_all(&line);
        self.appended += 1;
        if written.is_err() {
            // Half a line would spoil the next one.
            self.file = None;
        }
        written
    }

    /// Writes the file anew, if it has grown by much or is broken.
    ///
    /// # Errors
    /// It can't be written.
    pub fn tend(&mut self, names: &Names) -> io::Result<()> {
        if self.file.is_none() || self.appended > MOST_APPENDED + names.len() { self.renew(names) } else { Ok(()) }
    }

    fn renew(&mut self, names: &Names) -> io::Result<()> {
        let mut content = line(&Header { names: VERSION, boot_id: self.boot_id.clone() })?;
        for (pod, uid, name, until, addresses) in names.answers() {
            let (pod, uid, name) = (pod.clone(), uid.to_owned(), name.to_owned());
            content.extend(line(&Line { pod, uid, name, until, addresses })?);
        }
        fairlead_files::put(&self.path, &content, 0o600)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.appended = 0;
        Ok(())
    }
}

fn replay(content: &[u8], boot_id: &str, names: &mut Names, now: u64, is_there: impl Fn(&ObjectKey, &str) -> bool) {
    let Ok(lines) = behind(content, &Header { names: VERSION, boot_id: boot_id.to_owned() }) else { return };
    for line in lines {
        match serde_json::from_slice::<Line>(line) {
            Ok(Line { pod, uid, name, until, addresses }) if is_there(&pod, &uid) => {
                let answer = Answer { pod: &pod, uid: &uid, name: &name, addresses: &addresses, until };
                let _changed = names.learn(&answer, now);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "skipping an unreadable line of the journal of names"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn told(names: &Names) -> BTreeSet<(String, IpAddr, bool)> {
        let of = |address| names.told(address).map(move |(_, name, live)| (name.to_owned(), address, live));
        names.addresses().flat_map(of).collect()
    }

    #[test]
    fn p76_an_agent_that_starts_anew_has_the_names_of_the_one_before() {
        let path = std::env::temp_dir().join(format!("fairlead-names-{}", std::process::id()));
        let _none = std::fs::remove_file(&path);
        let (pod, other) = (ObjectKey::new("x", "a"), ObjectKey::new("x", "b"));
        let all = |_: &ObjectKey, _: &str| true;
        let mut names = Names::default();
        let mut journal = Journal::open(&path, "boot", &mut names, 0, all).unwrap();
        let mut answers = Vec::new();
        for n in 0..10_u8 {
            answers.push((
                if n % 2 == 0 { &pod } else { &other },
                format!("n{n}"),
                IpAddr::from([192, 0, 2, n]),
                1000 * u64::from(n),
            ));
        }
        for (pod, name, address, until) in &answers {
            let answer = Answer { pod, uid: "u", name, addresses: &[*address], until: *until };
            journal.note(&answer).unwrap();
            names.learn(&answer, 0);
        }
        names.expire(5000);
        let mut again = Names::default();
        Journal::open(&path, "boot", &mut again, 5000, all).unwrap();
        assert_eq!(told(&again), told(&names));
        // Half a line at the end, and one that nobody can read.
        let mut content = std::fs::read(&path).unwrap();
        content.extend(b"{\"of a later\": \"release\"}\n{\"pod\":");
        std::fs::write(&path, content).unwrap();
        let mut of_one = Names::default();
        Journal::open(&path, "boot", &mut of_one, 5000, |key, uid| *key == pod && uid == "u").unwrap();
        assert_eq!(of_one.len(), 5, "those of pods that are gone are left out");
        let mut rebooted = Names::default();
        Journal::open(&path, "another boot", &mut rebooted, 0, all).unwrap();
        assert!(rebooted.is_empty());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_journal_that_grows_is_written_anew() {
        let path = std::env::temp_dir().join(format!("fairlead-names-grows-{}", std::process::id()));
        let mut names = Names::default();
        let mut journal = Journal::open(&path, "boot", &mut names, 0, |_, _| true).unwrap();
        let pod = ObjectKey::new("x", "a");
        for until in 0..=MOST_APPENDED as u64 + 2 {
            let answer = Answer { pod: &pod, uid: "", name: "n", addresses: &[[192, 0, 2, 1].into()], until };
            names.learn(&answer, 0);
            journal.note(&answer).unwrap();
            journal.tend(&names).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 1000);
        std::fs::remove_file(&path).unwrap();
    }
}
