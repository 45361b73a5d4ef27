//! Fuzzes sequences: segments and datagrams in either direction, changes of policy and time, against a model of what may pass.
#![cfg_attr(fuzzing, no_main)]

#[path = "sequence/check.rs"]
mod check;

fairlead_replay::target!(check::check);
