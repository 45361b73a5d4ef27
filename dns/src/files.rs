//! What a configuration reads besides itself.

use std::hash::Hash;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and the environment.
pub trait Files {
    /// The text of a file.
    ///
    /// # Errors
    /// It can't be read.
    fn text(&self, path: &Path) -> io::Result<String>;

    /// The names in a directory; none where there is no such directory.
    ///
    /// # Errors
    /// It is there and can't be read.
    fn names(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// A variable of the environment.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The files and the environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// More than anybody writes by hand, and little enough to read.
const LONGEST: u64 = 64 << 20;

impl Files for Disk {
    fn text(&self, path: &Path) -> io::Result<String> {
        if std::fs::metadata(path)?.len() > LONGEST {
            return Err(io::Error::other(format!("it has more than {LONGEST} bytes")));
        }
        std::fs::read_to_string(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<String>> {
        match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// The files that a pattern names, in order. `Err`: the pattern has wildcards in front of its last part.
pub(crate) fn find(files: &dyn Files, pattern: &Path) -> Result<io::Result<Vec<PathBuf>>, ()> {
    let directory = pattern.parent().unwrap_or(Path::new(""));
    let last = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if is_pattern(&directory.to_string_lossy()) {
        return Err(());
    }
    if !is_pattern(&last) {
        return Ok(Ok(vec![pattern.to_owned()]));
    }
    Ok(files.names(directory).map(|mut names| {
        names.retain(|name| matches(&last, name));
        names.sort();
        names.into_iter().map(|name| directory.join(name)).collect()
    }))
}

/// Whether a path has wildcards.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Whether a name is as a pattern says: `*` is any text, `?` any letter. A file whose name begins with a dot, as those
/// that a ConfigMap's volume has for itself, has to be named with it.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    (p, n) = (at + 1, from + 1);
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
/// What tells one state of a file from another, without reading it.
///
/// # Errors
/// There is none, or it can not be looked at.
pub fn stamp(path: &Path) -> io::Result<impl Hash + PartialEq + use<>> {
    let metadata = std::fs::metadata(path)?;
    let changed = (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec());
    Ok((metadata.dev(), metadata.ino(), metadata.len(), changed))
}
