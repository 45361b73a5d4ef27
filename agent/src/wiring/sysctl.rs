//! Settings of the kernel that a node needs to forward for its pods.

use std::path::Path;

use super::WiringError;

/// Where the settings are.
pub const PROC_SYS: &str = "/proc/sys";

/// Sets what a forwarding node needs, in the network namespace of the calling thread. What is right already is not
/// written, so that a read-only /proc/sys that somebody prepared will do.
///
/// # Errors
/// The first setting that can't be written; the others are written nevertheless.
pub fn forward(proc_sys: &Path) -> Result<(), WiringError> {
    let mut result = Ok(());
    // Forwarding switches off router advertisements where accept_ra is 1, and with them a node's own default route
    // and addresses; 2 keeps them (Documentation/networking/ip-sysctl.rst). So this comes before forwarding.
    for device in devices(proc_sys) {
        let key = format!("net/ipv6/conf/{device}/accept_ra");
        if read(proc_sys, &key).as_deref() == Some("1") && device != "all" {
            result = result.and(write(proc_sys, &key, "2"));
        }
    }
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        // A kernel without IPv6 has no such file, and no such pods.
        if proc_sys.join(key).exists() {
            result = result.and(write(proc_sys, key, "1"));
        }
    }
    result
}

/// Has the node take packets from a device also where their answers would go another way: nodes may not agree on the way
/// between them. Of this and the setting for all devices the larger number holds, and 2 is loose.
///
/// # Errors
/// The setting can't be written.
pub fn loosen(proc_sys: &Path, device: &str) -> Result<(), WiringError> {
    write(proc_sys, &format!("net/ipv4/conf/{device}/rp_filter"), "2")
}

fn devices(proc_sys: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(proc_sys.join("net/ipv6/conf")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(proc_sys: &Path, key: &str) -> Option<String> {
    Some(std::fs::read_to_string(proc_sys.join(key)).ok()?.trim().to_owned())
}

fn write(proc_sys: &Path, key: &str, value: &str) -> Result<(), WiringError> {
    if read(proc_sys, key).as_deref() == Some(value) {
        return Ok(());
    }
    let path = proc_sys.join(key);
    std::fs::write(&path, value).map_err(|source| WiringError::Sysctl {
        path: path.display().to_string(),
        value: value.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// In a namespace of its own: /proc/sys/net shows that of the thread that opens it.
    #[test]
    fn forwarding_keeps_router_advertisements() {
        std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
            let proc_sys = Path::new(PROC_SYS);
            std::fs::write(proc_sys.join("net/ipv6/conf/lo/accept_ra"), "1").unwrap();
            forward(proc_sys).unwrap();
            let expected = [
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv6/conf/all/forwarding", "1"),
                ("net/ipv6/conf/lo/forwarding", "1"),
                ("net/ipv6/conf/lo/accept_ra", "2"),
            ];
            for (key, value) in expected {
                assert_eq!(read(proc_sys, key).as_deref(), Some(value), "{key}");
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_setting_that_cannot_be_written_is_named() {
        let error = write(Path::new("/nonexistent"), "net/ipv4/ip_forward", "1").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/net/ipv4/ip_forward to 1"), "{error}");
    }
}
