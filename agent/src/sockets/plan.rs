//! Which sockets are ended.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

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
    /// The service address that it was connected to, and the backend that a hook gave it. Of UDP sockets the kernel does not say
    /// that (`inet_sk_diag_fill` in net/ipv4/inet_diag.c).
    pub translated: Option<(SocketAddr, SocketAddr)>,
}

/// What is known when sockets are looked at.
pub struct World<'w> {
    /// Addresses that pods of this node had and that no pod has now.
    pub gone: &'w BTreeSet<IpAddr>,
    /// Addresses that pods elsewhere had and that no pod has now.
    pub gone_elsewhere: &'w BTreeSet<IpAddr>,
    /// Whether connections to a service address may be with a backend still: service, backend.
    pub serves: &'w dyn Fn(SocketAddr, SocketAddr) -> bool,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gone, gone_elsewhere, serves: _ } = self;
        f.debug_struct("World").field("gone", gone).field("gone_elsewhere", gone_elsewhere).finish_non_exhaustive()
    }
}

/// Which of these end.
pub fn plan<'s>(sockets: impl IntoIterator<Item = &'s SeenSocket>, world: &World<'_>) -> Vec<&'s SeenSocket> {
    sockets.into_iter().filter(|socket| ends(socket, world)).collect()
}

/// A pod of this node is gone when the runtime has taken it away, and whoever was connected to it has nobody there. Of pods
/// elsewhere only their objects are known, and another pod may have the address before its own object says so: there a
/// connection ends only if it came by a service that has left the backend too. A UDP socket has nothing to lose but its other
/// end, which nothing else would tell of.
fn ends(socket: &SeenSocket, world: &World<'_>) -> bool {
    let remote = socket.remote.ip().to_canonical();
    if world.gone.contains(&remote) {
        return true;
    }
    if !world.gone_elsewhere.contains(&remote) {
        return false;
    }
    let canonical = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
    match (socket.transport, socket.translated) {
        (Transport::Udp, _) => true,
        // What was connected again without a hook is no longer what the hook made of it.
        (Transport::Tcp, Some((service, backend))) => {
            canonical(backend) == canonical(socket.remote) && !(world.serves)(service, backend)
        }
        (Transport::Tcp, None) => false,
    }
}

#[cfg(test)]
mod tests {
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
        let serves = move |_: SocketAddr, _: SocketAddr| served;
        !plan([socket], &World { gone: &gone, gone_elsewhere: &gone_elsewhere, serves: &serves }).is_empty()
    }

    #[test]
    fn what_leads_to_a_pod_of_the_node_that_is_gone_ends_however_it_got_there() {
        for transport in Transport::ALL {
            for translated in [false, true] {
                let seen = socket(transport, POD, translated);
                assert!(decide(&seen, &["10.244.1.2"], &[], true));
                assert!(!decide(&seen, &["10.244.1.3"], &["10.244.1.4"], false), "to somebody else");
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
    fn a_backend_that_is_only_left_ends_nothing() {
        for transport in Transport::ALL {
            assert!(!decide(&socket(transport, POD, true), &[], &[], false));
        }
    }
}
