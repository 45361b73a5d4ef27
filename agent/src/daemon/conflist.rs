//! Keeps the CNI configuration, from the moment when pods can be served.

use std::sync::Arc;
use std::time::Duration;

use fairlead_files::{FileError, Put};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::info;

use crate::cni::Health;
use crate::install::Conflist;
use crate::state::Shared;

/// How often a starting agent looks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// How often the file is looked at. Others come and go in that directory too.
const LOOK: Duration = Duration::from_secs(10);

/// Writes the file once pods can be served, and again whenever it is gone or another.
///
/// The first time is when the node becomes Ready, so it is after everything else: the CNI socket listens before the loop
/// of which this is a part begins.
pub(super) async fn keep(shared: Arc<Shared>, conflist: Conflist) {
    while shared.health() != Health::Ready {
        sleep(READY_POLL).await;
    }
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let file = conflist.clone();
        let Ok((put, earlier)) = spawn_blocking(move || (file.put(), file.earlier())).await else { return };
        match &put {
            Ok(Put::Same) => {}
            Ok(put) => info!(path = %conflist.path().display(), "CNI configuration {}", put.as_str()),
            Err(_) => {}
        }
        shared.note(|progress| progress.conflist = put.is_ok());
        shared.warn("conflist", trouble(&conflist, put, earlier));
    }
}

fn trouble(conflist: &Conflist, put: Result<Put, FileError>, earlier: std::io::Result<Vec<String>>) -> Option<String> {
    let directory = conflist.directory().display();
    match (put, earlier) {
        (Err(error), _) => Some(format!("no CNI configuration, so the node does not become Ready: {error}")),
        (Ok(_), Ok(earlier)) if earlier.is_empty() => None,
        (Ok(_), Ok(earlier)) => Some(format!(
            "new pods are given to another network: the container runtime takes {first} before {own} in {directory}; \
             remove it, with its plugin if that still runs",
            first = earlier.join(", "),
            own = conflist.path().file_name().unwrap_or_default().display(),
        )),
        (Ok(_), Err(error)) => Some(format!("the CNI configurations in {directory} can't be listed: {error}")),
    }
}
