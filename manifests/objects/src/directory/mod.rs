//! The source for a node without a cluster: a directory of manifests.
//!
//! `*.yaml`, `*.yml` and `*.json` directly in the directory are read; names that begin with a dot are not. A file is to
//! be replaced by renaming a finished one over it. Symbolic links are followed, so a mounted ConfigMap works.

mod state;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::{Event, Object, read::Invalid, read_str};

pub use watch::watch;

/// The ends of names that are read.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What can go wrong with the directory itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be listed.
    #[error("can't read the directory {}: {source}; create it or correct --objects", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel has no more watches to give.
    #[error("can't watch the directory {}: {source}; raise fs.inotify.max_user_instances", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a directory once: the name of each file with what it gives.
///
/// # Errors
/// When the directory can't be listed. A file that can't be read has an entry that says so.
pub fn read_dir(dir: &Path) -> Result<BTreeMap<String, Vec<Result<Object, Invalid>>>, Error> {
    let names = list(dir)?;
    Ok(names.into_iter().filter_map(|name| read_file(dir, &name).map(|found| (name, found))).collect())
}

/// The names of the files that count.
fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source| Error::List { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string()
            && is_manifest(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_manifest(name: &str) -> bool {
    !name.starts_with('.')
        && Path::new(name).extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
}

/// What a file gives, or nothing when there is no such file (any more).
fn read_file(dir: &Path, name: &str) -> Option<Vec<Result<Object, Invalid>>> {
    let path = dir.join(name);
    let unreadable = |reason| vec![Err(Invalid { document: 0, kind: None, key: None, reason, piece: false })];
    match fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Some(read_str(&text)),
            Err(error) => Some(unreadable(format!("not UTF-8: {error}; save it as UTF-8"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) if path.is_dir() => None,
        Err(error) => Some(unreadable(format!("can't be read: {error}; check its permissions"))),
    }
}

impl Invalid {
    fn event(&self, file: &str) -> Event {
        let origin = if self.document == 0 { file.to_owned() } else { format!("{file}: document {}", self.document) };
        Event::Invalid { kind: self.kind, key: self.key.clone(), origin, reason: self.reason.clone() }
    }
}
