//! How Fairlead comes to a node and leaves it.

mod come;
mod conflist;
mod doctor;
mod foreign;
mod leave;
mod migrate;
mod snapshot;
