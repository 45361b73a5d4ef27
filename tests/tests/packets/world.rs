//! What most of the tests share: a cluster with a few pods, and servers outside of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use fairlead_tests::{Lab, Node, Pod};
use serde_json::Value;

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

/// What `fairlead drops -o json` says.
pub(crate) struct Drops(Value);

impl Drops {
    pub(crate) fn of(node: &Node) -> Self {
        let ended = node.fairlead(&["drops", "-o", "json"]);
        assert!(ended.ok(), "{ended:?}");
        Self(serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout)))
    }

    /// How often each reason occurred.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let counts = self.0["counts"].as_array().expect("there are counts");
        let count = |one: &Value| (one["reason"].as_str().unwrap().to_owned(), one["packets"].as_u64().unwrap());
        counts.iter().map(count).collect()
    }

    /// How often one did.
    pub(crate) fn count(&self, reason: &str) -> u64 {
        self.counts().get(reason).copied().unwrap_or_default()
    }

    /// The last packets that were dropped.
    pub(crate) fn recent(&self) -> &[Value] {
        self.0["recent"].as_array().expect("there are recent ones")
    }
}
