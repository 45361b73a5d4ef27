//! Whether what the source of objects told has reached the kernel in time, and whether it still tells.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fairlead_objects::kubernetes::WatchState;
use jiff::Timestamp;

/// How long a change may wait before the agent is unhealthy: twice the period after which kube-proxy would look by
/// itself, as there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts changes on their way from the source to the kernel.
#[derive(Debug, Default)]
pub struct Freshness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Changes that the source told.
    told: u64,
    /// Changes that the loop has taken.
    taken: u64,
    /// Changes that are in force.
    finished: u64,
    /// Since when one waits.
    waiting: Option<Instant>,
    /// When everything was in force last.
    updated: Option<Timestamp>,
    /// When a change was told last.
    queued: Option<Timestamp>,
}

/// How fresh the kernel's tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// When everything that was told was in force last; nothing before the first time.
    pub updated: Option<Timestamp>,
    /// When a change was told last.
    pub queued: Option<Timestamp>,
    /// Whether no change has waited too long. While the agent starts it has time.
    pub healthy: bool,
}

impl Freshness {
    /// The source told a change, which is now on its way to the loop.
    pub fn told(&self) {
        self.told_at(Instant::now());
    }

    fn told_at(&self, now: Instant) {
        let mut state = self.state();
        state.told += 1;
        state.queued = Some(Timestamp::now());
        state.waiting.get_or_insert(now);
    }

    /// The loop took one.
    pub fn taken(&self) {
        self.state().taken += 1;
    }

    /// All that the loop took is in force. Gives how long the first of it waited, if there was any.
    pub fn in_force(&self) -> Option<Duration> {
        self.in_force_at(Instant::now())
    }

    fn in_force_at(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state();
        state.updated = Some(Timestamp::now());
        let since = state.waiting.filter(|_| state.taken > state.finished);
        state.finished = state.taken;
        // What was told meanwhile has waited since now at most.
        state.waiting = (state.told > state.taken).then_some(now);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// How it is.
    #[must_use]
    pub fn view(&self) -> View {
        self.view_at(Instant::now())
    }

    fn view_at(&self, now: Instant) -> View {
        let State { told: _, taken: _, finished: _, waiting, updated, queued } = *self.state();
        let late = waiting.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        View { updated, queued, healthy: updated.is_none() || !late }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which watches have been silent for longer than `patience`, and what that means; nothing while none has, or where silence
/// does not matter.
#[must_use]
pub fn unheard(watches: &[WatchState], patience: Option<Duration>) -> Option<String> {
    let patience = patience?;
    let silent = watches.iter().filter(|watch| watch.age >= patience);
    let silent: Vec<_> = silent.map(|watch| format!("{} for {} s", watch.kind.as_str(), watch.age.as_secs())).collect();
    if silent.is_empty() {
        return None;
    }
    Some(format!(
        "nothing was received from the API server about {}: the current state stays in force, but changes do not \
         arrive; check the network path from this node to it, and the agent's credentials and ClusterRole",
        silent.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use fairlead_objects::Kind;

    use super::*;

    #[test]
    fn s59_a_watch_that_is_silent_for_too_long_is_named_and_a_short_outage_is_not() {
        let watch = |kind, seconds| WatchState { kind, alive: false, age: Duration::from_secs(seconds) };
        let watches = [watch(Kind::Node, 3), watch(Kind::Pod, 599)];
        let patience = Some(Duration::from_secs(600));
        assert_eq!(unheard(&watches, patience), None, "that it is not open does not matter yet");
        let text = unheard(&[watches[0], watch(Kind::Pod, 600)], patience).unwrap();
        assert!(text.contains("about Pod for 600 s:") && text.contains("stays in force"), "{text}");
        assert_eq!(unheard(&[watch(Kind::Pod, 1_000_000)], None), None);
        assert_eq!(unheard(&[], patience), None, "a directory is no API server");
    }

    #[test]
    fn s51_a_change_that_waits_too_long_is_unhealthy() {
        let (freshness, start) = (Freshness::default(), Instant::now());
        let healthy = |seconds| freshness.view_at(start + Duration::from_secs(seconds)).healthy;
        freshness.told_at(start);
        assert!(healthy(3600), "an agent that starts is healthy");
        freshness.taken();
        freshness.in_force_at(start);
        assert!(healthy(3600), "nothing waits");
        freshness.told_at(start);
        freshness.told_at(start + Duration::from_secs(59));
        assert!(healthy(59) && !healthy(60), "the oldest counts");
        // One is in force, the other was told in between.
        freshness.taken();
        freshness.in_force_at(start + Duration::from_secs(70));
        assert!(healthy(129) && !healthy(130));
        freshness.taken();
        freshness.in_force_at(start + Duration::from_secs(131));
        assert!(healthy(3600));
    }
}
