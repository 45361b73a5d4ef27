//! Fuzzes the walks with packets, several in a row.
//!
//! With `--cfg fuzzing` and the compiler's coverage passes it is a libFuzzer target; without, as in every ordinary
//! build, it runs the inputs in the files and directories that it is given, or the kept corpus, once.
#![cfg_attr(fuzzing, no_main)]

#[path = "packet/check.rs"]
mod check;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|packets: &[u8]| check::check(packets));

#[cfg(not(fuzzing))]
#[path = "packet/replay.rs"]
mod replay;

#[cfg(not(fuzzing))]
fn main() -> anyhow::Result<()> {
    replay::replay()
}
