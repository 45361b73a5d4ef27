//! What settings were before they were changed.
//!
//! It is beside the agent's sockets and holds for one boot: a reboot undoes settings by itself, and a record that
//! outlived it would give a node values that it no longer has.

use std::fs;
use std::io;
use std::path::Path;

use fairlead_cni::ready::boot_id;
use fairlead_files::FileError;
use serde::{Deserialize, Serialize};

/// A setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setting {
    /// Its path below `/proc/sys`.
    pub(super) key: String,
    /// What it was when Fairlead came.
    pub(super) old: String,
    /// What Fairlead made it.
    pub(super) new: String,
    /// Other settings that change when this one is changed back, and what they were.
    #[serde(default)]
    pub(super) along: Vec<(String, String)>,
}

/// All of them, in the order in which they were changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    boot: String,
    settings: Vec<Setting>,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It can't be written.
    #[error("can't record the previous kernel settings, so uninstalling can't restore them: {0}")]
    Write(#[from] FileError),
    /// It can't be read.
    #[error("can't read the record of kernel settings {path}: {reason}; remove it, and restore them by hand")]
    Read {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

impl Record {
    /// Reads it; of another boot, or where there is none, it is empty.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub(super) fn load(path: &Path) -> Result<Self, RecordError> {
        let failed = |reason: String| RecordError::Read { path: path.display().to_string(), reason };
        let boot = boot_id().map_err(|error| failed(error.to_string()))?;
        let none = Self { boot: boot.clone(), settings: Vec::new() };
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(none),
            Err(error) => Err(failed(error.to_string())),
            Ok(text) => {
                let record: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
                Ok(if record.boot == boot { record } else { none })
            }
        }
    }

    /// Notes a change that is about to be made. What a setting was at first stays noted.
    pub(super) fn note(&mut self, key: &str, old: &str, new: &str, along: Vec<(String, String)>) {
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == key) {
            new.clone_into(&mut setting.new);
            return;
        }
        let [key, old, new] = [key, old, new].map(str::to_owned);
        self.settings.push(Setting { key, old, new, along });
    }

    /// Writes it.
    ///
    /// # Errors
    /// It can't be written; what was there before stays.
    pub(super) fn store(&self, path: &Path) -> Result<(), RecordError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        if let Some(parent) = path.parent() {
            fairlead_files::directory(parent)?;
        }
        fairlead_files::put(path, &text, 0o600)?;
        Ok(())
    }

    /// The changes, in order.
    #[must_use]
    pub(super) fn settings(&self) -> &[Setting] {
        &self.settings
    }
}
