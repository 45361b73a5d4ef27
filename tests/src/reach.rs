//! What it means that a pod is reached.

use std::net::IpAddr;

use crate::pod::Pod;
use crate::probe::{Ping, Probe};
use crate::vantage::{Probes, Via};

/// Probes of an address by 80/TCP and 53/UDP, small and large.
#[must_use]
pub fn probes(to: IpAddr) -> [Probe; 4] {
    let [tcp, udp] = [Probe::tcp(to, 80), Probe::udp(to, 53)];
    [tcp.clone(), tcp.payload(60_000).answer_payload(60_000), udp.clone(), udp.payload(1200).answer_payload(1200)]
}

/// One pod reaches another that serves 80/TCP and 53/UDP: by both families, with socket hooks and without, at its own
/// addresses and from its own, and by pings.
///
/// # Panics
/// When it does not.
pub fn assert_reaches(client: &Pod, server: &Pod) {
    for to in server.ips() {
        for via in Via::BOTH {
            for probe in probes(to) {
                let reply = client.via(via).probe(&probe).unwrap_or_else(|error| panic!("{probe:?}: {error}"));
                assert_eq!(reply.server.pod, server.key());
                assert_eq!(reply.server.peer, reply.local, "no address is changed");
                assert_eq!(reply.server.local, reply.peer);
            }
        }
        for size in [0, 56, 1400] {
            let echo = client.ping(&Ping::new(to).payload(size)).unwrap();
            assert_eq!((echo.from, echo.size), (to, size));
        }
    }
}
