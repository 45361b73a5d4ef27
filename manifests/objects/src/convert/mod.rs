//! From the API's types to the slim ones: pure functions that apply the API's defaults and check what they read.
//!
//! The API server does both before it stores an object, with two gaps that are closed here: a manifest in a directory
//! has never seen an API server, and objects stored long ago keep values that are refused today.

mod cluster_policy;
mod meta;
mod namespace;
mod node;
mod pod;
mod policy;
mod problem;
mod quantity;
mod service;
mod slice;

use crate::{Kind, Object};

pub use cluster_policy::ClusterNetworkPolicy;
pub use problem::{Error, Problem};

/// What a conversion gives: the object, and the pieces of it that could not be read and were made harmless.
pub type Converted = Result<(Object, Vec<Error>), Error>;

/// An object of the API that has a slim form.
pub trait Slim {
    /// Its kind.
    const KIND: Kind;

    /// Makes it slim.
    ///
    /// # Errors
    /// When the object can't be used: it has no name, or a value without which the rest would mean something else.
    fn slim(&self) -> Converted;
}

#[cfg(test)]
mod tests;
