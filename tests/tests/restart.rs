//! The agent ends and begins again, in every way, while pods go on.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Connection, Lab, Load, Loading, Node, Pod, Probe, ProbeError, Probes, ServiceManifest, Via};

/// Two nodes, a client on the first, and a service with a server on each.
struct Stage {
    lab: Lab,
    client: Pod,
    near: Pod,
    far: Pod,
}

const VIPS: [&str; 2] = ["10.96.1.1", "fd00:10:96::1:1"];

impl Stage {
    fn new() -> Self {
        let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
        let client = lab.node("node-1").pod("shop/client").start();
        let near = lab.node("node-1").pod("shop/near").tcp(8080).udp(8080).start();
        let far = lab.node("node-2").pod("shop/far").tcp(8080).udp(8080).start();
        let stage = Self { lab, client, near, far };
        stage.lab.apply(&stage.web().endpoints(&[&stage.near, &stage.far]).yaml());
        for ip in vips() {
            stage.lab.wait_until("the service answers", || stage.client.tcp(ip, 80));
            stage.lab.wait_until("the service answers datagrams", || stage.client.udp(ip, 80));
        }
        stage
    }

    fn web(&self) -> ServiceManifest {
        ServiceManifest::new("shop/web").ips(&VIPS).tcp("http", 80, 8080).udp("echo", 80, 8080)
    }
}

fn vips() -> [IpAddr; 2] {
    VIPS.map(|ip| ip.parse().unwrap())
}

fn adopted(node: &Node) -> bool {
    let status = node.fairlead(&["status", "-o", "json"]);
    serde_json::from_str::<serde_json::Value>(&status.stdout).unwrap()["adopted"] == true
}

#[test]
fn nothing_fails_when_agents_are_killed_and_started_under_load() {
    let stage = Stage::new();
    let load = |ip: IpAddr| {
        Load::during(Duration::from_secs(10))
            .short_connections(Probe::tcp(ip, 80), 100)
            .long_connections(Probe::tcp(ip, 80), 5, Duration::from_millis(100))
            .udp(Probe::udp(ip, 80), 50)
    };
    let mut loads: Vec<_> =
        vips().into_iter().zip(Via::BOTH).map(|(ip, via)| stage.client.via(via).begin(&load(ip))).collect();
    for (number, node) in stage.lab.nodes().iter().cycle().take(4).enumerate() {
        loads.iter_mut().for_each(|load| load.goes_on(50));
        if number < 2 {
            node.agent().kill9();
        } else {
            node.agent().stop();
        }
        loads.iter_mut().for_each(|load| load.goes_on(50));
        node.start_agent();
        assert!(adopted(node), "{} found what its predecessor left", node.name());
    }
    for report in loads.into_iter().map(Loading::end) {
        println!("{report:?}");
        assert!(
            report.short.attempted >= 900 && report.long.attempted >= 100 && report.udp.attempted >= 450,
            "{report:?}"
        );
        assert_eq!(report.failures(), 0, "{report:?}");
    }
}

#[test]
fn what_changed_while_the_agent_was_away_is_in_force_after() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    let mut open: Vec<Connection> =
        stage.near.ips().iter().map(|ip| stage.client.connect(&Probe::tcp(*ip, 8080)).unwrap()).collect();
    node.agent().kill9();
    stage.lab.apply(&stage.web().endpoint(&stage.far).yaml());
    let other = ServiceManifest::new("shop/other").ips(&["10.96.1.2"]).tcp("http", 80, 8080).endpoint(&stage.near);
    stage.lab.apply(&other.yaml());
    stage.lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: in}, \
         spec: {podSelector: {}, ingress: [{ports: [{port: 8080}]}]}}",
    );
    for connection in &mut open {
        connection.exchange(10, 10).unwrap();
    }
    for ip in vips() {
        for via in Via::BOTH {
            stage.client.via(via).tcp(ip, 80).unwrap();
        }
    }
    node.start_agent();
    for via in Via::BOTH {
        let client = stage.client.via(via);
        for ip in vips() {
            stage.lab.wait_until("the endpoint that went is not used", || {
                match client.spread(&Probe::tcp(ip, 80), 8) {
                    Ok(servers) if !servers.contains_key("shop/near") => Ok(()),
                    other => Err(other),
                }
            });
        }
        stage.lab.wait_until("the new service answers", || client.tcp([10, 96, 1, 2], 80));
    }
    for ip in stage.near.ips() {
        let datagram = Probe::udp(ip, 8080).timeout(Duration::from_millis(200));
        stage.lab.wait_until("the new policy denies datagrams", || match stage.client.probe(&datagram) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    for connection in &mut open {
        connection.exchange(10, 10).expect("what the policy allows goes on");
    }
}

#[test]
fn a_pod_that_is_added_while_the_agent_starts_gets_its_network() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    node.agent().stop();
    node.launch_agent();
    // The plugin waits for the agent.
    let late = node.pod("shop/late").tcp(8080).start();
    node.agent().wait_ready();
    for ip in late.ips() {
        assert_eq!(stage.client.tcp(ip, 8080).unwrap().server.pod, "shop/late");
        stage.lab.wait_until("the other node knows the pod", || stage.far.tcp(ip, 8080));
    }
}
