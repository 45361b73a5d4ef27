//! What can be wrong with settings.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use serde_json::Value;

/// Why there are no settings. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line.
    #[error(transparent)]
    CommandLine(#[from] clap::Error),
    /// The file can't be read.
    #[error("the settings file {path} can't be read: {source}; correct --config, or leave it out for the defaults")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("invalid settings file {path}: {wrong}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Every wrong key with its value and what is allowed.
        wrong: String,
    },
}

/// What is wrong in a file.
#[derive(Debug)]
pub(crate) struct Wrong(pub(crate) String);

impl Wrong {
    pub(crate) fn at(self, path: &Path) -> SettingsError {
        SettingsError::Wrong { path: path.to_owned(), wrong: self.0 }
    }
}

/// What clap has against a value, in the words of a file.
pub(crate) fn value(key: &str, value: &Value, error: &clap::Error) -> String {
    let allowed = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) if !words.is_empty() => Some(format!("use one of {}", words.join(", "))),
        _ => None,
    };
    let reason = allowed.or_else(|| error.source().map(ToString::to_string)).unwrap_or_else(|| {
        // The first line of what a terminal would show.
        let text = error.to_string();
        text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
    });
    format!("{key}: {value} is invalid: {reason}")
}
