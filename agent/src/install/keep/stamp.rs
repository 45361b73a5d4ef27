//! Whether a file is still the one that was seen, without reading it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What changes when anybody writes to a file, replaces it or changes its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no file.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = path.symlink_metadata().ok()?;
        let changed = (meta.ctime(), meta.ctime_nsec());
        Some(Self { device: meta.dev(), inode: meta.ino(), size: meta.size(), changed })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn whatever_is_done_to_a_file_is_seen() {
        let path = std::env::temp_dir().join(format!("fairlead-stamp-{}", std::process::id()));
        assert_eq!(Stamp::of(&path), None);
        let mut before = None;
        let mut is_seen = |what: &str| {
            let now = Stamp::of(&path);
            assert_ne!(now, before, "{what}");
            assert_eq!(now, Stamp::of(&path), "{what}");
            before = now;
            // The clock of file systems has the pace of timer interrupts.
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        fs::write(&path, "one").unwrap();
        is_seen("a new file");
        fs::write(&path, "two").unwrap();
        is_seen("another content of the same length");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        is_seen("another mode");
        fs::remove_file(&path).unwrap();
        is_seen("no file");
    }
}
