//! What pods were told, on disk: an agent that starts anew has the names in force that the one before had.
//!
//! A file of JSON lines under the run directory, as the CNI's journal is, for one boot: another has other pods. A line is written
//! before its addresses are in force. It is not synced: what it is for is an agent that ends, not a machine that does. A last line
//! without its end is forgotten.
//!
//! The file is in memory, and the agent's: it has no more than twice the bytes of what there is to write. An answer that a pod gets
//! again, which lasts a little longer each time, is not written each time.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fairlead_objects::ObjectKey;
use serde::{Deserialize, Serialize};
use tracing::error;

use super::{Answer, GRACE, Names};
use crate::lines::{behind, line};

/// The layout of the file.
const VERSION: u32 = 1;

/// Bytes that are appended before the file is written anew, where it has fewer itself.
const MOST_APPENDED: usize = 64 << 10;

/// Most bytes that are read: several times what all names take that there may be.
const MOST_READ: u64 = 64 << 20;

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
    /// Bytes of the file when it was written anew, and since.
    size: usize,
    appended: usize,
    /// What was appended, by its hash, and until when that is.
    noted: HashMap<u64, u64>,
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
        let content = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
            Ok(file) if file.len() > MOST_READ => {
                let (path, bytes) = (path.display(), file.len());
                error!(
                    %path,
                    bytes, "the journal of names is larger than any that an agent writes: it is thrown away, so what pods were \
                     told opens nothing until they ask again"
                );
                Vec::new()
            }
            Ok(_) => std::fs::read(path)?,
        };
        replay(&content, boot_id, names, now, is_there);
        let mut journal = Self {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            file: None,
            size: 0,
            appended: 0,
            noted: HashMap::new(),
        };
        journal.renew(names)?;
        Ok(journal)
    }

    /// Writes an answer down that is among the names by now, unless it is there but for less than [`GRACE`]: then the pod may
    /// use it as long as its answer lasts.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&mut self, answer: &Answer<'_>, names: &Names) -> io::Result<()> {
        let Answer { pod, uid, name, addresses, until } = *answer;
        let key = hash(answer);
        if self.noted.get(&key).is_some_and(|noted| until < noted.saturating_add(GRACE)) {
            return Ok(());
        }
        let line = line(&Line {
            pod: pod.clone(),
            uid: uid.to_owned(),
            name: name.to_owned(),
            until,
            addresses: addresses.to_vec(),
        })?;
        let Some(file) = &mut self.file else { return Err(io::Error::other("the file could not be written before")) };
        let written = if self.appended + line.len() > self.size.max(MOST_APPENDED) {
            self.renew(names)
        } else {
            self.appended += line.len();
            file.write_all(&line)
        };
        match written {
            Ok(()) => drop(self.noted.insert(key, until)),
            // Half a line would spoil the next one.
            Err(_) => self.file = None,
        }
        written
    }

    /// Whether it is time to write the file anew: it has grown, or is broken.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.file.is_none() || self.appended > self.size.max(MOST_APPENDED) / 2
    }

    /// Writes the file anew.
    ///
    /// # Errors
    /// It can't be written.
    pub fn renew(&mut self, names: &Names) -> io::Result<()> {
        let mut content = line(&Header { names: VERSION, boot_id: self.boot_id.clone() })?;
        for (pod, uid, name, until, addresses) in names.answers() {
            let (pod, uid, name) = (pod.clone(), uid.to_owned(), name.to_owned());
            content.extend(line(&Line { pod, uid, name, until, addresses })?);
        }
        fairlead_files::put(&self.path, &content, 0o600)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        (self.size, self.appended) = (content.len(), 0);
        self.noted.clear();
        Ok(())
    }
}

/// What an answer says, but for its end.
fn hash(answer: &Answer<'_>) -> u64 {
    let Answer { pod, uid, name, addresses, until: _ } = answer;
    let mut hasher = DefaultHasher::new();
    (pod, uid, name, addresses).hash(&mut hasher);
    hasher.finish()
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
            names.learn(&answer, 0);
            journal.note(&answer, &names).unwrap();
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
    fn p85_what_is_told_again_and_again_takes_no_more_room() {
        let path = std::env::temp_dir().join(format!("fairlead-names-grows-{}", std::process::id()));
        let _none = std::fs::remove_file(&path);
        let mut names = Names::default();
        let mut journal = Journal::open(&path, "boot", &mut names, 0, |_, _| true).unwrap();
        let pod = ObjectKey::new("x", "a");
        let addresses: Vec<IpAddr> = (0..1024_u16).map(|n| [0x2001, 0xdb8, 1, 2, 3, 4, 5, n].into()).collect();
        let size = || std::fs::metadata(&path).unwrap().len();
        let mut largest = 0;
        for second in 0..10_000 {
            // Now and then in another order.
            let mut addresses = addresses.clone();
            addresses.rotate_left(second % 7);
            let until = second as u64 * 1000;
            let answer = Answer { pod: &pod, uid: "", name: "n.example", addresses: &addresses, until };
            if second < 20 || second % 100 == 0 {
                names.learn(&answer, 0);
                journal.note(&answer, &names).unwrap();
                largest = largest.max(size());
            }
        }
        journal.renew(&names).unwrap();
        assert!(largest <= 2 * size().max(MOST_APPENDED as u64), "{largest}, and needed are {}", size());
        // What lasts a little longer is not written.
        let before = size();
        for n in 0..10_000 {
            let answer =
                Answer { pod: &pod, uid: "", name: "n.example", addresses: &addresses, until: 20_000_000 + n / 10 };
            if n % 1000 == 0 {
                names.learn(&answer, 0);
            }
            journal.note(&answer, &names).unwrap();
        }
        assert!(size() <= before + 64_000, "one line");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn p85_a_journal_that_nobody_can_have_written_is_thrown_away() {
        let path = std::env::temp_dir().join(format!("fairlead-names-large-{}", std::process::id()));
        File::create(&path).unwrap().set_len(MOST_READ + 1).unwrap();
        let mut names = Names::default();
        Journal::open(&path, "boot", &mut names, 0, |_, _| true).unwrap();
        assert!(names.is_empty() && std::fs::metadata(&path).unwrap().len() < 1000);
        std::fs::remove_file(&path).unwrap();
    }
}
