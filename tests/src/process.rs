//! Processes that stay.

use std::path::PathBuf;
use std::time::Duration;

use crate::proto::Request;
use crate::vantage::{Vantage, lab_works};

/// A process that was started to stay. It ends with the lab.
#[derive(Debug)]
pub struct Process {
    place: Vantage,
    name: String,
    pid: u32,
    log: PathBuf,
}

impl Process {
    pub(crate) fn new(place: &Vantage, name: &str, pid: u32, log: PathBuf) -> Self {
        Self { place: place.clone(), name: name.to_owned(), pid, log }
    }

    /// Its id, as processes of the lab see it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to it and its children. If it has ended nothing happens.
    pub fn kill(&self, signal: i32) {
        lab_works(&self.place, self.place.pool().ask::<()>(&Request::Signal { pid: self.pid, signal }));
    }

    /// How it ended; nothing if it still runs after this time.
    #[must_use]
    pub fn wait(&self, within: Duration) -> Option<String> {
        let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        lab_works(&self.place, self.place.pool().ask(&Request::Wait { pid: self.pid, millis }))
    }

    /// What it has written to standard output and standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log)
            .unwrap_or_else(|error| format!("{} has no log at {}: {error}", self.name, self.log.display()))
    }
}
