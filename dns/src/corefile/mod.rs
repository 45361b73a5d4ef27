//! CoreDNS' configuration file, read as CoreDNS reads it.
//!
//! [`Corefile::read`] gives server blocks with their directives, all imports and placeholders in place; [`translate()`]
//! makes a [`Plan`](crate::plan::Plan) of them. Both are pure: files and the environment are behind [`Files`]. What can't
//! be done here is a [`Mistake`] with its place, never left out in silence.

mod files;
mod lex;
mod parse;
mod plugins;
mod translate;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use files::{Disk, Files, matches};
pub use plugins::{rewrite, template};
pub use translate::translate;

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
    starts_line: bool,
    /// It was in quotes: braces in it are letters.
    quoted: bool,
}

impl Word {
    /// What is wrong with this word.
    #[must_use]
    pub fn wrong(&self, text: impl Into<String>) -> Mistake {
        Mistake { place: self.place.clone(), text: text.into() }
    }

    fn is(&self, brace: &str) -> bool {
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

impl Corefile {
    /// Reads a file and what it imports.
    ///
    /// # Errors
    /// A file can't be read, or something in it is no Corefile.
    pub fn read(path: &std::path::Path, files: &dyn Files) -> Result<Self, Mistake> {
        parse::read(path, files)
    }

    /// Reads one directive from a text, as a value of another file.
    ///
    /// # Errors
    /// It is none, or more than one.
    pub fn directive(name: &str, text: &str) -> Result<Directive, Mistake> {
        parse::directive(name, text)
    }
}

/// The directory of a file, for what it names relative to itself.
fn beside(file: &str, path: &str) -> PathBuf {
    std::path::Path::new(file).parent().unwrap_or(std::path::Path::new("")).join(path)
}

#[cfg(test)]
mod tests;
