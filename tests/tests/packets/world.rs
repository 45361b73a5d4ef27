//! What most of the tests share: a cluster with a few pods, and servers outside of it.

use std::net::IpAddr;
use std::sync::OnceLock;

use fairlead_tests::{Lab, Pod};

/// Two nodes, two pods on the first and one on the second. It ends with the process of the tests.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    pub(crate) far: Pod,
}

/// The cluster that tests share. All pods, the nodes and the outside serve 80/TCP and 53/UDP.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::builder().nodes(2).start();
        let pod = |node: &str, key: &str| lab.node(node).pod(key).tcp(80).udp(53).start();
        for node in lab.nodes() {
            node.serve(&format!("host/{}", node.name()), &[80], &[53]);
        }
        for client in [lab.client(), lab.far_client()] {
            client.serve("outside/server", &[80], &[53]);
        }
        World { one: pod("node-1", "net/one"), two: pod("node-1", "net/two"), far: pod("node-2", "net/far"), lab }
    })
}

/// The addresses of the client on the nodes' network and of the one behind the router.
pub(crate) const OUTSIDE: [[&str; 2]; 2] = [["172.18.0.100", "fd00:172:18::100"], ["192.0.2.100", "2001:db8::100"]];

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}
