//! Fuzzes everything that reads a DNS query.
#![cfg_attr(fuzzing, no_main)]

#[path = "query/check.rs"]
mod check;
#[path = "query/kernel.rs"]
mod kernel;

fairlead_replay::target!(check::check);
