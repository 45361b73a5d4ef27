//! Where a datagram came from and which of our addresses it came to.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, sendmsg,
};

/// The two ends of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: SockaddrStorage,
    pub(super) local: Option<Local>,
}

impl Ends {
    /// The client's address; what is unknown is one client.
    pub(super) fn address(&self) -> IpAddr {
        let v4 = self.client.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = || self.client.as_sockaddr_in6().map(|address| address.ip().to_canonical());
        v4.or_else(v6).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// The client's address and port.
    pub(super) fn socket(&self) -> SocketAddr {
        let v4 = self.client.as_sockaddr_in().map(SockaddrIn::port);
        let port = v4.or_else(|| self.client.as_sockaddr_in6().map(SockaddrIn6::port));
        SocketAddr::new(self.address(), port.unwrap_or(0))
    }

    /// Whether the client has an address of IPv6 that is not an IPv4 one.
    pub(super) fn is_v6(&self) -> bool {
        self.client.as_sockaddr_in6().is_some_and(|address| address.ip().to_ipv4_mapped().is_none())
    }
}

/// One of our addresses, as the kernel tells it and takes it back. The response leaves from the address that the query
/// came to, on whatever interface the routes say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Local {
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

impl Local {
    pub(super) fn read(messages: impl Iterator<Item = ControlMessageOwned>) -> Option<Self> {
        messages.into_iter().find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Self::V4(libc::in_pktinfo {
                ipi_ifindex: 0,
                // On the way out this is the source.
                ipi_spec_dst: info.ipi_addr,
                ipi_addr: info.ipi_addr,
            })),
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                // A link-local source means nothing without its link.
                let [a, b, ..] = info.ipi6_addr.s6_addr;
                let link_local = a == 0xfe && b & 0xc0 == 0x80;
                let ipi6_ifindex = if link_local { info.ipi6_ifindex } else { 0 };
                Some(Self::V6(libc::in6_pktinfo { ipi6_addr: info.ipi6_addr, ipi6_ifindex }))
            }
            _ => None,
        })
    }

    fn control(&self) -> ControlMessage<'_> {
        match self {
            Self::V4(info) => ControlMessage::Ipv4PacketInfo(info),
            Self::V6(info) => ControlMessage::Ipv6PacketInfo(info),
        }
    }

    /// Whether two datagrams can leave in one call, which has one source for all.
    pub(super) fn same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (Some(Self::V4(one)), Some(Self::V4(other))) => one.ipi_addr.s_addr == other.ipi_addr.s_addr,
            (Some(Self::V6(one)), Some(Self::V6(other))) => {
                one.ipi6_addr.s6_addr == other.ipi6_addr.s6_addr && one.ipi6_ifindex == other.ipi6_ifindex
            }
            (None, None) => true,
            _ => false,
        }
    }
}

/// The control messages for datagrams that leave from this address.
pub(super) fn controls(local: Option<&Local>) -> Vec<ControlMessage<'_>> {
    local.map(Local::control).into_iter().collect()
}

/// Sends one datagram back. Never waits: a full queue loses it, as the network would.
pub(super) fn send(socket: &UdpSocket, ends: &Ends, bytes: &[u8]) -> Result<(), Errno> {
    let controls = controls(ends.local.as_ref());
    let slices = [IoSlice::new(bytes)];
    sendmsg(socket.as_raw_fd(), &slices, &controls, MsgFlags::MSG_DONTWAIT, Some(&ends.client)).map(drop)
}
