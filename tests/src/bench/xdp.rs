//! What XDP gains at an uplink: a connection from outside to a NodePort whose backend is elsewhere, with XDP and without.

use std::fmt;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::load::load_average;
use crate::bulk::Bulk;
use crate::lab::Lab;
use crate::pod::Pod;
use crate::service::ServiceManifest;

/// The NodePort, at which the server listens too.
const PORT: u16 = 30_820;

/// How often the two take turns: A B, B A and so on.
const TURNS: u32 = 6;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Seconds that each side was measured.
    pub seconds: u64,
    /// Processes that wanted a CPU, before and after.
    pub load_average: [f64; 2],
    /// CPUs.
    pub cpus: usize,
    /// By family: megabits of payload a second, without XDP and with it, and the part of all packets that XDP sent on.
    pub rows: Vec<Row>,
}

/// A family.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Which.
    pub family: &'static str,
    /// Without XDP, Mbit/s.
    pub tcx: f64,
    /// With it, Mbit/s.
    pub xdp: f64,
    /// Packets that XDP sent on.
    pub packets: u64,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, load_average: [before, after], cpus, rows } = self;
        writeln!(
            f,
            "{cpus} CPUs, load average {before:.1} before, {after:.1} after; {seconds} s for each row and side\n"
        )?;
        writeln!(
            f,
            "| outside to a NodePort, backend elsewhere | tcx, Mbit/s | XDP, Mbit/s | ratio | packets by XDP |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for Row { family, tcx, xdp, packets } in rows {
            writeln!(f, "| one TCP connection, {family} | {tcx:.0} | {xdp:.0} | {:.2} × | {packets} |", xdp / tcx)?;
        }
        Ok(())
    }
}

/// A lab of two nodes, with a server on the second.
struct World {
    lab: Lab,
    server: Pod,
}

impl World {
    fn new(lab: Lab) -> Self {
        let server = lab.node("node-2").pod("load/server").start();
        let service = ServiceManifest::new("load/server").ips(&["10.96.49.1", "fd00:10:96::49:1"]);
        lab.apply(&service.tcp("tcp", PORT, PORT).node_ports(&[PORT]).endpoint(&server).yaml());
        let world = Self { lab, server };
        for to in world.addresses() {
            world.lab.wait_until("the NodePort works", || {
                let short =
                    Bulk { warm: Duration::ZERO, during: Duration::from_millis(50), ..Bulk::tcp(to.ip(), PORT) };
                if short.measure(world.lab.client(), &world.server) > 0.0 { Ok(()) } else { Err("nothing arrived") }
            });
        }
        world
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.lab.node("node-1").ips().map(|ip| SocketAddr::new(ip, PORT))
    }

    fn measure(&self, family: usize, during: Duration) -> f64 {
        let bulk = Bulk { warm: Duration::from_millis(500), during, ..Bulk::tcp(self.addresses()[family].ip(), PORT) };
        bulk.measure(self.lab.client(), &self.server) / 1e6
    }

    /// Packets that XDP has sent on at the node that the client goes to.
    fn packets(&self) -> u64 {
        let status = self.lab.node("node-1").fairlead(&["status", "-o", "json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["network"]["xdp_packets"].as_u64().unwrap_or_default()
    }
}

/// Measures both by turns.
///
/// # Errors
/// No time is given, or XDP did nothing.
pub fn run(seconds: u64) -> Result<Findings> {
    ensure!(seconds > 0, "no time is given: --seconds 1 or more");
    let before = load_average();
    let worlds =
        [Lab::builder().nodes(2).without_xdp(), Lab::builder().nodes(2).xdp()].map(|lab| World::new(lab.start()));
    let mut rows = Vec::new();
    for (number, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let first = worlds[1].packets();
        let mut sums = [0.0; 2];
        for turn in 0..TURNS {
            for side in if turn % 2 == 0 { [0, 1] } else { [1, 0] } {
                sums[side] += worlds[side].measure(number, Duration::from_secs(seconds) / TURNS);
            }
        }
        let [tcx, xdp] = sums.map(|sum| sum / f64::from(TURNS));
        let packets = worlds[1].packets() - first;
        ensure!(packets > 0, "XDP sent no packet on");
        rows.push(Row { family, tcx, xdp, packets });
    }
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(Findings { seconds, load_average: [before, load_average()], cpus, rows })
}
