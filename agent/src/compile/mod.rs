//! From the model to the wanted content of the maps: pure functions, one module for each group of tables.

pub mod bandwidth;
pub mod claims;
pub mod node;
pub mod peers;
pub mod policy;
pub mod services;
