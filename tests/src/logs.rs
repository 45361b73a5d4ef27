//! The logs of a lab, shown when a test fails.

use std::fs;
use std::path::Path;

/// How many lines of each log are shown.
const LINES: usize = 40;

/// Writes the ends of all logs to standard error.
pub(crate) fn show(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut logs: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for log in logs {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if !text.is_empty() {
            eprintln!("--- the end of {}\n{}", log.display(), end(&text));
        }
    }
}

/// The last lines of a text.
pub(crate) fn end(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
