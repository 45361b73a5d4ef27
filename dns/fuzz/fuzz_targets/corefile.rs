//! Fuzzes what reads a Corefile.
//!
//! With `--cfg fuzzing` and the compiler's coverage passes it is a libFuzzer target; without, as in every ordinary
//! build, it runs the inputs in the files and directories that it is given, or the kept corpus, once.
#![cfg_attr(fuzzing, no_main)]

#[path = "corefile/check.rs"]
mod check;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|text: &[u8]| check::check(text));

#[cfg(not(fuzzing))]
#[path = "shared/replay.rs"]
mod replay;

#[cfg(not(fuzzing))]
fn main() -> anyhow::Result<()> {
    replay::replay()
}
