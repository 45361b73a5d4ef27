//! XDP at the uplinks: real packets of known flows, sent on by the driver. The other tests here run with it as well
//! (`FAIRLEAD_LAB_XDP`).

use std::net::IpAddr;
use std::sync::OnceLock;

use fairlead_tests::{Lab, Node, Pod, Probe, Probes, binary};
use serde_json::Value;

use crate::world::{balancer, bare, everywhere, probes};

/// Two nodes with XDP, and servers on the second.
struct Stage {
    lab: Lab,
    far: Pod,
    other: Pod,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::builder().nodes(2).xdp().start();
        let server = |key: &str| lab.node("node-2").pod(key).tcp(8080).udp(5300).start();
        let (far, other) = (server("shop/far"), server("shop/other"));
        let node = lab.node("node-1");
        for place in [lab.client(), lab.fabric()] {
            for (prefix, by) in ["203.0.113.0/24", "2001:db8:113::/48"].iter().zip(node.ips()) {
                place.must_run(&["ip", "route", "add", prefix, "via", &by.to_string()]);
            }
        }
        Self { lab, far, other }
    }

    /// The node that the client goes to.
    fn node(&self) -> &Node {
        self.lab.node("node-1")
    }
}

/// What tests share that leave it as it was.
fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(Stage::new)
}

/// What `fairlead status` says of the network.
fn network(node: &Node) -> Value {
    let ended = node.fairlead(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    status["network"].clone()
}

/// Packets that XDP has sent on.
fn packets(node: &Node) -> u64 {
    network(node)["xdp_packets"].as_u64().expect("a number")
}

/// Why XDP is not at the uplink; nothing if it is.
fn obstacle(node: &Node) -> Option<String> {
    let network = network(node);
    assert_eq!(network["xdp"][0]["uplink"], "eth0", "{network}");
    network["xdp"][0]["obstacle"].as_str().map(str::to_owned)
}

/// Whether a program is in the driver of the uplink.
fn is_attached(node: &Node) -> bool {
    node.must_run(&["ip", "link", "show", "eth0"]).contains("prog/xdp")
}

/// Waits until a connection is answered by a server through each probe.
fn in_force(stage: &Stage, probes: &[Probe]) {
    for probe in probes {
        stage.lab.wait_until(&format!("{probe:?} is answered"), || stage.lab.client().probe(probe));
    }
}

/// Exchanges by a TCP connection or by datagrams from one port, and gives how many packets XDP sent on meanwhile.
fn exchanges(stage: &Stage, probe: &Probe, is_tcp: bool, port: u16) -> u64 {
    const ROUNDS: usize = 10;
    let (client, before) = (stage.lab.client(), packets(stage.node()));
    let is_node = |ip: IpAddr| stage.node().ips().contains(&ip);
    if is_tcp {
        let mut open = client.connect(&probe.clone().source_port(port)).unwrap();
        for round in 1..=ROUNDS {
            let reply = open.exchange(1000 * round, 3000 * round).unwrap();
            assert!(reply.server.got == 1000 * round && is_node(reply.server.peer.ip()), "{reply:?}");
        }
        open.close();
    } else {
        for _ in 0..ROUNDS {
            let reply = client.probe(&probe.clone().source_port(port).payload(700)).unwrap();
            assert!(is_node(reply.server.peer.ip()), "{reply:?}");
        }
    }
    packets(stage.node()) - before
}

#[test]
fn s82_node_ports_and_load_balancers_of_backends_elsewhere_go_by_the_driver() {
    let stage = stage();
    assert_eq!(obstacle(stage.node()), None);
    assert!(is_attached(stage.node()));
    let service = bare("s82", 82).tcp("http", 80, 8080).udp("ask", 53, 5300);
    stage.lab.apply(&everywhere(service, 82, [30_820, 30_821]).endpoint(&stage.far).yaml());
    let to = [probes(stage.node().ips(), 30_820, 30_821), probes(balancer(82), 80, 53)].concat();
    in_force(stage, &to);
    // Of TCP and UDP by turns.
    for (number, probe) in (0..).zip(&to) {
        let by_xdp = exchanges(stage, probe, number % 2 == 0, 41_000 + number);
        // Of ten questions and answers all but those that open the flow.
        assert!(by_xdp >= 14, "{by_xdp} packets of {probe:?}");
    }
}

#[test]
fn s82_datagrams_move_to_another_backend_and_connections_stay() {
    let stage = stage();
    let service = bare("s82-moves", 83).tcp("http", 80, 8080).udp("ask", 53, 5300).node_ports(&[30_830, 30_831]);
    stage.lab.apply(&service.clone().endpoint(&stage.far).yaml());
    let to = probes(stage.node().ips(), 30_830, 30_831);
    in_force(stage, &to);
    let [tcp, udp] = [0, 1].map(|first| to.iter().skip(first).step_by(2).collect::<Vec<_>>());
    let mut open: Vec<_> = tcp.iter().map(|probe| stage.lab.client().connect(probe).unwrap()).collect();
    let from_one_port = |probe: &Probe| probe.clone().source_port(41_830);
    for probe in &udp {
        assert!(exchanges(stage, probe, false, 41_830) > 0);
    }
    stage.lab.apply(&service.endpoint(&stage.other).yaml());
    for probe in &udp {
        stage.lab.wait_until("datagrams go to the new backend", || {
            let reply = stage.lab.client().probe(&from_one_port(probe)).map_err(|error| format!("{error:?}"))?;
            if reply.server.pod == stage.other.key() { Ok(()) } else { Err(reply.server.pod) }
        });
        assert!(exchanges(stage, probe, false, 41_830) > 0);
    }
    for open in &mut open {
        let before = packets(stage.node());
        for _ in 0..5 {
            let reply = open.exchange(2000, 2000).unwrap();
            assert_eq!((reply.server.pod.as_str(), reply.server.got), (stage.far.key(), 2000));
        }
        assert!(packets(stage.node()) > before);
    }
}

#[test]
fn s82_it_stays_without_an_agent_and_goes_with_the_setting_and_with_uninstall() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    stage.lab.apply(&bare("s82", 82).tcp("http", 80, 8080).node_ports(&[30_820]).endpoint(&stage.far).yaml());
    let to: Vec<_> = node.ips().into_iter().map(|ip| Probe::tcp(ip, 30_820)).collect();
    in_force(&stage, &to);
    let mut open: Vec<_> = to.iter().map(|probe| stage.lab.client().connect(probe).unwrap()).collect();
    let mut go_on = |rounds: usize| {
        for open in &mut open {
            for _ in 0..rounds {
                assert_eq!(open.exchange(500, 500).unwrap().server.pod, stage.far.key());
            }
        }
    };
    go_on(5);
    let before = packets(node);
    node.agent().kill9();
    assert!(is_attached(node));
    go_on(10);
    node.start_agent();
    assert!(is_attached(node));
    go_on(5);
    assert!(packets(node) >= before + 2 * 2 * 10, "{} after {before}", packets(node));
    // Whoever takes it off by its link finds it back.
    let lab = binary("fairlead-lab").unwrap();
    node.must_run(&[&lab.to_string_lossy(), "detach", "/sys/fs/bpf/fairlead/links/xdp_eth0"]);
    stage.lab.wait_until("it is back", || if is_attached(node) { Ok(()) } else { Err("not yet") });
    go_on(5);

    node.agent().stop();
    node.launch_agent_with(&["--xdp", "auto"]).wait_ready();
    stage.lab.wait_until("it is taken off", || if is_attached(node) { Err("not yet") } else { Ok(()) });
    assert!(obstacle(node).is_some_and(|why| why.contains("veth")), "{:?}", obstacle(node));
    let before = packets(node);
    go_on(5);
    assert_eq!(packets(node), before);

    node.agent().stop();
    node.start_agent();
    stage.lab.wait_until("it is attached again", || if is_attached(node) { Ok(()) } else { Err("not yet") });
    node.agent().stop();
    let done = node.fairlead(&["uninstall"]);
    assert!(done.ok(), "{done:?}");
    assert!(!is_attached(node));
}

#[test]
fn s82_it_is_not_where_a_vlan_device_is_whose_tags_the_driver_takes_out() {
    let stage = Stage::new();
    let node = stage.lab.node("node-1");
    assert_eq!(obstacle(node), None);
    let made = node.run(&["ip", "link", "add", "link", "eth0", "name", "eth0.7", "type", "vlan", "id", "7"]);
    if made.stderr.contains("Unknown device type") {
        eprintln!("not tried: this kernel has no VLAN devices");
        return;
    }
    assert!(made.ok(), "{made:?}");
    stage.lab.wait_until("it is taken off", || match obstacle(node) {
        Some(why) if why.contains("VLAN") && !is_attached(node) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    node.must_run(&["ip", "link", "del", "eth0.7"]);
    stage.lab.wait_until("it is back", || if is_attached(node) { Ok(()) } else { Err(obstacle(node)) });
}

#[test]
fn s82_another_program_at_the_driver_stays_and_services_work_without() {
    let lab = Lab::builder().nodes(2).without_agents().start();
    let far = lab.node("node-2").pod("shop/far");
    let node = lab.node("node-1");
    let other = binary("fairlead-lab").unwrap();
    let program = node.spawn("other-xdp", &[&other.to_string_lossy(), "catch", "eth0"], &[]);
    lab.wait_until("the other program is there", || if is_attached(node) { Ok(()) } else { Err("not yet") });
    let its = node.must_run(&["ip", "link", "show", "eth0"]);
    for node in lab.nodes() {
        node.launch_agent_with(&["--xdp", "native"]);
    }
    lab.nodes().iter().for_each(|node| node.agent().wait_ready());
    let far = far.tcp(8080).start();
    lab.apply(&bare("s82", 82).tcp("http", 80, 8080).node_ports(&[30_820]).endpoint(&far).yaml());
    for ip in node.ips() {
        lab.wait_until("it answers", || lab.client().probe(&Probe::tcp(ip, 30_820)));
    }
    assert!(obstacle(node).is_some_and(|why| why.contains("another XDP program")), "{:?}", obstacle(node));
    assert_eq!((node.must_run(&["ip", "link", "show", "eth0"]), packets(node)), (its, 0));
    drop(program);
}

#[test]
fn s82_a_driver_that_refuses_is_no_fault() {
    // A veth takes no frames by XDP that do not fit into a page.
    let lab = Lab::builder().nodes(1).mtu(9000).agent(&["--xdp", "native"]).start();
    let node = lab.node("node-1");
    let status = node.must_run(&[&binary("fairlead").unwrap().to_string_lossy(), "status"]);
    let why = obstacle(node).unwrap_or_default();
    assert!(why.contains("the driver refuses it") && !is_attached(node) && status.contains(&why), "{why}: {status}");
}
