//! Keeps the CNI configuration, from the moment when pods can be served.

use std::sync::Arc;
use std::time::Duration;

use fairlead_files::{FileError, Put};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::cni::Health;
use crate::install::chain::refusal;
use crate::install::conflist::{Conflist, Kept};
use crate::state::Shared;

/// How often a starting agent looks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(20);

/// How often the file is looked at. Others come and go in that directory too.
const LOOK: Duration = Duration::from_secs(10);

/// How soon a file is looked at again that nobody can read: whoever writes it, and not by rename, is done then.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Writes the file once pods can be served, and again whenever it is gone or our part of it is not as it should be.
///
/// The first time is when the node becomes Ready, so it is after everything else: the CNI socket listens before the loop
/// of which this is a part begins.
pub(super) async fn keep(shared: Arc<Shared>, conflist: Conflist) {
    while shared.health() != Health::Ready {
        sleep(READY_POLL).await;
    }
    let (mut broken, mut others) = (None, Vec::new());
    loop {
        let file = conflist.clone();
        let look = spawn_blocking(move || {
            let put = file.put(&mut broken);
            (put, file.earlier(), broken, file.path().is_file())
        });
        let Ok((put, earlier, left, there)) = look.await else { return };
        broken = left;
        if let Ok(kept) = &put {
            say(&conflist, kept, &mut others);
            let path = conflist.path();
            let say = |kind: &String| Some(format!("the plugin {kind} in {} {}", path.display(), refusal(kind)?));
            let texts: Vec<_> = kept.others.iter().filter_map(say).collect();
            shared.warn("plugins", (!texts.is_empty()).then(|| texts.join("; ")));
        }
        shared.note(|progress| progress.conflist = put.is_ok() && broken.is_none());
        shared.warn("conflist", trouble(&conflist, put.err().map(|error| (error, there)), earlier));
        sleep(if broken.is_some() { LOOK_AGAIN } else { LOOK }).await;
    }
}

/// Logs what was done, and which plugins of others there are whenever those change.
fn say(conflist: &Conflist, kept: &Kept, others: &mut Vec<String>) {
    let Kept { put, why, others: now, copy } = kept;
    let path = conflist.path();
    let path = path.display();
    match (put, copy) {
        (Put::Same, _) => {}
        (put, Some(copy)) => {
            let copy = copy.display();
            warn!(%path, was = why, %copy, "CNI configuration {}: the copy has the previous content", put.as_str());
        }
        (Put::New, None) => info!(%path, "CNI configuration {}", put.as_str()),
        (put, None) => info!(%path, was = why, "CNI configuration {}: other plugins' entries are kept", put.as_str()),
    }
    if now != others {
        info!(%path, plugins = now.join(", "), "keeping other plugins in the CNI configuration");
        others.clone_from(now);
    }
}

/// What an operator has to know: what failed, with whether there is a file, else what is in front of it.
fn trouble(
    conflist: &Conflist,
    failed: Option<(FileError, bool)>,
    earlier: std::io::Result<Vec<String>>,
) -> Option<String> {
    let directory = conflist.directory().display();
    match (failed, earlier) {
        (Some((error, false)), _) => Some(format!("no CNI configuration, so the node does not become Ready: {error}")),
        (Some((error, true)), _) => Some(format!("can't update the CNI configuration, which stays as it is: {error}")),
        (None, Ok(earlier)) if earlier.is_empty() => None,
        (None, Ok(earlier)) => Some(format!(
            "new pods are connected to another network: the container runtime uses {first} before {own} in \
             {directory}; remove it, and its plugin if that is still running",
            first = earlier.join(", "),
            own = conflist.path().file_name().unwrap_or_default().display(),
        )),
        (None, Err(error)) => Some(format!("can't list the CNI configurations in {directory}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::path::Path;

    use super::*;

    #[test]
    fn it_is_said_whether_there_is_a_configuration() {
        let list = Conflist::new(Path::new("/etc/cni/net.d"), "10-x.conflist", Path::new("/run/x.sock"), Vec::new());
        let failed = |there| {
            let error = FileError::new("write", &list.path(), Error::from(ErrorKind::StorageFull));
            trouble(&list, Some((error, there)), Ok(vec![])).unwrap()
        };
        assert!(failed(false).contains("the node does not become Ready"), "{}", failed(false));
        let there = failed(true);
        assert!(there.starts_with("can't update") && there.contains("10-x.conflist"), "{there}");
        assert!(!there.contains("Ready"), "{there}");
        assert_eq!(trouble(&list, None, Ok(vec![])), None);
        assert!(trouble(&list, None, Ok(vec!["05-y.conf".into()])).unwrap().contains("05-y.conf before 10-x.conflist"));
    }
}
