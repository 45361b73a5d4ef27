//! Deletions that the agent was not there to hear, kept on disk until it is.
//!
//! One file an attachment, named after the host side of its veth pair, so that a repeated DEL writes the same file.
//! An agent that starts listens first and reads the queue then; the plugin queues first and tries the socket once more
//! then: whoever comes second sees the other.

use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::Attachment;

/// Where the deletions for the agent behind this socket are.
#[must_use]
pub fn directory(socket: &Path) -> PathBuf {
    socket.with_file_name("cni-queue")
}

/// Queues a deletion; it has reached the disk when this returns.
///
/// # Errors
/// When the directory can't be made or written.
pub fn push(directory: &Path, attachment: &Attachment) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    fairlead_files::put(&entry(directory, attachment), &serde_json::to_vec(attachment)?, 0o644)?;
    Ok(())
}

/// Takes a deletion out of the queue, where it is in it.
///
/// # Errors
/// When the directory can't be written.
pub fn remove(directory: &Path, attachment: &Attachment) -> io::Result<()> {
    match std::fs::remove_file(entry(directory, attachment)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether the deletion of this attachment is in the queue.
#[must_use]
pub fn holds(directory: &Path, attachment: &Attachment) -> bool {
    entry(directory, attachment).exists()
}

/// What is queued. A file that can't be read is named instead.
///
/// # Errors
/// When the directory is there and can't be read.
pub fn list(directory: &Path) -> io::Result<Vec<Result<Attachment, PathBuf>>> {
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut queued = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let read = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            queued.push(read.ok_or(path));
        }
    }
    Ok(queued)
}

fn entry(directory: &Path, attachment: &Attachment) -> PathBuf {
    directory.join(attachment.host_link()).with_extension("json")
}
