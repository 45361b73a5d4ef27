//! Links of pods that have begun with filters: made beside the loop and after CNI ADD, since each waits for a grace period and
//! keeps everybody else from the kernel's devices meanwhile (`tcx_link_attach` in kernel/bpf/tcx.c holds the RTNL lock). More
//! threads would wait for each other, so there is one.
//!
//! In a burst it takes half of the time at most, so that those who come find the lock free, and there is never more to do than
//! a node has places for pods: one that has gone is taken back, and none is there twice.
//!
//! A pod's link comes before its filter goes: while both are there the program of the link decides on every packet, and what it
//! has decided on no filter sees.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug;

use super::attach::{Place, with_target};
use super::clsact;
use super::filters::{OF_POD, PodFilters, Rank};
use super::look::is_still;
use super::{BpfError, PinDir, links};

/// For so long no pod may have come, so that nobody's ADD waits behind a link.
const QUIET: Duration = Duration::from_millis(200);

/// How long a pod waits for that at most.
const PATIENCE: Duration = Duration::from_millis(500);

/// A pod that has filters and is to get links.
#[derive(Debug)]
struct Begun {
    ifindex: u32,
    link: String,
    since: Instant,
}

/// What became of a pod's links.
#[derive(Debug)]
pub struct Linked {
    /// The index of its interface.
    pub(super) ifindex: u32,
    /// The name of its interface.
    pub(super) link: String,
    /// What its programs are attached by: what comes in there, and what leaves by it.
    pub(super) outcome: Result<[OwnedFd; 2], BpfError>,
}

/// The worker that makes links.
#[derive(Debug, Default)]
pub(super) struct Later {
    begun: Mutex<VecDeque<Begun>>,
    more: Condvar,
}

impl Later {
    /// Starts the worker, which tells `done` of each pod. It ends when that says that nobody listens.
    pub(super) fn start(
        programs: PodFilters,
        pins: PinDir,
        done: impl Fn(Linked) -> bool + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let later = Arc::new(Self::default());
        let worker = Arc::clone(&later);
        std::thread::Builder::new().name("pod-links".to_owned()).spawn(move || {
            let mut rested = Instant::now();
            loop {
                let Begun { ifindex, link, .. } = worker.next(rested);
                let begun = Instant::now();
                // It went meanwhile, and its index may be another's. Said all the same: if it is there, it is looked after.
                let outcome = match nix::net::if_::if_indextoname(ifindex) {
                    Ok(name) if is_still(&link, &name.to_string_lossy()) => attach(&programs, &pins, ifindex, &link),
                    other => {
                        let source = other.map_or_else(Into::into, |_| nix::errno::Errno::ENODEV.into());
                        Err(BpfError::Attach { program: "from_pod", target: format!("the interface {link}"), source })
                    }
                };
                rested = Instant::now() + begun.elapsed();
                if !done(Linked { ifindex, link, outcome }) {
                    return;
                }
            }
        })?;
        Ok(later)
    }

    fn begun(&self) -> MutexGuard<'_, VecDeque<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod has its filters.
    pub(super) fn push(&self, ifindex: u32, link: &str) {
        let mut begun = self.begun();
        begun.retain(|pod| pod.ifindex != ifindex);
        begun.push_back(Begun { ifindex, link: link.to_owned(), since: Instant::now() });
        self.more.notify_one();
    }

    /// Takes a pod from the worker. Whether it had not begun with it.
    pub(super) fn take_back(&self, ifindex: u32) -> bool {
        let mut begun = self.begun();
        let before = begun.len();
        begun.retain(|pod| pod.ifindex != ifindex);
        begun.len() < before
    }

    /// Waits for the next pod whose turn it is. `rested`: when the worker has rested for as long as it worked.
    fn next(&self, rested: Instant) -> Begun {
        let mut begun = self.begun();
        loop {
            let now = Instant::now();
            let ends = begun.front().zip(begun.back()).map(|(first, last)| (first.since, last.since));
            begun = match ends.map(|(first, last)| due(first, last, rested)) {
                Some(due) if due <= now => match begun.pop_front() {
                    Some(pod) => return pod,
                    None => begun,
                },
                Some(due) => {
                    let waited = self.more.wait_timeout(begun, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.more.wait(begun).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// When the first is due, of pods of which the last came then: in a quiet moment, or else when it has waited for long and others
/// have had their turn.
fn due(first: Instant, last: Instant, rested: Instant) -> Instant {
    (first + PATIENCE).max(rested).min(last + QUIET)
}

/// Attaches by links, then removes the filters that stood in for them. The guards stay.
fn attach(programs: &PodFilters, pins: &PinDir, ifindex: u32, link: &str) -> Result<[OwnedFd; 2], BpfError> {
    let attach = |ingress| {
        let place = Place::Interface { ifindex, ingress };
        let pin = pins.packet_link(if ingress { "in" } else { "out" }, link);
        let made = with_target(place, link, |target, attach_type| {
            links::attach(programs.program(ingress).as_fd(), target, attach_type, &pin, None)
        });
        made.map_err(|source| BpfError::Attach {
            program: if ingress { "from_pod" } else { "to_pod" },
            target: format!("the interface {link}"),
            source,
        })
    };
    let outgoing = attach(false)?;
    let incoming = attach(true)?;
    for (ingress, program) in [(true, OF_POD[0]), (false, OF_POD[1])] {
        if let Err(error) = clsact::remove(ifindex, ingress, Rank::PROGRAM, program) {
            debug!(link, program, %error, "a filter behind a pod's link stays until the next look");
        }
    }
    Ok([incoming, outgoing])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_waits_for_a_quiet_moment_but_not_for_ever() {
        let first = Instant::now();
        assert_eq!(due(first, first, first), first + QUIET);
        assert_eq!(due(first, first + QUIET, first), first + QUIET * 2);
        assert_eq!(due(first, first + PATIENCE, first), first + PATIENCE);
    }

    #[test]
    fn c48_in_a_burst_those_who_come_have_half_of_the_time_and_what_waits_has_a_bound() {
        let took = Duration::from_millis(18);
        let (first, mut now, mut worked) = (Instant::now(), Instant::now() + PATIENCE, Duration::ZERO);
        let (begin, mut rested) = (now, now);
        for _ in 0..100 {
            // Somebody comes all the time.
            now = now.max(due(first, now, rested)) + took;
            (worked, rested) = (worked + took, now + took);
        }
        assert!(worked * 2 <= now - begin + took, "{worked:?} of {:?}", now - begin);
        // Nobody else is there to wait for.
        assert_eq!(due(first, first, now + took), first + QUIET);
        let later = Later::default();
        for round in 0..3 {
            (0..100).for_each(|ifindex| later.push(ifindex, &format!("pod-{round}-{ifindex}")));
        }
        assert_eq!(later.begun().len(), 100, "each is there once");
    }

    #[test]
    fn a_pod_that_is_taken_back_is_nobody_elses_and_each_is_there_once() {
        let later = Later::default();
        assert!(!later.take_back(7));
        later.push(7, "a");
        later.push(8, "b");
        later.push(7, "a");
        assert!(later.take_back(8));
        assert!(!later.take_back(8));
        let next = later.next(Instant::now());
        assert_eq!((next.ifindex, &*next.link), (7, "a"));
        assert!(next.since.elapsed() >= QUIET);
        assert!(!later.take_back(7), "the worker has begun");
    }
}
