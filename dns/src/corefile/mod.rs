//! CoreDNS' configuration file, read as CoreDNS reads it.
//!
//! [`Corefile::read`] gives server blocks with their directives, all imports and placeholders in place; [`translate()`]
//! makes a [`Plan`](crate::plan::Plan) of them. Both are pure: files and the environment are behind [`Files`](crate::files::Files). What can't
//! be done here is a [`Mistake`] with its place, never left out in silence.

mod lex;
mod parse;
mod plugins;
mod syntax;
mod translate;

pub use plugins::{rewrite, template};
pub use syntax::{Corefile, Directive, Mistake, Place, ServerBlock, Word};
pub use translate::translate;

#[cfg(test)]
mod tests;
