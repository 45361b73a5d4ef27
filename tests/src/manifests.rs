//! The directory of Kubernetes objects that stands for the API server: one file for each object, replaced by rename.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use serde_json::Value;

/// The objects of a cluster.
#[derive(Debug)]
pub struct Manifests {
    directory: PathBuf,
    writes: AtomicU64,
}

impl Manifests {
    pub(crate) fn new(directory: PathBuf) -> Result<Self> {
        fs::create_dir(&directory)?;
        Ok(Self { directory, writes: AtomicU64::new(0) })
    }

    /// The directory, as agents are told it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds or replaces objects: YAML with any number of documents.
    ///
    /// # Panics
    /// When a document has no kind or name. Use [`Manifests::write`] for what is wrong on purpose.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        if let Err(error) = self.try_apply(yaml) {
            panic!("can't apply: {error:#}\n{yaml}");
        }
    }

    fn try_apply(&self, yaml: &str) -> Result<()> {
        for object in serde_saphyr::from_multiple::<Value>(yaml)? {
            if object.is_null() {
                continue;
            }
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let kind = text(&object["kind"]).context("an object needs a kind")?;
            let name = text(&object["metadata"]["name"]).context("an object needs metadata.name")?;
            let key = text(&object["metadata"]["namespace"]).map_or(name.clone(), |space| format!("{space}/{name}"));
            self.replace(&file_name(&kind, &key), &object.to_string())?;
        }
        Ok(())
    }

    /// Makes a Namespace, unless one of this name is there already.
    pub(crate) fn ensure_namespace(&self, name: &str) -> Result<()> {
        if self.directory.join(file_name("Namespace", name)).exists() {
            return Ok(());
        }
        self.try_apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{kubernetes.io/metadata.name: {name}}}}}}}"
        ))
    }

    /// Applies all objects of a file.
    #[track_caller]
    pub fn apply_file(&self, path: impl AsRef<Path>) {
        match fs::read_to_string(path.as_ref()) {
            Ok(yaml) => self.apply(&yaml),
            Err(error) => panic!("can't read {}: {error}", path.as_ref().display()),
        }
    }

    /// Deletes an object: its kind, and its namespace and name with a slash between. One that is not there is fine.
    #[track_caller]
    pub fn delete(&self, kind: &str, key: &str) {
        self.remove(&file_name(kind, key));
    }

    /// Writes a file of this name with whatever content.
    #[track_caller]
    pub fn write(&self, file: &str, content: &str) {
        if let Err(error) = self.replace(file, content) {
            panic!("can't write {file}: {error:#}");
        }
    }

    /// Removes a file of this name. One that is not there is fine.
    #[track_caller]
    pub fn remove(&self, file: &str) {
        match fs::remove_file(self.directory.join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("can't delete {file}: {error}"),
            _ => {}
        }
    }

    fn replace(&self, file: &str, content: &str) -> Result<()> {
        // A name that no reader takes for an object, and that no other writer has.
        let temporary = self.directory.join(format!(".{}.tmp", self.writes.fetch_add(1, Ordering::Relaxed)));
        fs::write(&temporary, content)?;
        fs::rename(&temporary, self.directory.join(file))?;
        Ok(())
    }
}

fn file_name(kind: &str, key: &str) -> String {
    format!("{}_{}.yaml", kind.to_lowercase(), key.replace('/', "_"))
}
