//! Where one probes from: a pod, a node, a client outside of the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;

use crate::drive::{Drive, Driven, Held, Hold, Sink};
use crate::link::{Link, Pool};
use crate::load::{Load, Loading, Report};
use crate::packets::{Packets, from_hex, to_hex};
use crate::probe::{Echo, Ping, Probe, ProbeError, Reply};
use crate::proto::{Command, Ended, Request, Serve};

/// Which of the two ways to a service a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Via {
    /// From a process in the node's cgroup: the socket hooks act, packets go to the backend from the start.
    Socket,
    /// From a process outside of it: no hook acts, every packet carries the service's address.
    Packet,
}

impl Via {
    /// Both ways: what a test of services goes through.
    pub const BOTH: [Self; 2] = [Self::Socket, Self::Packet];
}

/// A place in the network, as seen by one process there.
#[derive(Debug, Clone)]
pub struct Vantage {
    name: String,
    pool: Arc<Pool>,
    packet: Option<Arc<Pool>>,
}

impl Vantage {
    pub(crate) fn new(name: &str, pool: Pool, packet: Option<Pool>) -> Self {
        Self { name: name.to_owned(), pool: Arc::new(pool), packet: packet.map(Arc::new) }
    }

    /// Starts a server here that says this name, on all addresses: for places outside of the cluster.
    pub fn serve(&self, name: &str, tcp: &[u16], udp: &[u16]) {
        let serve = Serve {
            netns: None,
            pod: name.to_owned(),
            node: String::new(),
            addresses: Vec::new(),
            tcp: tcp.to_vec(),
            udp: udp.to_vec(),
            sctp: Vec::new(),
        };
        lab_works(self, self.pool.ask::<()>(&Request::Serve(serve)));
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn close(&self) {
        self.pool.close();
        if let Some(packet) = &self.packet {
            packet.close();
        }
    }
}

/// What can be done from every place.
///
/// # Panics
/// All of it panics, with the reason, when the lab itself does not work; that is no result of a test.
pub trait Probes {
    /// The place.
    fn vantage(&self) -> &Vantage;

    /// The same place by one of the two ways; by the only one where there are no hooks, as outside of the cluster.
    #[must_use]
    fn via(&self, via: Via) -> Vantage {
        let here = self.vantage();
        let pool = match (via, &here.packet) {
            (Via::Packet, Some(packet)) => packet.clone(),
            _ => here.pool.clone(),
        };
        Vantage { name: here.name.clone(), pool, packet: here.packet.clone() }
    }

    /// Sends a probe.
    ///
    /// # Errors
    /// Why it was not answered.
    fn probe(&self, probe: &Probe) -> Result<Reply, ProbeError> {
        lab_works(self.vantage(), self.vantage().pool.ask(&probe.clone().request()))
    }

    /// Sends a message of any protocol where a probe would go, and gives its answer: a datagram, or over TCP what has
    /// its length in front as DNS has it.
    ///
    /// # Errors
    /// Why there was no answer.
    fn message(&self, probe: &Probe, message: &[u8]) -> Result<Vec<u8>, ProbeError> {
        let request = Request::Message { probe: probe.clone(), hex: to_hex(message) };
        let answer: Result<String, ProbeError> = lab_works(self.vantage(), self.vantage().pool.ask(&request));
        answer.map(|hex| from_hex(&hex).unwrap_or_default())
    }

    /// One TCP connection.
    ///
    /// # Errors
    /// Why it was not answered.
    fn tcp(&self, ip: impl Into<IpAddr>, port: u16) -> Result<Reply, ProbeError> {
        self.probe(&Probe::tcp(ip, port))
    }

    /// One UDP datagram and its answer.
    ///
    /// # Errors
    /// Why it was not answered.
    fn udp(&self, ip: impl Into<IpAddr>, port: u16) -> Result<Reply, ProbeError> {
        self.probe(&Probe::udp(ip, port))
    }

    /// The same probe many times, and how often each server answered.
    ///
    /// # Errors
    /// Why the first one that failed was not answered.
    fn spread(&self, probe: &Probe, count: usize) -> Result<BTreeMap<String, usize>, ProbeError> {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            *answers.entry(self.probe(probe)?.server.pod).or_insert(0) += 1;
        }
        Ok(answers)
    }

    /// One ICMP echo.
    ///
    /// # Errors
    /// Why it was not answered.
    fn ping(&self, ping: &Ping) -> Result<Echo, ProbeError> {
        lab_works(self.vantage(), self.vantage().pool.ask(&Request::Ping(ping.clone())))
    }

    /// Opens a connection that stays open until it is dropped.
    ///
    /// # Errors
    /// Why it could not be opened.
    fn connect(&self, probe: &Probe) -> Result<Connection, ProbeError> {
        let here = self.vantage();
        let mut link = lab_works(here, here.pool.link());
        let opened: Result<Reply, ProbeError> = lab_works(here, link.ask(&Request::Open(probe.clone())));
        opened.map(|greeting| Connection { from: here.clone(), link, greeting })
    }

    /// Binds a socket that listens, or takes datagrams, and closes it again.
    ///
    /// # Errors
    /// The number of the system call's error.
    fn bind(&self, udp: bool, address: SocketAddr) -> Result<(), i32> {
        lab_works(self.vantage(), self.vantage().pool.ask(&Request::Bind { udp, address }))
    }

    /// A packet socket on an interface of this place (`eth0` in pods), which sends and receives whole frames.
    fn packets(&self, interface: &str) -> Packets {
        let here = self.vantage();
        lab_works(here, here.pool.link().and_then(|link| Packets::open(link, interface)))
    }

    /// Begins to generate load, which goes on for its time at least, and until it is ended.
    fn begin(&self, load: &Load) -> Loading {
        let here = self.vantage();
        lab_works(here, here.pool.link().and_then(|link| Loading::begin(here, link, load)))
    }

    /// Generates load and reports when its time is over.
    fn load(&self, load: &Load) -> Report {
        self.begin(load).end()
    }

    /// Starts a server for [`Probes::drive`] and [`Probes::hold`], on all addresses.
    fn sink(&self, port: u16) -> Sink {
        Sink::open(self.vantage(), port)
    }

    /// Exchanges with a sink at a pace, and reports when the last is over.
    fn drive(&self, drive: &Drive) -> Driven {
        lab_works(self.vantage(), self.vantage().pool.ask(&Request::Drive(*drive)))
    }

    /// Opens connections to a sink that stay.
    fn hold(&self, hold: &Hold) -> Held {
        Held::open(self.vantage(), hold)
    }

    /// Runs a command here to its end.
    fn run(&self, argv: &[&str]) -> Ended {
        self.run_with(argv, &[], "")
    }

    /// Runs a command here to its end, with variables of the environment and standard input.
    fn run_with(&self, argv: &[&str], env: &[(&str, &str)], stdin: &str) -> Ended {
        lab_works(self.vantage(), self.vantage().pool.ask(&Request::Run(command(argv, env, stdin))))
    }

    /// Runs a command that has to succeed and gives what it wrote.
    fn must_run(&self, argv: &[&str]) -> String {
        let ended = self.run(argv);
        assert!(ended.ok(), "{}: {argv:?} ended with {}: {}", self.vantage().name, ended.code, ended.stderr);
        ended.stdout
    }
}

impl Probes for Vantage {
    fn vantage(&self) -> &Vantage {
        self
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct Connection {
    from: Vantage,
    link: Link,
    greeting: Reply,
}

impl Connection {
    /// What the server said when the connection was opened.
    #[must_use]
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// Sends `size` bytes and waits for the answer, to which the server adds `pad` bytes.
    ///
    /// # Errors
    /// Why no answer came.
    pub fn exchange(&mut self, size: usize, pad: usize) -> Result<Reply, ProbeError> {
        lab_works(&self.from, self.link.ask(&Request::Exchange { size, pad }))
    }

    /// Closes it in order.
    pub fn close(mut self) {
        lab_works(&self.from, self.link.ask::<()>(&Request::Close));
    }
}

pub(crate) fn command(argv: &[&str], env: &[(&str, &str)], stdin: &str) -> Command {
    Command {
        argv: argv.iter().map(ToString::to_string).collect(),
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        stdin: stdin.to_owned(),
    }
}

/// Unwraps what only a broken lab makes fail.
#[track_caller]
pub(crate) fn lab_works<T>(place: &Vantage, outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| panic!("the lab does not work at {}: {error:#}", place.name))
}
