//! What the tests share: servers, and the words of a failure.

use std::net::{IpAddr, SocketAddr};

use fairlead_tests::{Driven, Drops, Lab};

/// The port that all servers listen on.
pub(crate) const PORT: u16 = 7000;

/// The server outside of the cluster, one address of each family.
pub(crate) fn outside() -> [SocketAddr; 2] {
    ["172.18.0.100", "fd00:172:18::100"].map(|ip| at(ip.parse().expect("it is an address"), PORT))
}

/// An address and a port.
pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Nothing failed; else this says what, and what the nodes dropped.
#[track_caller]
pub(crate) fn assert_clean(lab: &Lab, driven: &Driven, what: &str) {
    assert!(driven.attempted > 0, "{what}: nothing was tried");
    assert!(
        driven.errors() == 0,
        "{what}: {} of {} failed: {:?}; p99 of the others {:?}, {} segments sent again, {:?} behind\n{}",
        driven.errors(),
        driven.attempted,
        driven.failed,
        driven.setup(990),
        driven.retransmitted,
        driven.behind,
        dropped(lab)
    );
}

/// What the nodes have dropped so far.
pub(crate) fn dropped(lab: &Lab) -> String {
    let of = |drops: &Drops| {
        let counts = drops.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(reason, count)| format!("{reason} {count}")).collect();
        let recent = drops.recent().iter().rev().take(3).map(ToString::to_string).collect::<Vec<_>>();
        format!("{} (the last: {})", counts.join(", "), recent.join(" "))
    };
    lab.nodes().iter().map(|node| format!("{} dropped: {}\n", node.name(), of(&Drops::of(node)))).collect()
}
