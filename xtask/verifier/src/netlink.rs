//! Requests to the kernel's network, one at a time.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// A socket in the namespace of the thread that opened it.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it.
    pub(crate) fn open() -> Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Makes something that is not there yet.
    pub(crate) fn add(&self, message: RouteNetlinkMessage) -> Result<()> {
        self.ask(message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Changes something that is there.
    pub(crate) fn set(&self, message: RouteNetlinkMessage) -> Result<()> {
        self.ask(message, 0)
    }

    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        send(self.0.as_raw_fd(), &buffer, MsgFlags::empty())?;
        let mut answer = vec![0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length])?.payload {
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io().into()),
            _ => bail!("the kernel answers with something else than an acknowledgement"),
        }
    }
}
