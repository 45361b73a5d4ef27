//! ICMP echo, and the errors that routers answer it with (RFC 792, RFC 4443).

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::probe::{Echo, Ping, ProbeError};

/// Identifiers of requests: two pings at a time don't take each other's answers.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// What an ICMP message means to whoever waits for an echo.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Reply(Vec<u8>),
    Failed(ProbeError),
}

/// Sends one echo request and waits for what comes of it.
pub(super) fn ping(ping: &Ping) -> Result<Echo, ProbeError> {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let v4 = ping.to.is_ipv4();
    let (domain, protocol) = if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    match (ping.ttl, v4) {
        (Some(ttl), true) => socket.set_ttl_v4(ttl)?,
        (Some(ttl), false) => socket.set_unicast_hops_v6(ttl)?,
        (None, _) => {}
    }
    let started = Instant::now();
    socket.send_to(&request(v4, id, ping.size), &SocketAddr::new(ping.to, 0).into())?;
    let mut buffer = vec![0; 65536];
    loop {
        let left = ping.timeout.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let (count, from) = receive(&mut socket, &mut buffer, v4)?;
        match read(v4, &buffer[..count], from, id) {
            Some(Meaning::Reply(payload)) => {
                let size = payload.iter().zip(0usize..).take_while(|&(&byte, at)| byte == pattern(at)).count();
                return Ok(Echo { from, size, took: started.elapsed() });
            }
            Some(Meaning::Failed(error)) => return Err(error),
            None if started.elapsed() >= ping.timeout => return Err(ProbeError::TimedOut),
            None => {}
        }
    }
}

/// One message. IPv4 raw sockets give the IP header too, so it says who sent it; IPv6 ones don't.
fn receive(socket: &mut Socket, buffer: &mut [u8], v4: bool) -> Result<(usize, IpAddr), ProbeError> {
    if v4 {
        let count = socket.read(buffer)?;
        let header = usize::from(buffer[0] & 15) * 4;
        let from = Ipv4Addr::from([buffer[12], buffer[13], buffer[14], buffer[15]]);
        buffer.copy_within(header..count, 0);
        return Ok((count.saturating_sub(header), from.into()));
    }
    use std::os::fd::AsRawFd;
    let (count, from) = nix::sys::socket::recvfrom::<nix::sys::socket::SockaddrIn6>(socket.as_raw_fd(), buffer)
        .map_err(std::io::Error::from)?;
    Ok((count, from.map_or(Ipv6Addr::UNSPECIFIED, |from| from.ip()).into()))
}

fn request(v4: bool, id: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(1u16.to_be_bytes());
    packet.extend((0..size).map(pattern));
    if v4 {
        // The kernel computes ICMPv6 checksums, which cover addresses, and leaves those of ICMP to us.
        let sum = crate::packets::checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn pattern(at: usize) -> u8 {
    (at % 251) as u8
}

/// What a message means for request `id`; nothing if it is about something else.
fn read(v4: bool, message: &[u8], from: IpAddr, id: u16) -> Option<Meaning> {
    let (&kind, &code) = (message.first()?, message.get(1)?);
    let is_ours = |echo: &[u8]| echo.get(4..6) == Some(&id.to_be_bytes());
    let (reply, request) = if v4 { (0, 8) } else { (129, 128) };
    if kind == reply {
        return is_ours(message).then(|| Meaning::Reply(message[8..].to_vec()));
    }
    // An error carries the packet that it is about.
    let about = message.get(8..)?;
    let header = if v4 { usize::from(about.first()? & 15) * 4 } else { 40 };
    let inner = about.get(header..)?;
    if inner.first() != Some(&request) || !is_ours(inner) {
        return None;
    }
    Some(Meaning::Failed(match (v4, kind, code) {
        (true, 3, 4) | (false, 2, _) => ProbeError::TooBig,
        (true, 3, 3) | (false, 1, 4) => ProbeError::Refused,
        (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5) => ProbeError::NotPermitted,
        (true, 3, _) | (false, 1, _) => ProbeError::Unreachable,
        (true, 11, _) | (false, 3, _) => ProbeError::Expired(from),
        _ => ProbeError::Other(format!("ICMP type {kind} code {code}")),
    }))
}
