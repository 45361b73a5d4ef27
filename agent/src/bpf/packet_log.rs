//! The lines that the programs write for each packet, when somebody asks for them: `RUST_LOG=info,fairlead_programs=trace`.
//!
//! The level is fixed when the programs are loaded. By default it is none, and the verifier takes the code of the lines
//! out as what can't be reached, so they cost nothing.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya_log::{EbpfLogger, LEVEL, Level};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::warn;

/// The name of the level's global in the object.
pub(super) const GLOBAL: &str = LEVEL;

/// The level at which the programs log.
pub(super) fn level() -> u8 {
    if tracing::enabled!(target: "fairlead_programs", tracing::Level::TRACE) { Level::Trace as u8 } else { 0 }
}

/// Passes the programs' lines on to this process' log for as long as it runs, if they write any.
pub fn follow(ebpf: &mut Ebpf) {
    if level() == 0 {
        return;
    }
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => return warn!(%error, "can't open the programs' log"),
    };
    std::thread::spawn(move || {
        loop {
            let ready = poll(&mut [PollFd::new(logger.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
            if let Err(error) = ready
                && error != Errno::EINTR
            {
                return warn!(%error, "can't follow the programs' log");
            }
            logger.flush();
        }
    });
}
