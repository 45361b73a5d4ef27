//! Programs that a place of the cluster keeps running, as an init system keeps services.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, which is also that of its log.
    pub name: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What is added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A file, mostly a socket, that must be there before it starts.
    #[serde(default)]
    pub after: Option<PathBuf>,
}

impl Service {
    /// A program by its arguments.
    pub fn new<S: Into<String>>(name: &str, argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            name: name.to_owned(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            after: None,
        }
    }
}

/// The files by which a place is told what to run: they may change while it lives.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    directory: PathBuf,
}

impl Board {
    /// The board in a place's directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.join("services") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn held(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.hold"))
    }

    /// Has a program run from now on.
    pub(crate) fn put(&self, service: &Service) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        // Whole or not at all: it is read every few moments.
        fairlead_files::put(&self.file(&service.name), &serde_json::to_vec_pretty(service)?, 0o644)?;
        Ok(())
    }

    /// Has a program end for good. One that is not there is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let file = self.file(name);
        if file.exists() {
            fs::remove_file(file)?;
        }
        Ok(())
    }

    /// Has a program end, or run again.
    pub(crate) fn hold(&self, name: &str, hold: bool) -> Result<()> {
        let file = self.held(name);
        match hold {
            true => fs::write(file, "")?,
            false if file.exists() => fs::remove_file(file)?,
            false => {}
        }
        Ok(())
    }

    /// What shall run now, by name.
    pub(crate) fn wanted(&self) -> Result<Vec<Service>> {
        let mut services = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let service: Service = serde_json::from_slice(&fs::read(&path)?)
                    .with_context(|| format!("{} is not a service", path.display()))?;
                if !self.held(&service.name).exists() {
                    services.push(service);
                }
            }
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(services)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_wanted_until_it_is_held_or_removed() {
        let directory = std::env::temp_dir().join(format!("fairlead-board-{}", std::process::id()));
        let board = Board::new(&directory);
        board.put(&Service::new("etcd", ["etcd"])).unwrap();
        board.put(&Service::new("apiserver", ["a", "--b"])).unwrap();
        let names = || board.wanted().unwrap().into_iter().map(|service| service.name).collect::<Vec<_>>();
        assert_eq!(names(), ["apiserver", "etcd"]);
        board.hold("apiserver", true).unwrap();
        assert_eq!(names(), ["etcd"]);
        board.hold("apiserver", false).unwrap();
        board.remove("etcd").unwrap();
        assert_eq!(names(), ["apiserver"]);
        fs::remove_dir_all(&directory).unwrap();
    }
}
