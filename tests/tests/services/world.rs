//! What most of the tests share: one cluster, a client and three servers. Services are each test's own.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::{Lab, Pod, Probe, ProbeError, Probes, Reply, ServiceManifest, Vantage, Via};
use serde_json::Value;

/// Three nodes, a client on the first, and a server on each. It ends with the process of the tests.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) client: Pod,
    pub(crate) near: Pod,
    pub(crate) far: Pod,
    pub(crate) third: Pod,
}

/// The cluster that tests share.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::new();
        let server = |node: &str, key: &str| lab.node(node).pod(key).tcp(8080).tcp(8081).udp(5300).udp(5301).start();
        World {
            client: lab.node("node-1").pod("shop/client").start(),
            near: server("node-1", "shop/near"),
            far: server("node-2", "shop/far"),
            third: server("node-3", "shop/third"),
            lab,
        }
    })
}

/// The addresses of a test's service, told from others by a number.
pub(crate) fn ips(number: u8) -> [IpAddr; 2] {
    [Ipv4Addr::new(10, 96, 50, number).into(), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0x50, number.into()).into()]
}

/// A service with these addresses: `http` at 80/TCP and `ask` at 53/UDP.
pub(crate) fn service(name: &str, number: u8) -> ServiceManifest {
    ServiceManifest::new(&format!("shop/{name}")).ips(&ips(number)).tcp("http", 80, 8080).udp("ask", 53, 5300)
}

/// The objects of a service, changed: the Service first, then its slice for IPv4, then that for IPv6.
pub(crate) fn edited(service: &ServiceManifest, edit: impl FnOnce(&mut [Value])) -> String {
    let mut objects: Vec<Value> =
        service.yaml().split("\n---\n").map(|object| serde_json::from_str(object).expect("it is JSON")).collect();
    edit(&mut objects);
    objects.iter().map(|object| format!("{object}\n---\n")).collect()
}

/// One way to a service: from where, to which of its addresses, by what.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) from: Vantage,
    pub(crate) via: Via,
    pub(crate) udp: bool,
    pub(crate) probe: Probe,
    pub(crate) ip: IpAddr,
}

impl Way {
    pub(crate) fn try_it(&self) -> Result<Reply, ProbeError> {
        self.from.probe(&self.probe)
    }

    /// What a failed assertion says.
    pub(crate) fn name(&self) -> String {
        format!("{} {} {:?}", if self.udp { "UDP" } else { "TCP" }, self.ip, self.via)
    }
}

/// All ways from a place to some addresses, TCP port 80 and UDP port 53 of each.
pub(crate) fn ways(from: &impl Probes, ips: &[IpAddr]) -> Vec<Way> {
    let mut ways = Vec::new();
    for &ip in ips {
        for via in Via::BOTH {
            for (udp, probe) in [(false, Probe::tcp(ip, 80)), (true, Probe::udp(ip, 53))] {
                ways.push(Way { from: from.via(via), via, udp, probe, ip });
            }
        }
    }
    ways
}

impl World {
    /// Waits until clients reach these pods and no others, whichever way they take.
    #[track_caller]
    pub(crate) fn reaches(&self, ips: &[IpAddr], pods: &[&Pod]) {
        let wanted: BTreeSet<String> = pods.iter().map(|pod| pod.key().to_owned()).collect();
        for way in ways(&self.client, ips) {
            self.lab.wait_until(&format!("{} reaches {wanted:?}", way.name()), || {
                match way.from.spread(&way.probe, if pods.len() == 1 { 20 } else { 40 }) {
                    Ok(reached) if reached.keys().eq(&wanted) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    /// Waits until clients are refused, whichever way they take.
    #[track_caller]
    pub(crate) fn refuses(&self, ips: &[IpAddr]) {
        self.fails(ips, |error| *error == ProbeError::Refused);
    }

    /// Waits until nobody answers, whichever way clients take.
    #[track_caller]
    pub(crate) fn nobody_answers(&self, ips: &[IpAddr]) {
        self.fails(ips, |_| true);
    }

    #[track_caller]
    fn fails(&self, ips: &[IpAddr], wanted: impl Fn(&ProbeError) -> bool) {
        for mut way in ways(&self.client, ips) {
            way.probe = way.probe.timeout(Duration::from_millis(300));
            self.lab.wait_until(&format!("{} fails", way.name()), || match way.try_it() {
                Err(error) if wanted(&error) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
}
