//! Services at the socket: a connect or a datagram to a service address goes to the backend, and the socket's owner is
//! told the service address when it asks whom it talks to.
//!
//! TCP is translated for pods and host alike. UDP is translated for the host alone: a pod's datagrams are translated one by
//! one on their way (so they can leave a backend that is gone), a host's have no such way. The addresses in IPv6 hooks
//! may be v4-mapped, and are in no way special: neither is any other here.
//!
//! What is closed to pods ([`crate::config::Config::closed`]) is refused here too, so that nobody waits for the answer: the
//! address that a packet would have, not the one that was asked for.
//!
//! A socket keeps one destination ([`SocketMemory`]). An unconnected one talks to many, so for datagrams each backend that
//! it sends to is remembered beside that ([`Sender`]).

#[cfg(test)]
mod tests;

pub use crate::tables::sock::*;

use super::{Chosen, From, FrontendFlags, FrontendKey, Selection, Tables, admits, select, select_again, stick};
use crate::{Addr, WirePort, WireV4};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// IP protocol number of UDP.
const UDP: u8 = 17;

/// An address and a port, as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: WirePort,
}

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with the address as it was or as it was set.
    Proceed,
    /// It fails with `ECONNREFUSED`.
    Refuse,
    /// It fails with `EADDRINUSE`.
    InUse,
}

/// A socket during a system call, and what is remembered of it.
pub trait Socket: Tables {
    /// IP protocol number of the socket.
    fn protocol(&self) -> u8;

    /// Whether its owner is in the node's own network namespace.
    fn is_host(&self) -> bool;

    /// The node's own address in the family of another, where the socket is the node's; of a pod's it is not known, `::`.
    fn own_address(&self, like: Addr) -> Addr;

    /// Whether an address is closed to pods.
    fn is_closed(&self, addr: Addr) -> bool;

    /// Seconds since boot.
    fn seconds(&self) -> u32;

    /// A number that no other socket has.
    fn cookie(&self) -> u64;

    /// 32 random bits.
    fn random(&self) -> u32;

    /// The address that the call is about: the destination, or in recvmsg and getpeername the peer.
    fn target(&self) -> Target;

    /// Changes it.
    fn set_target(&mut self, target: Target);

    /// What is remembered of the socket.
    fn memory(&self) -> Option<SocketMemory>;

    /// Remembers it. Without room for it nothing is remembered.
    fn remember(&mut self, memory: &SocketMemory);

    /// A place of `SENDERS`, copied out; nothing if the socket has none. `place` is below [`MAX_SENDERS`].
    fn sender(&self, place: usize) -> Option<Sender>;

    /// Writes a place of `SENDERS`: the one that is named, else the one whose turn it is. Without room nothing is remembered.
    fn remember_sender(&mut self, place: Option<usize>, sender: &Sender);
}

/// bind(2) of a process of the node: a NodePort is in use, for what comes to it goes to its service (S7).
///
/// Asked before the kernel chooses a port for who wants any, so nobody is refused what was not asked for.
#[inline(always)]
pub fn bind<S: Socket>(socket: &S) -> Verdict {
    let Target { addr, port } = socket.target();
    let protocol = socket.protocol();
    if port == WirePort::NONE || !matches!(protocol, TCP | UDP) || !socket.is_host() {
        return Verdict::Proceed;
    }
    if socket.node_address(&addr) & FrontendFlags::NODE_PORT == 0 {
        return Verdict::Proceed;
    }
    let is_guarded = |addr: Addr| {
        let key = FrontendKey::new(addr.wildcard(), port, protocol);
        socket.frontend(&key).is_some_and(|found| found.flags & FrontendFlags::GUARDED != 0 && found.is_of(key.tag()))
    };
    // `::` is every IPv4 address too, but for IPV6_V6ONLY, which can't be seen from here.
    if is_guarded(addr) || (addr == Addr::UNSPECIFIED && is_guarded(Addr::from_v4(WireV4::from_bits(0)))) {
        return Verdict::InUse;
    }
    Verdict::Proceed
}

/// connect(2).
///
/// DROP is left to the packets' way, where it is a drop: the caller sees a time-out, as upstream.
#[inline(always)]
pub fn connect<S: Socket>(socket: &mut S) -> Verdict {
    let protocol = socket.protocol();
    let service = socket.target();
    let closed = !socket.is_host() && socket.is_closed(service.addr);
    let random = match protocol {
        TCP => socket.random(),
        UDP if socket.is_host() || closed => steady(socket.cookie()),
        _ => return Verdict::Proceed,
    };
    // A pod's loopback is its own.
    if service.addr.is_loopback() && !socket.is_host() {
        return Verdict::Proceed;
    }
    match select(socket, service.addr, service.port, protocol, From::Inside, random) {
        Selection::NotAService if closed => Verdict::Refuse,
        // Where the client's address matters, a pod is left to the packets' way, which knows it; and so are its datagrams.
        Selection::Forward(chosen) if (protocol == TCP || socket.is_host()) && is_ours(socket, &chosen, &service) => {
            let chosen = stick(socket, chosen, socket.own_address(service.addr), From::Inside, socket.seconds());
            if !socket.is_host() && socket.is_closed(chosen.addr) {
                return Verdict::Refuse;
            }
            let memory = SocketMemory {
                service: service.addr,
                backend: chosen.addr,
                service_port: service.port,
                backend_port: chosen.port,
                pad: 0,
                last: last(&chosen),
            };
            socket.remember(&memory);
            socket.set_target(Target { addr: chosen.addr, port: chosen.port });
            Verdict::Proceed
        }
        Selection::Reject => Verdict::Refuse,
        Selection::NotAService | Selection::Forward(_) | Selection::Drop | Selection::Raced => {
            if socket.memory().is_some() {
                socket.remember(&SocketMemory::default());
            }
            Verdict::Proceed
        }
    }
}

/// sendmsg(2) and sendto(2) with an address. A socket stays with a backend for as long as that serves.
#[inline(always)]
pub fn send<S: Socket>(socket: &mut S) -> Verdict {
    let service = socket.target();
    let host = socket.is_host();
    if !host && !socket.is_closed(service.addr) {
        return Verdict::Proceed;
    }
    let cookie = socket.cookie();
    let memory = socket.memory().unwrap_or_default();
    let before = ((memory.last >> 32) as u32, memory.last as u32);
    match select_again(socket, service.addr, service.port, UDP, From::Inside, steady(cookie), before) {
        Selection::NotAService if !host => Verdict::Refuse,
        Selection::Forward(mut chosen) if host && is_ours(socket, &chosen, &service) => {
            if memory.last != last(&chosen) {
                chosen = stick(socket, chosen, socket.own_address(service.addr), From::Inside, socket.seconds());
            }
            if memory.last != last(&chosen) {
                socket.remember(&SocketMemory { last: last(&chosen), ..memory });
            }
            let backend = Target { addr: chosen.addr, port: chosen.port };
            remember_sender(socket, &backend, &service);
            socket.set_target(backend);
            Verdict::Proceed
        }
        Selection::Reject => Verdict::Refuse,
        Selection::NotAService | Selection::Forward(_) | Selection::Drop | Selection::Raced => {
            // Who talks to a backend by its own address from now on is to see that.
            if let Some((place, _)) = find_sender(socket, &service) {
                socket.remember_sender(Some(place), &Sender::default());
            }
            Verdict::Proceed
        }
    }
}

/// Whether the choice is made at the socket: the service admits the client, and remembers it by an address that is known.
#[inline(always)]
fn is_ours<S: Socket>(socket: &S, chosen: &Chosen, service: &Target) -> bool {
    let client = socket.own_address(service.addr);
    admits(socket, chosen, client) && (chosen.affinity_seconds == 0 || client != Addr::UNSPECIFIED)
}

/// recvmsg(2) and recvfrom(2): a backend's datagram comes from the service.
#[inline(always)]
pub fn receive<S: Socket>(socket: &mut S) {
    if !socket.is_host() {
        return;
    }
    let from = socket.target();
    match find_sender(socket, &from) {
        Some((_, sender)) => socket.set_target(Target { addr: sender.service, port: sender.service_port }),
        None => peer_name(socket),
    }
}

/// The place that a backend is in, with what is there.
#[inline(always)]
fn find_sender<S: Socket>(socket: &S, backend: &Target) -> Option<(usize, Sender)> {
    let mut place = 0;
    while place < MAX_SENDERS {
        let there = socket.sender(place)?;
        if there.backend == backend.addr && there.backend_port == backend.port && there.is_of(Sender::KEY) {
            return Some((place, there));
        }
        place += 1;
    }
    None
}

/// A backend answers as a service from now on.
#[inline(always)]
fn remember_sender<S: Socket>(socket: &mut S, backend: &Target, service: &Target) {
    let before = find_sender(socket, backend);
    let sender = Sender {
        tag: 0,
        backend_port: backend.port,
        service_port: service.port,
        backend: backend.addr,
        service: service.addr,
    };
    let sender = sender.sealed(Sender::KEY);
    match before {
        Some((_, before)) if before == sender => {}
        Some((place, _)) => socket.remember_sender(Some(place), &sender),
        None => socket.remember_sender(None, &sender),
    }
}

/// getpeername(2): the service that the socket was connected to, if its peer is still the backend of that.
#[inline(always)]
pub fn peer_name<S: Socket>(socket: &mut S) {
    let Some(memory) = socket.memory() else { return };
    let peer = socket.target();
    if memory.backend == peer.addr && memory.backend_port == peer.port && memory.service != Addr::UNSPECIFIED {
        socket.set_target(Target { addr: memory.service, port: memory.service_port });
    }
}

/// Random bits that a socket keeps for its life.
#[inline(always)]
const fn steady(cookie: u64) -> u32 {
    (cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[inline(always)]
const fn last(chosen: &Chosen) -> u64 {
    (chosen.id as u64) << 32 | chosen.generation as u64
}
