//! Ways that take less than a pod sends.

use fairlead_tests::{Lab, Ping, Probe, ProbeError, Probes, Via};
use serde_json::Value;

use crate::world::{OUTSIDE, ip};

#[test]
fn a_smaller_mtu_is_told_to_whoever_sends() {
    // A lab of its own: hosts remember what they were told.
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1");
    let one = node.pod("net/one").start();
    let two = node.pod("net/two").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("net/far").tcp(80).udp(53).start();
    lab.far_client().serve("outside/server", &[80], &[53]);

    // A router on the way to the outside. It tells the node, whose address the packets have; the pod has to hear it.
    lab.fabric().must_run(&["ip", "link", "set", "dev", "far-client", "mtu", "1300"]);
    for to in OUTSIDE[1].map(ip) {
        assert_eq!(one.ping(&Ping::new(to).payload(1400)), Err(ProbeError::TooBig), "{to}");
        assert_eq!(one.ping(&Ping::new(to).payload(1200)).unwrap().size, 1200, "{to}");
        for via in Via::BOTH {
            let probe = Probe::tcp(to, 80).payload(100_000).answer_payload(1000);
            assert_eq!(two.via(via).probe(&probe).unwrap().server.got, 100_000, "{to} {via:?}");
        }
    }

    // The datapath itself, to a pod that takes larger packets than others do.
    for pod in [&one, &two] {
        let route: Value =
            serde_json::from_str(&node.must_run(&["ip", "-j", "route", "get", &pod.v4().to_string()])).unwrap();
        let host_side = route[0]["dev"].as_str().unwrap();
        node.must_run(&["ip", "link", "set", "dev", host_side, "mtu", "9000"]);
        pod.must_run(&["ip", "link", "set", "dev", "eth0", "mtu", "9000"]);
    }
    for to in [two.ips(), far.ips()].into_iter().flatten() {
        assert_eq!(one.ping(&Ping::new(to).payload(3000)), Err(ProbeError::TooBig), "{to}");
        // Having heard of it, the pod sends fragments.
        let probe = Probe::udp(to, 53).payload(3000).answer_payload(3000);
        assert_eq!(lab.wait_until("fragments arrive", || one.probe(&probe)).server.got, 3000);
        let probe = Probe::tcp(to, 80).payload(100_000).answer_payload(100_000);
        assert_eq!(one.probe(&probe).unwrap().server.got, 100_000, "{to}");
    }
}
