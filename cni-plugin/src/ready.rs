//! The mark that says that this node's agent was ready since the node started.
//!
//! With it STATUS stays good while the agent restarts or is upgraded: pods go on without it, and a node that turned
//! NotReady at every upgrade would have its pods moved away. The mark carries the boot id, so that it means nothing
//! after a reboot even where the run directory outlives one.

use std::io;
use std::path::{Path, PathBuf};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
///
/// # Errors
/// When /proc can't be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim().to_owned())
}

/// Where the mark of the agent behind this socket is.
#[must_use]
pub fn mark_path(socket: &Path) -> PathBuf {
    socket.with_file_name("ready")
}

/// Whether the agent behind this socket was ready since the node started.
#[must_use]
pub fn was_ready(socket: &Path) -> bool {
    let mark = std::fs::read_to_string(mark_path(socket));
    matches!((mark, boot_id()), (Ok(mark), Ok(boot)) if mark.trim() == boot)
}

/// Leaves the mark.
///
/// # Errors
/// When the run directory can't be written.
pub fn mark(socket: &Path) -> io::Result<()> {
    fairlead_files::put(&mark_path(socket), boot_id()?.as_bytes(), 0o644)?;
    Ok(())
}
