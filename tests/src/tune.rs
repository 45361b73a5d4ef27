//! What the reference plugin `tuning` does to a pod's interface.

use crate::pod::Pod;
use crate::vantage::Probes;

impl Pod {
    /// Gives the pod another MAC address, with the link down for it: its routes and IPv6 addresses go with that, and are put
    /// back.
    ///
    /// # Panics
    /// When a command fails.
    #[track_caller]
    pub fn tune(&self, mac: &str) {
        let run = |command: &str| self.must_run(&command.split_whitespace().collect::<Vec<_>>());
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            let shown = run(&format!("ip {family} route show dev eth0"));
            // That of link-local addresses comes by itself.
            let of_ours = shown.lines().filter(|line| !line.starts_with("fe80::/64"));
            routes.extend(of_ours.map(|line| format!("ip {family} route replace {line} dev eth0")));
        }
        // What names a gateway needs the route to that.
        routes.sort_by_key(|route| route.contains("default"));
        run("ip link set eth0 down");
        run(&format!("ip link set eth0 address {mac}"));
        run("ip link set eth0 up");
        run(&format!("ip -6 addr replace {}/128 dev eth0 nodad", self.v6()));
        for route in routes {
            run(&route.replace("pref medium", ""));
        }
        assert!(run("ip link show eth0").contains(mac), "the address is changed");
    }
}
