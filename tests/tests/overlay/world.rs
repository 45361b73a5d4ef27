//! What most of the tests share: a cluster on two networks, between which a router drops what comes from pods' addresses.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::{Frame, Lab, Node, Pod};

/// Two nodes on one network and a third on another, with a pod on each. It ends with the process of the tests.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    pub(crate) far: Pod,
}

/// The cluster that tests share. All pods and the nodes serve 80/TCP and 53/UDP.
pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = Lab::builder().nodes(3).subnets(&[0, 0, 1]).checks_sources().start();
        let pod = |node: &str, key: &str| server(&lab, node, key);
        for node in lab.nodes() {
            node.serve(&format!("host/{}", node.name()), &[80], &[53]);
        }
        World { one: pod("node-1", "net/one"), two: pod("node-2", "net/two"), far: pod("node-3", "net/far"), lab }
    })
}

/// A pod that serves.
pub(crate) fn server(lab: &Lab, node: &str, key: &str) -> Pod {
    lab.node(node).pod(key).tcp(80).udp(53).start()
}

/// An address.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

/// How often a node has dropped packets for a reason.
pub(crate) fn drops(node: &Node, reason: &str) -> u64 {
    let ended = node.fairlead(&["drops", "-o", "json"]);
    let drops: serde_json::Value = serde_json::from_str(&ended.stdout).expect("`fairlead drops` answers");
    let counts = drops["counts"].as_array().expect("there are counts");
    counts.iter().find(|one| one["reason"] == reason).map_or(0, |one| one["packets"].as_u64().unwrap())
}

/// The MTU that a pod got.
pub(crate) fn mtu(pod: &Pod) -> u64 {
    pod.result()["interfaces"][1]["mtu"].as_u64().expect("the plugin says it")
}

/// What a frame is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A packet of the tunnel: the checksum of its UDP header, and where what is inside comes from.
    Tunnel(u16, IpAddr),
    /// Another, from this address.
    From(IpAddr),
    /// No IP packet.
    Other,
}

pub(crate) fn kind(frame: &Frame) -> Kind {
    const PORT: [u8; 2] = 4789_u16.to_be_bytes();
    let bytes = frame.bytes();
    // Of a packet of the tunnel, what follows UDP's header and VXLAN's is a frame.
    let tunnel = |udp: usize| {
        let sum = u16::from_be_bytes([bytes[udp + 6], bytes[udp + 7]]);
        Kind::Tunnel(sum, source(&bytes[udp + 16..]).expect("it carries IP"))
    };
    match bytes[12..14] {
        [8, 0] if bytes[23] == 17 && bytes[36..38] == PORT && bytes[20..22] == [0, 0] => tunnel(34),
        [0x86, 0xdd] if bytes[20] == 17 && bytes[56..58] == PORT => tunnel(54),
        _ => source(&bytes).map_or(Kind::Other, Kind::From),
    }
}

/// The source of the packet in a frame.
fn source(bytes: &[u8]) -> Option<IpAddr> {
    match bytes[12..14] {
        [8, 0] => Some(<[u8; 4]>::try_from(&bytes[26..30]).ok()?.into()),
        [0x86, 0xdd] => Some(<[u8; 16]>::try_from(&bytes[22..38]).ok()?.into()),
        _ => None,
    }
}

/// What a node's uplink carries while something is done.
pub(crate) fn seen_while(node: &Node, act: impl FnOnce()) -> Vec<Frame> {
    use fairlead_tests::Probes;
    let mut uplink = node.packets("eth0");
    act();
    uplink.collect(Duration::from_millis(50), |_| true)
}
