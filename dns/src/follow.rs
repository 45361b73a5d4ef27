//! The configuration while the process runs: read again when a file of it changes. What can't be followed is said, and
//! what was there before stays.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fairlead_dns::feed::Make;
use fairlead_dns::files::{Disk, Files, stamp};
use fairlead_dns::forward::Forwarder;
use fairlead_dns::full::Responder;
use fairlead_dns::plan::{Makers, Own, Plan};
use fairlead_dns::site::Site;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::cli::{Args, local_addresses};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// After which time a configuration that is wrong is tried again though no file has changed.
const AGAIN: Duration = Duration::from_mins(1);

/// Remembers what was read, to see whether it has changed.
#[derive(Default)]
struct Recorded {
    known: Mutex<BTreeMap<(PathBuf, bool), u64>>,
    /// Something could not be read for a reason that may pass.
    failed: AtomicBool,
}

/// Whether something may be read a moment later though nothing about it changes: there were no descriptors, or the disk failed.
fn may_pass(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData)
}

fn digest(what: &io::Result<impl Hash>) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.as_ref().map_err(io::Error::kind).hash(&mut hasher);
    hasher.finish()
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    Disk.names(directory).map(|mut names| {
        names.sort();
        names
    })
}

impl Recorded {
    fn note(&self, path: &Path, directory: bool, digest: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((path.to_owned(), directory), digest);
    }

    fn note_error<T>(&self, read: &io::Result<T>) {
        if read.as_ref().is_err_and(may_pass) {
            self.failed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what was wrong may be right by now.
    fn may_have_passed(&self, error: &anyhow::Error) -> bool {
        let is_passing = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref().is_some_and(may_pass) || cause.is::<nix::Error>()
        };
        self.failed.load(Ordering::Relaxed) || error.chain().any(is_passing)
    }

    /// Whether something is not as it was when it was read.
    fn has_changed(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.iter().any(|((path, directory), before)| {
            let now = if *directory { digest(&names(path)) } else { digest(&stamp(path)) };
            now != *before
        })
    }
}

impl Files for Recorded {
    fn text(&self, path: &Path) -> io::Result<String> {
        // Before it is read: what is written meanwhile is read again.
        self.note(path, false, digest(&stamp(path)));
        let text = Disk.text(path);
        self.note_error(&text);
        text
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = names(directory);
        self.note(directory, true, digest(&names));
        self.note_error(&names);
        names
    }

    fn variable(&self, name: &str) -> Option<String> {
        Disk.variable(name)
    }
}

/// Follows the configuration.
pub(crate) struct Follower {
    args: Args,
    makers: Makers,
    files: Recorded,
    /// Those that look after servers.
    tending: Vec<(Arc<Forwarder>, AbortHandle)>,
}

impl Follower {
    pub(crate) fn new(args: Args) -> Self {
        Self { args, makers: Makers::default(), files: Recorded::default(), tending: Vec::new() }
    }

    /// What the configuration asks for now.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub(crate) fn plan(&self) -> Result<Plan> {
        if let Some(config) = &self.args.config {
            // It was read already; what counts is whether it changes.
            let _text = self.files.text(config);
        }
        self.args.plan(&self.files)
    }

    /// What answers as a plan says.
    ///
    /// # Errors
    /// Something that it names can't be read or used.
    pub(crate) fn make(&mut self, plan: &Plan, listen: &[SocketAddr]) -> Result<Site> {
        let own = Own { listen: listen.to_vec(), local: local_addresses()? };
        Ok(self.makers.make(plan, &self.files, &own)?)
    }

    /// Follows it for ever.
    pub(crate) async fn follow(
        mut self,
        mut plan: Plan,
        listen: Vec<SocketAddr>,
        responder: Arc<Responder>,
        make: watch::Sender<Make>,
    ) {
        let mut wrong = None;
        // When it is tried again, whatever is in the files.
        let mut again: Option<Instant> = None;
        loop {
            self.tend(&responder, &listen);
            {
                let own = local_addresses().unwrap_or_default();
                responder.zone.write().unwrap_or_else(PoisonError::into_inner).set_own(own);
            }
            tokio::time::sleep(LOOK).await;
            if !self.files.has_changed() && again.is_none_or(|again| Instant::now() < again) {
                continue;
            }
            self.files = Recorded::default();
            match self.renew(&plan, &listen) {
                Ok((new, site)) => {
                    responder.set_site(site);
                    let Plan { options, ttl, .. } = new.clone();
                    make.send_replace(Make { options, ttl });
                    if new != plan || wrong.is_some() {
                        tracing::info!("the configuration has changed");
                    }
                    (plan, wrong, again) = (new, None, None);
                }
                Err(error) => {
                    let pause = if self.files.may_have_passed(&error) { Duration::ZERO } else { AGAIN };
                    again = Some(Instant::now() + pause);
                    let text = format!("{error:#}");
                    if wrong.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "keeping the previous configuration");
                        wrong = Some(text);
                    }
                }
            }
        }
    }

    /// Reads it again.
    fn renew(&mut self, before: &Plan, listen: &[SocketAddr]) -> Result<(Plan, Site)> {
        if let Some(config) = &self.args.config {
            // What is read while it is written is read again.
            let _text = self.files.text(config);
            let args: Args = fairlead_settings::parse_from(std::env::args_os(), &[])?;
            if args.at_start() != self.args.at_start() {
                tracing::warn!("some changed settings take effect after a restart only");
            }
            self.args = args;
        }
        let plan = self.plan()?;
        let fixed = plan.fixed() == before.fixed();
        ensure!(
            fixed,
            "the cluster's zone, its labels, verified pods, addresses and ports can't change while the process runs: \
             restart it"
        );
        let site = self.make(&plan, listen)?;
        Ok((plan, site))
    }

    /// Has every forwarder looked after, and none that is gone.
    fn tend(&mut self, responder: &Responder, listen: &[SocketAddr]) {
        let now = responder.site().forwarders();
        self.tending.retain(|(forwarder, task)| {
            let stays = now.iter().any(|other| Arc::ptr_eq(other, forwarder));
            if !stays {
                task.abort();
            }
            stays
        });
        for forwarder in now {
            if self.tending.iter().all(|(known, _)| !Arc::ptr_eq(known, &forwarder)) {
                let local = || local_addresses().unwrap_or_default();
                let tending = Arc::clone(&forwarder).tend(Arc::clone(&responder.zone), listen.to_vec(), local);
                self.tending.push((forwarder, tokio::spawn(tending).abort_handle()));
            }
        }
    }
}
