//! Which sockets are ended.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use fairlead_datapath::service::sock::{ListedSocket, SocketMemory};

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP, of a connection that a process has or makes.
    Tcp,
    /// UDP, connected.
    Udp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Its protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A socket of the node's network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenSocket {
    /// What it speaks.
    pub transport: Transport,
    /// Whether it is one of IPv6; such a one may speak IPv4.
    pub v6: bool,
    /// Its own end.
    pub local: SocketAddr,
    /// Its other end, as the kernel has it: the backend, where a hook translated the address that it was connected to.
    pub remote: SocketAddr,
    /// The interface that it is bound to, or 0.
    pub interface: u32,
    /// What tells it from every other of this boot.
    pub cookie: u64,
    /// The service address that it was connected to, and the backend that a hook gave it. Of UDP sockets sock_diag does not say
    /// that (`inet_sk_diag_fill` in net/ipv4/inet_diag.c): [`tell_apart`].
    pub translated: Option<(SocketAddr, SocketAddr)>,
}

/// What is known when sockets are looked at.
pub struct World<'w> {
    /// Addresses that pods of this node had and that no pod has now.
    pub gone: &'w BTreeSet<IpAddr>,
    /// Addresses that pods elsewhere had and that no pod has now.
    pub gone_elsewhere: &'w BTreeSet<IpAddr>,
    /// Whether what speaks to a service address may be with a backend still: service, backend.
    pub serves: &'w dyn Fn(Transport, SocketAddr, SocketAddr) -> bool,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gone, gone_elsewhere, serves: _ } = self;
        f.debug_struct("World").field("gone", gone).field("gone_elsewhere", gone_elsewhere).finish_non_exhaustive()
    }
}

/// What a hook made of a socket's address: the service that it was connected to, and the backend. Nothing if no hook did.
pub(super) fn translated(memory: &SocketMemory) -> Option<(SocketAddr, SocketAddr)> {
    let service = SocketAddr::new(memory.service.into(), memory.service_port.number());
    let backend = SocketAddr::new(memory.backend.into(), memory.backend_port.number());
    (service.port() != 0).then_some((service, backend))
}

/// Notes of UDP sockets what the hooks made of their addresses.
pub fn tell_apart(sockets: &mut [SeenSocket], listed: &[ListedSocket]) {
    let of_udp = sockets.iter_mut().filter(|socket| socket.transport == Transport::Udp);
    let mut by_cookie: HashMap<u64, &mut SeenSocket> = of_udp.map(|socket| (socket.cookie, socket)).collect();
    for ListedSocket { cookie, memory } in listed {
        if let Some(socket) = by_cookie.get_mut(cookie) {
            socket.translated = translated(memory);
        }
    }
}

/// Which of these end.
pub fn plan<'s>(sockets: impl IntoIterator<Item = &'s SeenSocket>, world: &World<'_>) -> Vec<&'s SeenSocket> {
    sockets.into_iter().filter(|socket| ends(socket, world)).collect()
}

/// A pod of this node is gone when the runtime has taken it away, and whoever was connected to it has nobody there. Of pods
/// elsewhere only their objects are known, and another pod may have the address before its own object says so: there a
/// connection ends only if it came by a service that has left the backend too. A UDP socket has nothing to lose but its other
/// end, which nothing else would tell of; and no service sends datagrams to a backend that it has left (S40), whether or not
/// that lives.
fn ends(socket: &SeenSocket, world: &World<'_>) -> bool {
    let remote = socket.remote.ip().to_canonical();
    if world.gone.contains(&remote) {
        return true;
    }
    let gone_elsewhere = world.gone_elsewhere.contains(&remote);
    let canonical = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
    let left = socket.translated.is_some_and(|(service, backend)| {
        // What was connected again without a hook is no longer what the hook made of it.
        canonical(backend) == canonical(socket.remote) && !(world.serves)(socket.transport, service, backend)
    });
    match socket.transport {
        Transport::Tcp => left && gone_elsewhere,
        Transport::Udp => left || gone_elsewhere,
    }
}

#[cfg(test)]
mod tests {
    use fairlead_datapath::WirePort;

    use super::*;

    const POD: &str = "10.244.1.2:80";
    const SERVICE: &str = "10.96.0.1:80";

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn socket(transport: Transport, remote: &str, translated: bool) -> SeenSocket {
        SeenSocket {
            transport,
            v6: false,
            local: addr("172.18.0.2:40000"),
            remote: addr(remote),
            interface: 0,
            cookie: 1,
            translated: translated.then(|| (addr(SERVICE), addr(POD))),
        }
    }

    /// Whether one ends: `gone` on this node, `elsewhere`, and whether the service still has the backend.
    fn decide(socket: &SeenSocket, gone: &[&str], elsewhere: &[&str], served: bool) -> bool {
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let (gone, gone_elsewhere) = (set(gone), set(elsewhere));
        let serves = move |_: Transport, _: SocketAddr, _: SocketAddr| served;
        !plan([socket], &World { gone: &gone, gone_elsewhere: &gone_elsewhere, serves: &serves }).is_empty()
    }

    #[test]
    fn what_leads_to_a_pod_of_the_node_that_is_gone_ends_however_it_got_there() {
        for transport in Transport::ALL {
            for translated in [false, true] {
                let seen = socket(transport, POD, translated);
                assert!(decide(&seen, &["10.244.1.2"], &[], true));
                assert!(!decide(&seen, &["10.244.1.3"], &["10.244.1.4"], true), "to somebody else");
            }
        }
        let mapped = socket(Transport::Tcp, "[::ffff:10.244.1.2]:80", false);
        assert!(decide(&mapped, &["10.244.1.2"], &[], true), "IPv4 by a socket of IPv6");
    }

    #[test]
    fn connections_to_pods_elsewhere_end_if_they_came_by_a_service_that_left_them() {
        let elsewhere = &["10.244.1.2"];
        assert!(decide(&socket(Transport::Tcp, POD, true), &[], elsewhere, false));
        assert!(!decide(&socket(Transport::Tcp, POD, true), &[], elsewhere, true), "somebody has the address");
        assert!(!decide(&socket(Transport::Tcp, POD, false), &[], elsewhere, false), "nobody knows whose it is");
        let anew = SeenSocket { remote: addr("10.244.1.2:81"), ..socket(Transport::Tcp, POD, true) };
        assert!(!decide(&anew, &[], elsewhere, false), "it was connected without a hook");
        assert!(decide(&socket(Transport::Udp, POD, false), &[], elsewhere, false));
    }

    #[test]
    fn a_backend_that_lives_and_that_the_service_has_left_loses_udp_sockets_alone() {
        assert!(!decide(&socket(Transport::Tcp, POD, true), &[], &[], false));
        assert!(decide(&socket(Transport::Udp, POD, true), &[], &[], false));
        assert!(!decide(&socket(Transport::Udp, POD, true), &[], &[], true), "it serves");
        assert!(!decide(&socket(Transport::Udp, POD, false), &[], &[], false), "it was connected to the pod itself");
        let anew = SeenSocket { remote: addr("10.244.1.3:80"), ..socket(Transport::Udp, POD, true) };
        assert!(!decide(&anew, &[], &[], false), "it was connected to somebody else since");
    }

    #[test]
    fn udp_sockets_are_told_apart_by_what_the_hooks_remember_of_each() {
        let memory = SocketMemory {
            service: addr(SERVICE).ip().into(),
            backend: addr(POD).ip().into(),
            service_port: WirePort::new(80),
            backend_port: WirePort::new(80),
            ..SocketMemory::default()
        };
        let numbered = |cookie, transport| SeenSocket { cookie, ..socket(transport, POD, false) };
        let mut sockets = [
            numbered(1, Transport::Udp),
            numbered(2, Transport::Udp),
            numbered(3, Transport::Udp),
            numbered(4, Transport::Tcp),
        ];
        let listed = [(1, memory), (3, SocketMemory::default()), (4, memory), (5, memory)]
            .map(|(cookie, memory)| ListedSocket { cookie, memory });
        tell_apart(&mut sockets, &listed);
        let told = sockets.map(|socket| socket.translated);
        assert_eq!(told, [Some((addr(SERVICE), addr(POD))), None, None, None]);
    }
}
