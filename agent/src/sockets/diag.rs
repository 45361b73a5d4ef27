//! The kernel's list of sockets, of the network namespace of the thread that opens it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::message::{Told, destroy, list, read};
use super::plan::{SeenSocket, Transport};
use crate::bpf::Map;

/// How long the kernel may take to answer: it does so in the call.
const PATIENCE: i64 = 2;

/// Bytes of one answer (`NLMSG_GOODSIZE` and more).
const ANSWER: usize = 64 << 10;

/// A socket to ask.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    seq: u32,
    /// Room for an answer.
    buffer: Vec<u8>,
}

impl Diag {
    /// Opens one.
    ///
    /// # Errors
    /// The kernel has no sock_diag, or refuses.
    pub fn open() -> io::Result<Self> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE))?;
        Ok(Self { socket, seq: 0, buffer: vec![0; ANSWER] })
    }

    /// Sockets of processes with another end, of both families and of these protocols; `storage` is `SOCKETS`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sockets(&mut self, storage: &Map, transports: &[Transport]) -> io::Result<Vec<SeenSocket>> {
        let storage = storage.as_fd().as_raw_fd().cast_unsigned();
        let mut sockets = Vec::new();
        for &transport in transports {
            for v6 in [false, true] {
                let seq = self.ask(|seq| list(v6, transport, storage, seq))?;
                match self.answer(transport, seq, &mut sockets) {
                    // The kernel knows nothing of such sockets (`CONFIG_INET_UDP_DIAG`).
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    answer => answer?,
                }
            }
        }
        Ok(sockets)
    }

    /// Ends a socket. Whether it was there still.
    ///
    /// # Errors
    /// The kernel can't (`CONFIG_INET_DIAG_DESTROY`), or refuses.
    pub fn end(&mut self, socket: &SeenSocket) -> io::Result<bool> {
        let seq = self.ask(|seq| destroy(socket, seq))?;
        match self.answer(socket.transport, seq, &mut Vec::new()) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel can end sockets at all: it is asked for one that nobody has.
    ///
    /// # Errors
    /// It refuses for another reason.
    pub fn can_end(&mut self) -> io::Result<bool> {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let nobodys = SeenSocket {
            transport: Transport::Tcp,
            v6: false,
            local: nowhere,
            remote: nowhere,
            interface: 0,
            cookie: 0,
            translated: None,
        };
        match self.end(&nobodys) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ask(&mut self, message: impl FnOnce(u32) -> Vec<u8>) -> io::Result<u32> {
        self.seq = self.seq.wrapping_add(1);
        send(self.socket.as_raw_fd(), &message(self.seq), MsgFlags::empty())?;
        Ok(self.seq)
    }

    fn answer(&mut self, transport: Transport, seq: u32, sockets: &mut Vec<SeenSocket>) -> io::Result<()> {
        loop {
            let count = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            match read(&self.buffer[..count], transport, seq, sockets) {
                Told::More => {}
                Told::Done | Told::Error(0) => return Ok(()),
                Told::Error(error) => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}
