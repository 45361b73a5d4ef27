//! What the tests share: a cluster of two nodes, servers on both, and routes to services' addresses for clients outside.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::{Lab, Pod, Probe, ProbeError, Probes, Reply, ServiceManifest};

/// Two nodes, each with a server pod and a server of its own, and a client pod on each. It ends with the process of the
/// tests.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) client: Pod,
    pub(crate) far_client: Pod,
    pub(crate) near: Pod,
    pub(crate) far: Pod,
}

/// Prefixes of addresses that only nodes know: of the cluster, of a load balancer, of somewhere else.
const ROUTED: [[&str; 2]; 3] = [
    ["10.96.0.0/16", "fd00:10:96::/48"],
    ["203.0.113.0/24", "2001:db8:113::/48"],
    ["198.51.100.0/24", "2001:db8:51::/48"],
];

/// The ports that processes of nodes listen on.
pub(crate) const HOST: u16 = 9090;

/// The cluster that tests share. Both clients outside reach the addresses of services by the first node.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::builder().nodes(2).start();
        let server = |node: &str, key: &str| lab.node(node).pod(key).tcp(8080).udp(5300).start();
        for node in lab.nodes() {
            node.serve(&format!("host/{}", node.name()), &[HOST], &[HOST]);
        }
        let by = lab.node("node-1").ips().map(|ip| ip.to_string());
        for place in [lab.client(), lab.fabric()] {
            for prefix in ROUTED {
                for (prefix, by) in prefix.iter().zip(&by) {
                    place.must_run(&["ip", "route", "add", prefix, "via", by]);
                }
            }
        }
        World {
            client: lab.node("node-1").pod("shop/client").start(),
            far_client: lab.node("node-2").pod("shop/far-client").start(),
            near: server("node-1", "shop/near"),
            far: server("node-2", "shop/far"),
            lab,
        }
    })
}

/// The addresses with a number in a prefix of a family each.
pub(crate) fn at(prefixes: [&str; 2], number: u8) -> [IpAddr; 2] {
    prefixes.map(|prefix| format!("{prefix}{number}").parse().expect("it is an address"))
}

/// Cluster addresses.
pub(crate) fn cluster(number: u8) -> [IpAddr; 2] {
    at(["10.96.60.", "fd00:10:96::60:"], number)
}

/// A load balancer's addresses.
pub(crate) fn balancer(number: u8) -> [IpAddr; 2] {
    at(["203.0.113.", "2001:db8:113::"], number)
}

/// Addresses of somewhere else.
pub(crate) fn external(number: u8) -> [IpAddr; 2] {
    at(["198.51.100.", "2001:db8:51::"], number)
}

/// A service named by a row, with `http` at 80/TCP and `ask` at 53/UDP.
pub(crate) fn service(name: &str, number: u8) -> ServiceManifest {
    bare(name, number).tcp("http", 80, 8080).udp("ask", 53, 5300)
}

/// The same with processes of nodes behind it.
pub(crate) fn host_service(name: &str, number: u8) -> ServiceManifest {
    bare(name, number).tcp("http", 80, HOST).udp("ask", 53, HOST)
}

/// The same without any port.
pub(crate) fn bare(name: &str, number: u8) -> ServiceManifest {
    ServiceManifest::new(&format!("shop/{name}")).ips(&cluster(number))
}

/// A service with a load balancer's addresses and NodePorts too.
pub(crate) fn everywhere(service: ServiceManifest, number: u8, ports: [u16; 2]) -> ServiceManifest {
    service.balanced(&balancer(number)).node_ports(&ports)
}

/// The probes of a service, or of its NodePorts: TCP and UDP, each family.
pub(crate) fn probes(ips: [IpAddr; 2], tcp: u16, udp: u16) -> Vec<Probe> {
    ips.into_iter().flat_map(|ip| [Probe::tcp(ip, tcp), Probe::udp(ip, udp)]).collect()
}

impl World {
    /// Waits until each probe is answered by these servers and no others; gives the last answers.
    #[track_caller]
    pub(crate) fn reaches(&self, from: &impl Probes, probes: &[Probe], servers: &[&str]) -> Vec<Reply> {
        let wanted: BTreeSet<&str> = servers.iter().copied().collect();
        let count = if servers.len() == 1 { 3 } else { 30 };
        let each = probes.iter().map(|probe| {
            self.lab.wait_until(&format!("{probe:?} is answered by {wanted:?}"), || {
                let mut replies = Vec::new();
                for _ in 0..count {
                    replies.push(from.probe(probe).map_err(|error| format!("{error:?}"))?);
                }
                let answered: BTreeSet<&str> = replies.iter().map(|reply| reply.server.pod.as_str()).collect();
                if answered == wanted {
                    Ok(replies.pop().expect("there are some"))
                } else {
                    Err(format!("{answered:?}"))
                }
            })
        });
        each.collect()
    }

    /// Waits until each probe is refused.
    #[track_caller]
    pub(crate) fn refused(&self, from: &impl Probes, probes: &[Probe]) {
        self.fails(from, probes, &ProbeError::Refused);
    }

    /// Waits until nobody answers, not even to refuse.
    #[track_caller]
    pub(crate) fn silent(&self, from: &impl Probes, probes: &[Probe]) {
        self.fails(from, probes, &ProbeError::TimedOut);
    }

    #[track_caller]
    fn fails(&self, from: &impl Probes, probes: &[Probe], wanted: &ProbeError) {
        for probe in probes {
            let probe = probe.clone().timeout(Duration::from_millis(300));
            self.lab.wait_until(&format!("{probe:?} ends with {wanted:?}"), || match from.probe(&probe) {
                Err(error) if error == *wanted => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
}
