//! Open files: as many as this process may have, and who may use how many of them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for what must always work: listeners, probes and scrapes, files that are read, the API server.
const RESERVED: u64 = 320;

/// Raises the soft limit of open files to the hard one and returns it.
#[must_use]
pub fn raise() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, soft, hard, "can't raise the limit of open files: fewer TCP connections fit");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(_) => 1024,
    }
}

/// How many TCP connections of clients fit below a limit of open files, at most as many as are wanted: half of what is
/// left beside what must always work; the other half is for questions to upstream servers.
#[must_use]
pub fn connections(limit: u64, wanted: usize) -> usize {
    let half = limit.saturating_sub(RESERVED) / 2;
    usize::try_from(half).unwrap_or(usize::MAX).min(wanted).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_rest() {
        for limit in [0, 64, 256, 1024, 4096, 1 << 20, u64::MAX] {
            let connections = connections(limit, 1000);
            assert!((1..=1000).contains(&connections));
            assert!(connections == 1 || connections as u64 + RESERVED < limit);
        }
        assert_eq!(connections(1 << 20, 1000), 1000);
        assert_eq!(connections(1024, 1000), 352);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, limit), (hard, hard));
    }
}
