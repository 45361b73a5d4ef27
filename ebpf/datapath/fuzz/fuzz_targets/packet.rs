//! Fuzzes the walks with packets, several in a row.
#![cfg_attr(fuzzing, no_main)]

#[path = "packet/check.rs"]
mod check;

fairlead_replay::target!(check::check);
