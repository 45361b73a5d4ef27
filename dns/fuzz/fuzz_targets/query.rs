//! Fuzzes everything that reads a DNS query.
//!
//! With `--cfg fuzzing` and the compiler's coverage passes it is a libFuzzer target; without, as in every ordinary
//! build, it runs the inputs in the files and directories that it is given, or the kept corpus, once.
#![cfg_attr(fuzzing, no_main)]

#[path = "query/check.rs"]
mod check;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|query: &[u8]| check::check(query));

#[cfg(not(fuzzing))]
#[path = "shared/replay.rs"]
mod replay;

#[cfg(not(fuzzing))]
fn main() -> anyhow::Result<()> {
    replay::replay()
}
