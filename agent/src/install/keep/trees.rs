//! Mounts by descriptor (open_tree(2) and move_mount(2), Linux 5.2), for which no crate has a call. The only unsafe code of
//! installing.
#![expect(unsafe_code, reason = "system calls that no crate wraps")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mount of what is mounted at a path, alone, without a place in the tree. It keeps the file system as long as it is open,
/// whoever unmounts that elsewhere, and makes no mount busy.
///
/// # Errors
/// The path does not exist, or this process may not mount.
pub(super) fn clone_of(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends with a zero byte and outlives the call, which writes nowhere.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives such a mount its place: on top of what is at a path. From then on its descriptor keeps that mount busy.
///
/// # Errors
/// The path does not exist, or this process may not mount there.
pub(super) fn attach(tree: &impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both paths end with a zero byte and outlive the call, which writes nowhere; the descriptor is borrowed for it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
