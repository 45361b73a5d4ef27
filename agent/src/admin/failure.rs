//! Why the last agent of this node ended, for those who ask while none answers.

use std::io::ErrorKind;
use std::path::Path;

/// The file in the run directory.
const FILE: &str = "failure";

/// Leaves word. Best effort: the log has it too.
pub fn leave(run_dir: &Path, text: &str) {
    let file = run_dir.join(FILE);
    if let Err(error) = fairlead_files::put(&file, text.as_bytes(), 0o644).map_err(std::io::Error::from)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %file.display(), %error, "can't record for `fairlead status` why the agent exits");
    }
}

/// The agent runs: what was left by one before it is over.
pub(crate) fn clear(run_dir: &Path) {
    let file = run_dir.join(FILE);
    if let Err(error) = std::fs::remove_file(&file)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %file.display(), %error, "can't remove the record of why an earlier agent exited");
    }
}

/// What was left, as the end of a sentence.
pub(super) fn left(socket: &Path) -> String {
    let text = socket.parent().and_then(|run_dir| std::fs::read_to_string(run_dir.join(FILE)).ok());
    text.map(|text| format!("; the previous agent exited: {}", text.trim())).unwrap_or_default()
}
