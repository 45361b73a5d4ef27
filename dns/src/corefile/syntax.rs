//! What a Corefile is made of, and what may be wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line } = self;
        write!(f, "{file}:{line}")
    }
}

/// Something that can't be done, where it stands, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct Mistake {
    /// Where it is.
    pub place: Place,
    /// What is wrong, and what to do.
    pub text: String,
}

/// A word of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What it says, without quotes.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// It is the first of its line.
    pub(super) starts_line: bool,
    /// It was in quotes: braces in it are letters.
    pub(super) quoted: bool,
}

impl Word {
    /// What is wrong with this word.
    #[must_use]
    pub fn wrong(&self, text: impl Into<String>) -> Mistake {
        Mistake { place: self.place.clone(), text: text.into() }
    }

    pub(super) fn is(&self, brace: &str) -> bool {
        !self.quoted && self.text == brace
    }
}

/// A line: its first word, the others, and the lines in the braces behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// The first word.
    pub name: Word,
    /// The other words of the line.
    pub args: Vec<Word>,
    /// The lines in its braces.
    pub body: Vec<Directive>,
}

impl Directive {
    /// What is wrong with this line.
    #[must_use]
    pub fn wrong(&self, text: impl Into<String>) -> Mistake {
        self.name.wrong(text)
    }
}

/// A server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBlock {
    /// The zones that it is for, with ports.
    pub keys: Vec<Word>,
    /// Its plugins.
    pub directives: Vec<Directive>,
}

/// A whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corefile {
    /// The server blocks, in order.
    pub blocks: Vec<ServerBlock>,
    /// Imports that name no file, which is allowed where a pattern says so.
    pub empty_imports: Vec<Place>,
}

/// The directory of a file, for what it names relative to itself.
pub(super) fn beside(file: &str, path: &str) -> PathBuf {
    Path::new(file).parent().unwrap_or(Path::new("")).join(path)
}
