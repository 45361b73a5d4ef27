//! What tests have run, on its way to a file.

use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::string::String;
use std::sync::{Mutex, OnceLock};
use std::vec::Vec;

use super::replay::{Entry, Record};

/// Names the file that recordings are added to.
pub const VARIABLE: &str = "FAIRLEAD_RECORD_FRAMES";

/// What a host has run.
pub(super) struct Recorder {
    file: &'static Mutex<File>,
    test: String,
    tables: Option<Vec<Entry>>,
    records: Vec<u8>,
    /// Frames that are written down.
    pub(super) steps: usize,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("test", &self.test).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder for a new host, if tests are recorded.
    pub(super) fn begin() -> Option<Self> {
        static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
        let open = || {
            let path = std::env::var_os(VARIABLE)?;
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(Mutex::new(file.expect("the file for recordings can be written")))
        };
        let file = FILE.get_or_init(open).as_ref()?;
        // The harness calls a test's thread like the test.
        let test = std::thread::current().name().unwrap_or("main").into();
        Some(Self { file, test, tables: None, records: Vec::new(), steps: 0 })
    }

    /// The test that runs.
    pub(super) fn test(&self) -> &str {
        &self.test
    }

    /// Tables, unless they are those of the step before.
    pub(super) fn differing(&mut self, tables: Vec<Entry>) -> Option<Vec<Entry>> {
        if self.tables.as_ref() == Some(&tables) {
            return None;
        }
        self.tables = Some(tables.clone());
        Some(tables)
    }

    /// Adds a record.
    pub(super) fn write(&mut self, record: &Record) {
        record.write(&mut self.records);
    }
}

impl Drop for Recorder {
    /// A test that failed has nothing to say about kernels.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.file.lock().expect("no other test failed").write_all(&self.records).expect("a recording is written");
        }
    }
}
