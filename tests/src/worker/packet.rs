//! Packet sockets (`packet(7)`): whole frames as an interface sends and receives them.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, setsockopt, socket,
    sockopt,
};
use std::os::fd::AsFd;

use crate::packets::{Frame, from_hex, to_hex};

/// A packet socket on one interface.
pub(super) struct PacketSocket {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl PacketSocket {
    /// Opens one: from now on no frame is missed.
    pub(super) fn open(interface: &str) -> Result<Self> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        let interface = getifaddrs()?
            .filter(|each| each.interface_name == interface)
            .find_map(|each| each.address.and_then(|address| address.as_link_addr().copied()))
            .with_context(|| format!("there is no interface {interface} here"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20))?;
        // Until here the socket heard every interface.
        bind(socket.as_raw_fd(), &interface)?;
        let mut new = Self { socket, interface };
        while !new.read(0)?.is_empty() {}
        Ok(new)
    }

    /// Sends a frame as it is.
    pub(super) fn send(&mut self, frame: &str) -> Result<()> {
        let bytes = from_hex(frame).context("a frame is written in hexadecimal digits")?;
        let sent = sendto(self.socket.as_raw_fd(), &bytes, &self.interface, MsgFlags::empty())
            .with_context(|| format!("a frame of {} bytes can't be sent", bytes.len()))?;
        ensure!(sent == bytes.len(), "only {sent} of {} bytes were sent", bytes.len());
        Ok(())
    }

    /// What has arrived; waits for the first frame.
    pub(super) fn receive(&mut self, millis: u64) -> Result<Vec<Frame>> {
        self.read(millis)
    }

    fn read(&mut self, millis: u64) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let timeout = PollTimeout::try_from(u32::try_from(millis)?)?;
        if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Ok(frames);
        }
        let mut buffer = vec![0; 1 << 17];
        while frames.len() < 256 {
            let mut iov = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let (count, from) = match recvmsg::<LinkAddr>(fd, &mut iov, None, MsgFlags::MSG_DONTWAIT) {
                Ok(message) => (message.bytes, message.address),
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(error) => return Err(error).context("can't receive frames"),
            };
            if from.is_some_and(|from| from.ifindex() == self.interface.ifindex()) {
                let outgoing = from.is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
                frames.push(Frame { outgoing, hex: to_hex(&buffer[..count]) });
            }
        }
        Ok(frames)
    }
}
