//! New connections a second through the translation of addresses, Fairlead beside the kernel's netfilter.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::netfilter::{self, NodePort};
pub use super::table::{Findings, Row, Side};
use crate::drive::{Drive, Driven, Ending, Sink};
use crate::lab::Lab;
use crate::pod::Pod;
use crate::service::ServiceManifest;
use crate::vantage::{Probes, Vantage};

/// The port that all servers listen on.
const PORT: u16 = 7000;

/// The NodePorts of the server on the first node, and of the one on the second.
const NODE_PORTS: [u16; 2] = [30_490, 30_491];

/// How often the two take turns on each row: A B, B A and so on, so that both meet the same moods of the machine.
const TURNS: u32 = 4;

const PATHS: [&str; 3] =
    ["pod to the outside", "outside to a NodePort, backend here", "outside to a NodePort, backend elsewhere"];

/// One of the two: a lab of two nodes with a client pod and servers.
struct World {
    lab: Lab,
    client: Pod,
    _sinks: Vec<Sink>,
}

/// Loads every path with both, or those with a text in their names, and compares.
///
/// # Errors
/// The machine lacks what the kernel's side needs, or no path has the text in its name.
pub fn run(seconds: u64, rate: u32, only: Option<&str>) -> Result<Findings> {
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    ensure!(seconds > 0, "no time is given: --seconds 1 or more");
    ensure!(
        names().iter().any(|name| is_wanted(name)),
        "no row has this in its name; there are: {}",
        names().join("; ")
    );
    let before = load_average();
    let worlds = [fairlead(), netfilter()?];
    let mut rows = Vec::new();
    let mut turn = 0;
    for (number, path) in PATHS.iter().enumerate() {
        for ending in Ending::ALL {
            let name = format!("{path}, {ending}");
            if !is_wanted(&name) {
                continue;
            }
            let mut sums = [Driven::default(), Driven::default()];
            for _ in 0..TURNS {
                let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
                turn += 1;
                for side in order {
                    let during = Duration::from_secs(seconds) / TURNS;
                    sums[side].add(worlds[side].drive(number, ending, rate, during));
                }
            }
            let [own, theirs] = sums.each_ref().map(Side::from);
            eprintln!("{name}: {:.0}/s and {:.0}/s", own.rate, theirs.rate);
            rows.push(Row { path: (*path).to_owned(), ending, fairlead: own, netfilter: theirs });
        }
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(Findings { seconds, rate, load_average: [before, load_average()], cpus, rows })
}

/// The names of all rows.
fn names() -> Vec<String> {
    PATHS.iter().flat_map(|path| Ending::ALL.map(|ending| format!("{path}, {ending}"))).collect()
}

impl World {
    fn new(lab: Lab) -> (Self, [Pod; 2]) {
        let mut sinks = vec![lab.client().sink(PORT)];
        let servers = ["node-1", "node-2"].map(|node| lab.node(node).pod(&format!("load/server-{node}")).start());
        sinks.extend(servers.iter().map(|server| server.sink(PORT)));
        let client = lab.node("node-1").pod("load/client").start();
        for place in [client.vantage(), lab.client()] {
            // More ports than a run uses in the minute for which the client that closed first keeps one.
            let ports = "net.ipv4.ip_local_port_range=1024 65535";
            place.must_run(&["sysctl", "-qw", ports, "net.ipv4.tcp_tw_reuse=1"]);
        }
        (Self { lab, client, _sinks: sinks }, servers)
    }

    /// Where a path begins and where it leads.
    fn path(&self, number: usize) -> (&Vantage, SocketAddr) {
        let node = IpAddr::from(self.lab.node("node-1").v4());
        match number {
            0 => (self.client.vantage(), SocketAddr::new([172, 18, 0, 100].into(), PORT)),
            number => (self.lab.client(), SocketAddr::new(node, NODE_PORTS[number - 1])),
        }
    }

    fn drive(&self, path: usize, ending: Ending, rate: u32, during: Duration) -> Driven {
        let (from, to) = self.path(path);
        from.drive(&Drive { to, ending, rate, during })
    }

    /// Waits until every path works.
    fn wait(&self) {
        for (path, name) in PATHS.iter().enumerate() {
            for ending in [Ending::ClientCloses, Ending::Datagram] {
                self.lab.wait_until(name, || {
                    let driven = self.drive(path, ending, 10, Duration::from_millis(50));
                    if driven.errors() == 0 { Ok(()) } else { Err(driven.failed) }
                });
            }
        }
    }
}

fn fairlead() -> World {
    let (world, servers) = World::new(Lab::builder().nodes(2).start());
    for ((server, node_port), number) in servers.iter().zip(NODE_PORTS).zip(1..) {
        let ips = [format!("10.96.49.{number}"), format!("fd00:10:96::49:{number}")];
        let service = ServiceManifest::new(&format!("load/server-{number}")).ips(&ips);
        let service = service.tcp("tcp", PORT, PORT).udp("udp", PORT, PORT).node_ports(&[node_port, node_port]);
        world.lab.apply(&service.endpoint(server).yaml());
    }
    world.wait();
    world
}

fn netfilter() -> Result<World> {
    let (world, servers) = World::new(Lab::builder().nodes(2).plain().start());
    let ports: Vec<NodePort> = servers
        .iter()
        .zip(NODE_PORTS)
        .map(|(server, number)| NodePort { number, endpoint: server.v4().into(), port: PORT })
        .collect();
    let pods = |number: usize| format!("10.244.{number}.0/24");
    for (number, node) in (1..).zip(world.lab.nodes()) {
        netfilter::program(node.as_ref(), node.v4().into(), &pods(number), &ports)?;
    }
    world.wait();
    Ok(world)
}

/// How many processes wanted a CPU, of the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}
