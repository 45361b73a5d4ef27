//! Services that have nobody behind them.

use std::time::Duration;

use fairlead_tests::{Probe, ProbeError, Probes};
use serde_json::{Value, json};

use crate::world::{edited, ips, service, ways, world};

#[test]
fn s33_no_endpoints_refuses() {
    let world = world();
    let service = service("s33", 33);
    world.lab.apply(&service.yaml());
    world.refuses(&ips(33));
    for way in ways(&world.client, &ips(33)) {
        // At once: a probe gives up before TCP sends its SYN again.
        for _ in 0..5 {
            assert_eq!(way.try_it().unwrap_err(), ProbeError::Refused, "{}", way.name());
        }
    }
    // A socket that is not connected hears of no error: nobody answers it.
    for ip in ips(33) {
        let probe = Probe::udp(ip, 53).unconnected().timeout(Duration::from_millis(100));
        assert_eq!(world.client.probe(&probe), Err(ProbeError::TimedOut));
    }
    world.lab.apply(&service.clone().endpoint(&world.far).yaml());
    world.reaches(&ips(33), &[&world.far]);
    world.lab.apply(&service.clone().endpoint_with(&world.far, &json!({"ready": false, "serving": false})).yaml());
    world.refuses(&ips(33));
    let explained = world.lab.node("node-1").fairlead(&["service", "explain", &format!("{}:80", ips(33)[0])]).stdout;
    assert!(explained.contains("refuse"), "{explained}");
}

#[test]
fn s33_no_slices_refuses() {
    let world = world();
    world.lab.apply(&edited(&service("s33-bare", 34), |objects| objects[1..].fill(Value::Null)));
    world.refuses(&ips(34));
}

#[test]
fn s33_a_closed_port_of_a_backend_refuses() {
    let world = world();
    // Nobody listens on the pods' ports 9999: a reset, or an ICMP error that quotes what the backend got.
    for (number, pod) in [(35, &world.near), (36, &world.far)] {
        let ips = ips(number);
        let closed = fairlead_tests::ServiceManifest::new(&format!("shop/closed-{number}"))
            .ips(&ips)
            .tcp("http", 80, 9999)
            .udp("ask", 53, 9999);
        world.lab.apply(&closed.endpoint(pod).yaml());
        let node = world.lab.node("node-1");
        world.lab.wait_in_force(node, ips.map(|ip| std::net::SocketAddr::new(ip, 53)));
        for way in ways(&world.client, &ips) {
            assert_eq!(way.try_it(), Err(ProbeError::Refused), "{} {}", way.name(), pod.key());
        }
    }
}
