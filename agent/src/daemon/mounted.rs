//! The bpf file system at the start of an agent that may not mount it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use crate::bpf::{BpfError, PinDir};

/// How long it is waited for: whoever keeps it mounted looks every ten seconds, and the container in which that runs is started after
/// the agent's.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Opens the directory of pins once its file system is mounted. `keeper`: the lock of whoever keeps it so.
///
/// # Errors
/// As [`PinDir::open_beside`], at once unless the file system may yet come.
pub(super) async fn pins(directory: &Path, keeper: &Path) -> Result<PinDir, BpfError> {
    let deadline = Instant::now() + PATIENCE;
    let mut is_said = false;
    loop {
        let error = match PinDir::open_beside(directory, Some(keeper)) {
            Err(error) if may_come(&error) && Instant::now() < deadline => error,
            result => return result,
        };
        if !is_said {
            info!(%error, patience = ?PATIENCE, "waiting until somebody mounts it");
            is_said = true;
        }
        sleep(LOOK).await;
    }
}

/// How long the node may have another one than this agent before that is said: the keeper looks every ten seconds.
pub(super) const ELSEWHERE: Duration = Duration::from_secs(25);

/// Whether the node has another one than this agent, by their numbers.
pub(super) fn is_elsewhere(own: Option<u64>, kept: Option<u64>) -> bool {
    matches!((own, kept), (Some(own), Some(kept)) if own != kept)
}

/// What is said of that.
pub(super) fn elsewhere(path: &Path) -> String {
    format!(
        "this agent's tables and programs are pinned on another bpf file system than the node has at {} (it was unmounted there while \
         nobody kept it): traffic goes on, but the next agent's container begins with empty tables, and connections break then; \
         choose the time for it: delete this pod (kubectl -n kube-system delete pod) in a maintenance window",
        path.display()
    )
}

/// Whether it is only that this process may not mount it, or that it is left to who does.
fn may_come(error: &BpfError) -> bool {
    match error {
        BpfError::NoBpffs { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        BpfError::Elsewhere { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_another_file_system_is_told_from_one_of_which_nothing_is_known() {
        for (own, kept, is) in [
            (None, None, false),
            (Some(1), None, false),
            (None, Some(1), false),
            (Some(1), Some(1), false),
            (Some(1), Some(2), true),
        ] {
            assert_eq!(is_elsewhere(own, kept), is, "{own:?} {kept:?}");
        }
    }
}
