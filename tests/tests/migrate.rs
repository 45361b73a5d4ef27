//! Agents of other versions, whose tables have other layouts, one after the other on a node with traffic.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use fairlead_tests::{
    Connection, Drive, Driven, Drops, Ending, Held, Hold, Lab, Load, Loading, Node, Pod, Probe, Probes,
    ServiceManifest, Sink, Vantage, Via, binary,
};
use serde_json::Value;

/// The port that all servers listen on.
const PORT: u16 = 7000;

/// The services' addresses: one with an endpoint on the client's node, and one with an endpoint elsewhere.
const VIPS: [[&str; 2]; 2] = [["10.96.52.1", "fd00:10:96::52:1"], ["10.96.52.2", "fd00:10:96::52:2"]];

/// The services' NodePorts.
const NODE_PORTS: [u16; 2] = [30_521, 30_522];

/// Two nodes, with a client on the first and a server on each, and servers outside.
struct Stage {
    lab: Lab,
    client: Pod,
    _servers: Vec<Pod>,
    _sinks: Vec<Sink>,
}

impl Stage {
    fn new() -> Self {
        let lab = Lab::builder().nodes(2).start();
        let mut sinks = vec![lab.client().sink(PORT)];
        let mut servers = Vec::new();
        for ((node, ips), node_port) in lab.nodes().iter().zip(VIPS).zip(NODE_PORTS) {
            let server = node.pod(&format!("shop/server-{}", node.name())).tcp(8080).udp(8080).start();
            sinks.push(server.sink(PORT));
            let web = ServiceManifest::new(&format!("shop/{}", node.name())).ips(&ips);
            let web = web.tcp("sink", PORT, PORT).tcp("http", 80, 8080).udp("echo", 80, 8080);
            lab.apply(&web.node_ports(&[node_port, node_port + 10, node_port + 10]).endpoint(&server).yaml());
            servers.push(server);
        }
        let client = lab.node("node-1").pod("shop/client").start();
        client.must_run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535"]);
        let stage = Self { lab, client, _servers: servers, _sinks: sinks };
        for ip in stage.vips() {
            stage.lab.wait_until("the service answers", || stage.client.tcp(ip, 80));
            stage.lab.wait_until("the service answers datagrams", || stage.client.udp(ip, 80));
        }
        for (ip, port) in stage.lab.node("node-1").ips().into_iter().zip([NODE_PORTS[1] + 10; 2]) {
            stage.lab.wait_until("the NodePort answers", || stage.lab.client().tcp(ip, port));
        }
        stage
    }

    fn node(&self) -> &Node {
        self.lab.node("node-1")
    }

    fn vips(&self) -> impl Iterator<Item = IpAddr> {
        VIPS.into_iter().flatten().map(|ip| ip.parse().unwrap())
    }

    /// Opens so many connections on each path: from the pod to a service here, to one elsewhere, and to the outside, and from
    /// the outside to a NodePort.
    fn hold(&self, each: u32) -> Vec<(String, Held)> {
        let nodes = self.node().ips().map(|ip| ("outside", self.lab.client(), SocketAddr::new(ip, NODE_PORTS[1])));
        let outside = ["172.18.0.100", "fd00:172:18::100"].map(|ip| ip.parse().unwrap());
        // Translated packet by packet: the tables have to know each.
        let pod = self.client.via(Via::Packet);
        let from_pod = self.vips().chain(outside).map(|ip| ("pod", &pod, SocketAddr::new(ip, PORT)));
        let paths: Vec<_> = from_pod.chain(nodes).collect();
        thread::scope(|scope| {
            let hold = |(name, from, to): &(&str, &'_ Vantage, SocketAddr)| {
                let (from, hold) = ((*from).clone(), Hold { to: *to, count: each });
                (format!("{name} to {to}"), scope.spawn(move || from.hold(&hold)))
            };
            let held: Vec<_> = paths.iter().map(hold).collect();
            let open = |(path, held): (String, thread::ScopedJoinHandle<'_, Held>)| {
                let held = held.join().unwrap();
                assert_eq!(held.opened().errors(), 0, "{path}: {:?}\n{}", held.opened().failed, self.drops());
                (path, held)
            };
            held.into_iter().map(open).collect()
        })
    }

    /// Uses every connection. None may be lost.
    fn use_all(&self, held: Vec<(String, Held)>) -> u64 {
        let mut used = 0;
        for (path, held) in held {
            let driven = held.exchange();
            assert_eq!(driven.errors(), 0, "{path}: {:?} of {}\n{}", driven.failed, driven.attempted, self.drops());
            used += driven.attempted;
        }
        used
    }

    fn drops(&self) -> String {
        self.lab.nodes().iter().map(|node| format!("{}: {:?}\n", node.name(), Drops::of(node).counts())).collect()
    }

    /// Load on connections that are there before the agent changes.
    fn load(&self, during: Duration, new_ones: bool) -> Vec<Loading> {
        let load = |to: Probe, udp: Probe| {
            let load = Load::during(during).long_connections(to.clone(), 5, Duration::from_millis(20));
            if new_ones { load.short_connections(to, 100).udp(udp, 50) } else { load }
        };
        // What begins in the pause sends its SYN again after a second.
        let tcp = |ip, port| Probe::tcp(ip, port).timeout(Duration::from_secs(5));
        // Translated packet by packet: what an old program has made and a new one does not know would not be answered.
        let pod = self.client.via(Via::Packet);
        let vips = self.vips().map(|ip| pod.begin(&load(tcp(ip, 80), Probe::udp(ip, 80))));
        let port = NODE_PORTS[1] + 10;
        let node = self.node().ips().map(|ip| self.lab.client().begin(&load(tcp(ip, port), Probe::udp(ip, port))));
        vips.chain(node).collect()
    }

    /// New connections from the pod to the outside, which the node masquerades, at a pace.
    fn drive_outside(&self, during: Duration) -> Driven {
        let to = SocketAddr::new("172.18.0.100".parse().unwrap(), PORT);
        self.client.drive(&Drive { to, ending: Ending::ClientCloses, rate: 500, during })
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.node().fairlead(&["status", "-o", "json"]).stdout).unwrap()
    }
}

fn relayout(node: &Node, tables: &[(&str, u32)]) {
    let lab = binary("fairlead-lab").unwrap();
    for (table, elements) in tables {
        node.must_run(&[lab.to_str().unwrap(), "relayout", table, &elements.to_string()]);
    }
}

/// What an agent says of the tables that it took over.
fn migrated(status: &Value) -> Vec<Value> {
    status["migrated"].as_array().unwrap().clone()
}

/// What is said of a table that was taken over: entries, and what was lost.
fn said(migrated: &[Value], table: &str) -> (u64, Value) {
    let of = migrated.iter().find(|one| one["table"] == table).unwrap_or_else(|| panic!("no {table} in {migrated:?}"));
    (of["entries"].as_u64().unwrap(), of["lost"].clone())
}

#[test]
fn c52_connections_go_on_when_an_agent_takes_over_tables_of_another_version() {
    let stage = Stage::new();
    let node = stage.node();
    let mut open: Vec<Connection> = stage.vips().map(|ip| stage.client.connect(&Probe::tcp(ip, 80)).unwrap()).collect();
    let mut held = stage.hold(50);
    // Twice: smaller and larger than before, with tables of objects and without.
    let rounds: [&[(&str, u32)]; 2] = [
        &[
            ("CT_EST", 60_000),
            ("CT_ANY", 700_000),
            ("POD_FLOWS", 4098),
            ("SHARES", 65_536),
            ("FRONTENDS", 5000),
            ("BACKENDS", 600_000),
            ("SLOTS", 3_000_000),
            ("PEERS", 100_000),
            ("PODS", 4096),
            ("NODES", 10_000),
            ("UPLINKS", 100),
            ("CONFIG", 1),
            ("AFFINITY", 1000),
        ],
        &[("CT_EST", 1_000_000), ("CT_ANY", 30_000)],
    ];
    for tables in rounds {
        let mut load = stage.load(Duration::from_secs(1), false);
        load.iter_mut().for_each(|load| load.goes_on(20));
        node.agent().stop();
        relayout(node, tables);
        node.start_agent();
        load.iter_mut().for_each(|load| load.goes_on(20));
        for report in load.into_iter().map(Loading::end) {
            assert!(report.long.attempted >= 40, "{report:?}");
            assert_eq!(report.failures(), 0, "{report:?}\n{}", stage.drops());
        }
        let migrated = migrated(&stage.status());
        assert_eq!(migrated.len(), tables.len(), "{migrated:?}");
        for (table, _) in tables {
            assert_eq!(said(&migrated, table).1, Value::Null, "{migrated:?}");
        }
        let (entries, _) = said(&migrated, "CT_EST");
        assert!(entries >= 2 * 50 * 8, "{entries}: two of each connection");
        let text = node.fairlead(&["status"]).stdout;
        assert!(text.contains("tables taken over") && text.contains("CT_EST, layout"), "{text}");
        for connection in &mut open {
            connection.exchange(10, 10).unwrap();
        }
        // What is new finds its way, and so does what is old when it has more to say.
        held.extend(stage.hold(5));
    }
    let used = stage.use_all(held);
    assert_eq!(used, (50 + 5 + 5) * 8);
    for ip in stage.vips() {
        stage.client.tcp(ip, 80).unwrap();
        stage.client.udp(ip, 80).unwrap();
    }
    assert_eq!(stage.status()["warnings"], Value::Array(Vec::new()));
}

/// What was in force is, as soon as an agent is gone that was killed in a pause, and the next one completes what it began.
#[test]
fn c52_an_agent_that_is_killed_in_a_pause_takes_it_along() {
    const PAUSE: &str = "packets pause while tables of flows are read";
    let stage = Stage::new();
    let node = stage.node();
    let mut open: Vec<Connection> = stage.vips().map(|ip| stage.client.connect(&Probe::tcp(ip, 80)).unwrap()).collect();
    let held = stage.hold(20);
    let mut completed = 0;
    for delay in [0, 10, 25, 50, 100, 200] {
        node.agent().stop();
        relayout(node, &[("CT_EST", 60_000), ("CT_ANY", 700_000), ("SLOTS", 3_000_000)]);
        let pauses = || node.agent().log().matches(PAUSE).count();
        let before = pauses();
        node.launch_agent();
        stage.lab.wait_until("the agent makes a pause", || if pauses() > before { Ok(()) } else { Err("no pause") });
        thread::sleep(Duration::from_millis(delay));
        node.agent().kill9();
        // No agent runs.
        for connection in &mut open {
            connection.exchange(10, 10).unwrap();
        }
        for ip in stage.vips() {
            stage.client.tcp(ip, 80).unwrap();
        }
        node.start_agent();
        completed += migrated(&stage.status()).len();
        for connection in &mut open {
            connection.exchange(10, 10).unwrap();
        }
        for ip in stage.vips() {
            stage.client.tcp(ip, 80).unwrap();
        }
    }
    assert!(completed > 0, "every agent was killed too late");
    assert_eq!(stage.use_all(held), 20 * 8);
}

/// Three agents in turn, which are whole builds: this one, one whose table of flows has other fields, bits and sizes, and this one
/// again. `cargo xtask next` builds the second, from this source with a few lines changed. `FAIRLEAD_RELEASES` names others that
/// follow on the one in `FAIRLEAD_BIN_DIR`, divided by colons.
#[test]
#[ignore = "needs a second build of the agent (cargo xtask next)"]
fn c52_ten_thousand_connections_go_on_to_the_next_release_and_back() {
    let own = binary("fairlead").unwrap();
    let releases: Vec<PathBuf> = match std::env::var_os("FAIRLEAD_RELEASES") {
        Some(releases) => std::env::split_paths(&releases).collect(),
        None => vec![own.parent().unwrap().join("../next/debug/fairlead"), own],
    };
    for release in &releases {
        assert!(release.exists(), "{} is not built: run `cargo xtask next`", release.display());
    }
    let stage = Stage::new();
    let node = stage.node();
    let mut held = stage.hold(1300);
    for release in &releases {
        // New connections begin all the time, also while the programs are replaced.
        let mut load = stage.load(Duration::from_secs(10), true);
        load.iter_mut().for_each(|load| load.goes_on(50));
        node.agent().stop();
        load.iter_mut().for_each(|load| load.goes_on(50));
        let outside = thread::scope(|scope| {
            let outside = scope.spawn(|| stage.drive_outside(Duration::from_secs(6)));
            node.start_agent_of(release);
            outside.join().unwrap()
        });
        println!("outside: {} attempted, {:?}", outside.attempted, outside.failed);
        // Who drives gives up before a SYN is sent again. None that was answered is lost, and none is refused.
        let unanswered = outside.failed.get("connect: no answer").copied().unwrap_or_default();
        assert_eq!(outside.errors(), unanswered, "{:?} of {}\n{}", outside.failed, outside.attempted, stage.drops());
        assert!(unanswered <= 500 && outside.attempted >= 1000, "{unanswered} of {}", outside.attempted);
        load.iter_mut().for_each(|load| load.goes_on(50));
        let log = node.agent().log();
        println!(
            "{}",
            log.lines()
                .filter(|line| line.contains("taken over") || line.contains("pause"))
                .collect::<Vec<_>>()
                .join("\n")
        );
        for report in load.into_iter().map(Loading::end) {
            println!("{report:?}");
            assert_eq!(report.short.failures() + report.long.failures(), 0, "{report:?}\n{}", stage.drops());
            // A datagram that comes in the pause is lost.
            assert!(report.udp.failures() <= 60 && report.udp.attempted >= 300, "{report:?}\n{}", stage.drops());
        }
        let status = node.must_run(&[release.to_str().unwrap(), "status", "-o", "json"]);
        let migrated = migrated(&serde_json::from_str(&status).unwrap());
        for table in ["CT_EST", "CT_ANY"] {
            assert_eq!(said(&migrated, table).1, Value::Null, "{migrated:?}");
        }
        assert!(said(&migrated, "CT_EST").0 >= 2 * 1300 * 8, "{migrated:?}");
        held.extend(stage.hold(50));
    }
    let used = stage.use_all(held);
    assert_eq!(used, (1300 + 50 * releases.len() as u64) * 8);
}
