//! Fuzzes what reads a Corefile.
#![cfg_attr(fuzzing, no_main)]

#[path = "corefile/check.rs"]
mod check;

fairlead_replay::target!(check::check);
