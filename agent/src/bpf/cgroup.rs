//! Where the socket hooks go.

use std::path::PathBuf;

use super::BpfError;

const MOUNTS: &str = "/proc/mounts";

/// The root of cgroup v2 as this process sees it: on hybrid hosts it is not `/sys/fs/cgroup`.
///
/// # Errors
/// None is mounted.
pub fn cgroup2_mount() -> Result<PathBuf, BpfError> {
    let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
    find(&mounts).ok_or(BpfError::NoCgroup2 { mounts: MOUNTS })
}

/// The last mount wins: it is on top where two have one mount point.
fn find(mounts: &str) -> Option<PathBuf> {
    mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let dir = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(dir))
    })
}

#[cfg(test)]
mod tests {
    use super::find;
    use std::path::Path;

    #[test]
    fn cgroup2_is_found_where_it_is_mounted() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(find(hybrid).as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(find("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(find("tmpfs /sys/fs/cgroup2 tmpfs rw 0 0\n"), None);
    }
}
