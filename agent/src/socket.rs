//! Sockets that an earlier agent may still be listening on.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{fs, os};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as accept_from, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

/// Listens under a temporary name and then takes the place of an earlier agent's socket, so that the name is never missing.
/// Only root may connect.
///
/// # Errors
/// The socket can't be made.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    listen_for(path, 0o600)
}

/// The same, for those whom the mode of its name lets connect.
///
/// # Errors
/// The socket can't be made.
pub(crate) fn listen_for(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The name gets the mode of the socket (`unix_bind_bsd` in net/unix/af_unix.c), so that nobody else can connect before it is
    // set.
    fchmod(&fd, Mode::from_bits_truncate(mode))?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&new)?)?;
    // That without what the process' umask forbids.
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    accept_from(&fd, Backlog::MAXCONN)?;
    let listener = UnixListener::from_std(os::unix::net::UnixListener::from(fd))?;
    fs::rename(&new, path)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_takes_the_place_of_an_earlier_one() {
        let directory = std::env::temp_dir().join(format!("fairlead-socket-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("agent.sock");
        // What an agent that was killed while it began has left is in nobody's way.
        fs::write(path.with_extension("new"), "").unwrap();
        let before = listen(&path).unwrap();
        let _earlier = tokio::net::UnixStream::connect(&path).await.unwrap();
        let after = listen(&path).unwrap();
        let _later = tokio::net::UnixStream::connect(&path).await.unwrap();
        before.accept().await.unwrap();
        after.accept().await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary name is left");
        fs::remove_dir_all(&directory).unwrap();
    }
}
