//! The guest's file system: one program, the files that it reads, and a console. In the kernel's `newc` format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The archive of a program that is the guest's first process, of files in its root, and of programs and libraries in folders.
pub(super) fn archive(program: &[u8], files: &[(&str, &[u8])], programs: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    entry(&mut out, "dev", DIRECTORY, (0, 0), &[]);
    entry(&mut out, "dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    entry(&mut out, "init", PROGRAM, (0, 0), program);
    for (name, bytes) in files {
        entry(&mut out, name, FILE, (0, 0), bytes);
    }
    let folders: BTreeSet<&Path> = programs.keys().flat_map(|path| path.ancestors().skip(1)).collect();
    // Each comes after the one that it is in.
    for folder in folders.into_iter().filter(|folder| !folder.as_os_str().is_empty()) {
        entry(&mut out, &folder.to_string_lossy(), DIRECTORY, (0, 0), &[]);
    }
    for (path, bytes) in programs {
        entry(&mut out, &path.to_string_lossy(), PROGRAM, (0, 0), bytes);
    }
    entry(&mut out, "TRAILER!!!", 0, (0, 0), &[]);
    out
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
    // inode, mode, user, group, links, time, size, device (2), device of a node (2), size of the name, checksum
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
    out.extend_from_slice(b"070701");
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

/// Names and data end on multiples of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_data_each_padded() {
        let mut out = Vec::new();
        entry(&mut out, "object", FILE, (0, 0), b"12345");
        let text = String::from_utf8(out).unwrap();
        let header = "070701\
            00000000000081a400000000000000000000000100000000\
            0000000500000000000000000000000000000000\
            0000000700000000";
        assert_eq!(text, format!("{header}object\0\0\0\0") + "12345\0\0\0");
        assert_eq!(text.len() % 4, 0);
    }

    #[test]
    fn the_archive_ends_with_its_trailer() {
        let archive = archive(b"program", &[("object", b"object")], &BTreeMap::new());
        assert!(String::from_utf8_lossy(&archive).contains("TRAILER!!!"));
        assert_eq!(archive.len() % 4, 0);
    }
}
