//! How the zone in the kernel is.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::dns::DnsAnswer;
use fairlead_objects::DomainName;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::bpf::Tables;

/// Whether the kernel answers DNS queries of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum InKernel {
    /// Those that the DNS server of the node would answer the same
    #[default]
    Auto,
    /// None
    Off,
}

/// How it is, for those who ask.
#[derive(Debug, Default)]
pub struct State {
    why_not: Mutex<Option<String>>,
    /// Names that rules of policies have, once that is known.
    rules: Mutex<Option<Vec<DomainName>>>,
    /// When the lease ends, in milliseconds since the node's start.
    until: AtomicU64,
    /// Names in the table.
    names: AtomicUsize,
    /// Something is to be looked at.
    pub changed: Notify,
}

impl State {
    fn why(&self) -> MutexGuard<'_, Option<String>> {
        self.why_not.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether queries are answered.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.until.load(Ordering::Relaxed) > now()
    }

    /// Why they are not, or not all that could be.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        let why = self.why().clone();
        why.or_else(|| (!self.in_force()).then(|| "the node's DNS server has not told its zone".to_owned()))
    }

    /// Names in the table.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.load(Ordering::Relaxed)
    }

    /// Takes note of the names that rules in force have. What they open is opened by an answer of the server.
    pub fn set_rules(&self, rules: Vec<DomainName>) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
        self.changed.notify_one();
    }

    /// Why policies want answers about names in a zone to come from the server, if they do.
    #[must_use]
    pub fn rule_about(&self, zone: &str) -> Option<String> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rules) = &*rules else { return Some("the policies are not known yet".to_owned()) };
        let rule = rules.iter().find(|name| name.meets(zone))?;
        Some(format!("policies have the domain name {rule}: what it stands for is opened by answers of the DNS server"))
    }

    /// Takes note of how it is. Says whether the reason is new.
    pub fn set(&self, until: u64, names: usize, why_not: Option<String>) -> bool {
        self.until.store(until, Ordering::Relaxed);
        self.names.store(names, Ordering::Relaxed);
        let mut why = self.why();
        let is_new = *why != why_not;
        *why = why_not;
        is_new
    }
}

/// Milliseconds since the node's start, by the clock of the lease.
#[must_use]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}

/// Queries that were answered, since the tables were made.
#[must_use]
pub fn answers(tables: &Tables) -> Option<Vec<(DnsAnswer, u64)>> {
    let map = tables.map(TableId::ZoneAnswers).ok()?;
    let count = |answer: DnsAnswer| {
        let values = map.get(&(answer as u32).to_ne_bytes()).ok()??;
        Some(values.chunks_exact(8).filter_map(|value| Some(u64::from_ne_bytes(value.try_into().ok()?))).sum())
    };
    DnsAnswer::ALL.into_iter().map(|answer| Some((answer, count(answer)?))).collect()
}
