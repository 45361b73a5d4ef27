//! Sockets, with the options that the server needs before they are bound.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv6RecvPacketInfo, Ipv6V6Only, ReceiveTimeout, ReuseAddr, ReusePort, TcpNoDelay,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SetSockOpt, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// How often a thread that has nothing to do looks whether it should end, in milliseconds.
const WAKE_UP: i64 = 250;

/// A UDP socket that shares its address with others and tells the address that each datagram was sent to.
pub(super) fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let fd = open(address, SockType::Datagram)?;
    set(&fd, ReceiveTimeout, &TimeVal::milliseconds(WAKE_UP))?;
    match address.ip() {
        IpAddr::V4(_) => set(&fd, Ipv4PacketInfo, &true)?,
        IpAddr::V6(_) => set(&fd, Ipv6RecvPacketInfo, &true)?,
    }
    share(&fd, address)?;
    Ok(fd.into())
}

/// A TCP socket that listens.
pub(super) fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let fd = open(address, SockType::Stream)?;
    // A restart must not wait for the connections of the process before.
    set(&fd, ReuseAddr, &true)?;
    // Its connections inherit it: a response is one segment, and the next one doesn't wait for its acknowledgement.
    set(&fd, TcpNoDelay, &true)?;
    share(&fd, address)?;
    listen(&fd, Backlog::new(1024)?)?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Binds a socket to an address that others may have too. Where the kernel chooses the port nobody has it yet: were it shared
/// from the beginning, the kernel could choose that of another server of the same user.
fn share(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let bind = || bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).map_err(io::Error::from);
    if address.port() == 0 {
        bind()?;
        return set(fd, ReusePort, &true);
    }
    set(fd, ReusePort, &true)?;
    bind()
}

fn open(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        // `[::]` is both families, whatever the node's default is.
        set(&fd, Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    Ok(fd)
}

fn set<O: SetSockOpt<Val = V>, V>(fd: &impl AsFd, option: O, value: &V) -> io::Result<()> {
    setsockopt(fd, option, value).map_err(io::Error::from)
}
