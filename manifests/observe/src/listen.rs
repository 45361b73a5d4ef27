//! Sockets that listen.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens on an address; `[::]` is both families, whatever the node's default is. The address may be shared with
/// sockets that were opened in the same way by the same user: an agent takes over from the one before it while that
/// still answers.
///
/// # Errors
/// The address is taken by another program, or is not of this machine.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, !address.ip().is_unspecified())
}

/// The same, in the address' own family alone.
///
/// # Errors
/// As [`listen`].
pub fn listen_only(address: SocketAddr) -> io::Result<TcpListener> {
    open(address, true)
}

fn open(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Every address of the machine: of both families, or of IPv4 alone where there is no IPv6.
#[must_use]
pub fn any(port: u16) -> SocketAddr {
    let has_v6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    if has_v6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() }
}
