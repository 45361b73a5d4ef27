//! Loads every program of an eBPF object, says what the kernel's verifier thought of it, and runs recorded frames of the
//! datapath's tests through it, if it has them. Without them a guest sends real packets: by way of a queue with departure times, and with
//! tags of VLANs.
//!
//! `fairlead-verifier OBJECT [FRAMES [RUNS]]` does so on the running kernel; with RUNS it also runs the last frame of each test so
//! often, and says how long that takes. As the first process of a machine (it is then all that
//! the initramfs has, besides its files) it mounts what loading needs, does the same and turns the machine off; an initramfs with
//! tests in labs, or a script for the files of the machine around it, has it run those instead.
//!
//! It prints lines with tabs between, each of which begins with `fairlead-verifier`; a line end in a text is `\n`:
//!
//! | line | of each |
//! |---|---|
//! | `ok`, name, verified instructions | program that was loaded |
//! | `failed`, name, the error and the end of the verifier's log | program that was refused |
//! | `frames`, name, number of frames that did what was recorded | test |
//! | `frames-failed`, name, what the first that did not has done | test |
//! | `cost`, name, median and fewest nanoseconds of its last frame | test |
//! | `left-out`, name, number of frames that were not run, why | test and reason |
//! | `done`, the kernel's release | last line |
#![forbid(unsafe_code)]

mod frames;
mod guest;
mod links;
mod load;
mod netlink;
mod pace;
mod site;
mod store;
mod vlan;

use std::{env, fs, process::ExitCode};

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let first = std::process::id() == 1;
    let result = if first {
        let then = || guest::frames().map_or(Then::Packets, |frames| Then::Frames(frames, None));
        guest::prepare()
            .and_then(|()| guest::script().or_else(guest::labs).unwrap_or_else(|| verify(guest::OBJECT, then())))
    } else {
        from_arguments()
    };
    if let Err(error) = &result {
        println!("fairlead-verifier\tfailed\t-\t{}", load::one_line(&format!("{error:#}")));
    }
    if first {
        guest::power_off();
    }
    if result.is_ok_and(|all_right| all_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn from_arguments() -> Result<bool> {
    match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [object] => verify(object, Then::Nothing),
        [object, frames] => verify(object, Then::Frames(frames, None)),
        [object, frames, runs] => {
            let runs = runs.parse().ok().filter(|runs| *runs > 0).context("RUNS has to be a number, and not 0")?;
            verify(object, Then::Frames(frames, Some(runs)))
        }
        _ => bail!("usage: fairlead-verifier OBJECT [FRAMES [RUNS]] (as root)"),
    }
}

/// What is done with programs that were loaded.
#[derive(Debug, Clone, Copy)]
enum Then<'a> {
    /// Nothing.
    Nothing,
    /// Recorded frames run through them; the last of each test so often again, if that is said.
    Frames(&'a str, Option<u32>),
    /// Real packets are sent.
    Packets,
}

/// Whether every program of the object at this path was loaded, and what is done with them then came out right.
fn verify(object: &str, then: Then<'_>) -> Result<bool> {
    let read = |path: &str| fs::read(path).with_context(|| format!("can't read {path}"));
    let (mut ebpf, all_loaded) = load::all(&read(object)?)?;
    let all_right = match then {
        Then::Frames(frames, runs) if all_loaded => frames::run(&mut ebpf, &read(frames)?, runs)?,
        Then::Packets if all_loaded => {
            let mut programs = site::Programs::of(&mut ebpf);
            // Each is tried, whatever became of the other.
            pace::run(&mut programs)? & vlan::run(&mut programs)?
        }
        _ => all_loaded,
    };
    done()?;
    Ok(all_right)
}

/// Says that this got to the end.
fn done() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("fairlead-verifier\tdone\t{}", release.trim_end());
    Ok(())
}
