//! Loading, program by program: one that is refused does not hide the next.

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramError, ProgramInfo},
};
use nix::errno::Errno;

/// The end of a verifier's log is where the reason is.
const LOG_LINES: usize = 16;

/// Loads every program and prints a line about each; returns them, and whether all were loaded.
pub(crate) fn all(object: &[u8]) -> Result<(Ebpf, bool)> {
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS);
    let mut ebpf = loader.load(object).context("the object's maps can't be made")?;
    let mut all_loaded = true;
    for (name, program) in ebpf.programs_mut() {
        match load(program) {
            Ok(info) => {
                println!("fairlead-verifier\tok\t{name}\t{}", info.verified_instruction_count().unwrap_or_default());
            }
            Err(error) if is_not_permitted(program, &error) => {
                println!("fairlead-verifier\tnot-permitted\t{name}\t{}", reason(&error));
            }
            Err(error) => {
                all_loaded = false;
                println!("fairlead-verifier\tfailed\t{name}\t{}", reason(&error));
            }
        }
    }
    Ok((ebpf, all_loaded))
}

fn load(program: &mut Program) -> Result<ProgramInfo, ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::Xdp(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::Iter(program) => program.load("bpf_sk_storage_map", &Btf::from_sys_fs()?),
        _ => Err(ProgramError::UnexpectedProgramType),
    }?;
    program.info()
}

/// Whether the kernel permits no programs of this type at all, as some clouds' kernels do with those that trace. The agent does without.
fn is_not_permitted(program: &Program, error: &ProgramError) -> bool {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return false };
    let is_refused = io_error.raw_os_error() == Some(Errno::EPERM as i32);
    matches!(program, Program::Iter(_)) && is_refused && verifier_log.to_string().contains("processed 0 insns")
}

fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            one_line(&format!("{io_error}\n{end}"))
        }
        ProgramError::UnexpectedProgramType => "fairlead-verifier can't load this type: teach it in load.rs".to_owned(),
        other => one_line(&other.to_string()),
    }
}

/// Makes a text fit the line format: a line end becomes a backslash and an n.
pub(crate) fn one_line(text: &str) -> String {
    text.replace('\r', "").replace('\n', "\\n").replace('\t', " ")
}
