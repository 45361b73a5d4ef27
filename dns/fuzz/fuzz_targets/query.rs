//! Fuzzes everything that reads a DNS query.
#![cfg_attr(fuzzing, no_main)]

#[path = "query/check.rs"]
mod check;

fairlead_replay::target!(check::check);
