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

/// Whether it is only that this process may not mount it.
fn may_come(error: &BpfError) -> bool {
    matches!(error, BpfError::NoBpffs { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}
