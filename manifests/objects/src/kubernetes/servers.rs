//! The addresses of the API server and how it goes with them.
//!
//! One address is configured. Once a server answers, the endpoints of the service `default/kubernetes` are known too;
//! they are kept in a file for the next start, when the configured one may be away. Requests go to one address until
//! that fails, then to the next. Certificates are checked against the address, and if they don't have it against the
//! name `kubernetes.default.svc`, which every API server's certificate has for the cluster's own pods: whoever holds a
//! certificate of the cluster's authority for that name is an API server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::trouble::Often;

/// The file with the endpoints that were known last, one a line.
const KEPT: &str = "apiservers";
/// How often the log is told that nobody answers.
const REMIND: Duration = Duration::from_secs(60);

/// The addresses.
#[derive(Debug)]
pub(super) struct Servers {
    configured: String,
    /// Where endpoints are kept. Without, or without TLS, the configured address is the only one.
    keep: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Endpoints of the service, in the order in which they are tried.
    endpoints: Vec<String>,
    current: String,
    /// Addresses that the certificate behind them does not have.
    named: BTreeSet<String>,
    /// Addresses that failed since one answered last.
    failed: BTreeSet<String>,
    away: Option<Away>,
}

/// Nobody answers.
#[derive(Debug)]
struct Away {
    since: Instant,
    error: String,
    reminder: Often,
}

impl Servers {
    /// Begins with the configured address (a host and perhaps a port), and the endpoints kept in the run directory.
    pub(super) fn new(configured: &str, run_dir: Option<&Path>) -> Self {
        let keep = run_dir.map(|dir| dir.join(KEPT));
        let text = keep.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let kept: BTreeSet<SocketAddr> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let endpoints = kept.iter().map(ToString::to_string).collect();
        let state = State { endpoints, current: configured.to_owned(), ..State::default() };
        Self { configured: configured.to_owned(), keep, state: Mutex::new(state) }
    }

    /// These, kept nowhere.
    #[cfg(test)]
    pub(super) fn of(configured: &str, endpoints: &[&str]) -> Self {
        let new = Self::new(configured, None);
        new.state().endpoints = endpoints.iter().map(ToString::to_string).collect();
        new
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every address, in the order in which they are tried. The configured one may be an endpoint as well.
    fn all(&self, state: &State) -> Vec<String> {
        let others = state.endpoints.iter().filter(|address| **address != self.configured);
        std::iter::once(&self.configured).chain(others).cloned().collect()
    }

    /// Where the next request goes.
    pub(super) fn current(&self) -> String {
        self.state().current.clone()
    }

    /// Whether the certificate behind an address is checked against the service's name.
    pub(super) fn is_named(&self, address: &str) -> bool {
        self.state().named.contains(address)
    }

    /// The certificate does not have the address. Whether this is news: then the service's name is tried next.
    pub(super) fn lacks_address(&self, address: &str) -> bool {
        self.state().named.insert(address.to_owned())
    }

    /// A server answered.
    pub(super) fn answered(&self) {
        let mut state = self.state();
        state.failed.clear();
        if let Some(away) = state.away.take() {
            let seconds = away.since.elapsed().as_secs();
            tracing::info!(server = state.current, seconds, "the API server is back");
        }
    }

    /// There was no answer at an address.
    pub(super) fn failed(&self, address: &str, error: &str) {
        let mut state = self.state();
        let all = self.all(&state);
        state.failed.insert(address.to_owned());
        if state.current == address {
            let next = all.iter().position(|known| known == address).map_or(0, |at| (at + 1) % all.len());
            state.current.clone_from(&all[next]);
        }
        let next = state.current.clone();
        if all.iter().any(|known| !state.failed.contains(known)) {
            if next != address {
                tracing::info!(server = address, error, next, "an API server does not answer: trying another");
            }
            return;
        }
        let fresh = || Away { since: Instant::now(), error: String::new(), reminder: Often::new(REMIND) };
        let away = state.away.get_or_insert_with(fresh);
        error.clone_into(&mut away.error);
        if away.reminder.is_due() {
            let seconds = away.since.elapsed().as_secs();
            let servers = all.join(" ");
            tracing::warn!(servers, error, seconds, "no API server answers: the current state stays in force");
        }
    }

    /// The endpoints of the service, from a server. None at all is no news: a server that is being restarted takes
    /// itself out.
    pub(super) fn set_endpoints(&self, endpoints: &BTreeSet<SocketAddr>) {
        let Some(path) = self.keep.as_ref().filter(|_| !endpoints.is_empty()) else { return };
        let new: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        {
            let mut state = self.state();
            if state.endpoints == new {
                return;
            }
            state.failed.retain(|address| new.contains(address) || *address == self.configured);
            state.named.retain(|address| new.contains(address) || *address == self.configured);
            // Requests on the way end as they end; the next one goes to a server that is there.
            if state.current != self.configured && !new.contains(&state.current) {
                state.current.clone_from(&self.configured);
            }
            state.endpoints.clone_from(&new);
        }
        let servers = new.join(" ");
        match fairlead_files::put(path, (new.join("\n") + "\n").as_bytes(), 0o644) {
            Ok(_) => tracing::info!(servers, "endpoints of the API server"),
            Err(error) => {
                let path = path.display();
                tracing::warn!(servers, %path, %error, "can't save the endpoints of the API server for the next start");
            }
        }
    }

    /// What is wrong, while it is.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        let Away { since, error, reminder: _ } = state.away.as_ref()?;
        let seconds = since.elapsed().as_secs();
        let all = self.all(&state).join(", ");
        Some(format!("no API server has answered at {all} for {seconds} s: {error}; the current state stays in force"))
    }
}

#[cfg(test)]
mod tests;
