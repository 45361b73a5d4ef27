//! The process itself, under the names that every client library of Prometheus uses.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;
use prometheus::proto::MetricFamily;

use crate::{counter, gauge};

/// What the kernel knows of this process.
#[derive(Debug)]
pub struct Process {
    started: f64,
}

impl Process {
    /// To be made when the process starts.
    #[must_use]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: now.as_secs_f64() }
    }

    /// Its metrics now.
    #[must_use]
    pub fn collect(&self) -> Vec<MetricFamily> {
        let mut found = vec![gauge(
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            self.started,
        )];
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            let help = "Total user and system CPU time spent in seconds.";
            found.push(counter("process_cpu_seconds_total", help, micros as f64 / 1e6));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them lists the others.
            let open = entries.count().saturating_sub(1);
            found.push(gauge("process_open_fds", "Number of open file descriptors.", open as f64));
        }
        if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            found.push(gauge("process_max_fds", "Maximum number of open file descriptors.", limit as f64));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (line, name, help, unit) in [
            ("VmRSS:", "process_resident_memory_bytes", "Resident memory size in bytes.", 1024.0),
            ("VmSize:", "process_virtual_memory_bytes", "Virtual memory size in bytes.", 1024.0),
            ("Threads:", "process_threads", "Number of OS threads in the process.", 1.0),
        ] {
            if let Some(value) = field(&status, line) {
                found.push(gauge(name, help, value * unit));
            }
        }
        found
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

/// A number in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition;

    #[test]
    fn the_process_is_described() {
        let text = exposition(Process::new().collect()).body;
        for name in ["cpu_seconds_total", "open_fds", "max_fds", "resident_memory_bytes", "start_time_seconds"] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name}: {text}");
        }
    }
}
