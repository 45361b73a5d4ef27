//! A worker: the process of the lab that acts inside of a node, of the fabric or of a client. Each connection to it is a
//! thread in the network namespace that the connection names; sockets and commands are of the worker's cgroup.

mod bulk;
mod dial;
mod drive;
mod line;
mod load;
mod netns;
mod packet;
mod ping;
mod process;
mod resolver;
mod serve;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::load::{Load, Report};
use crate::packets::{from_hex, to_hex};
use crate::proto::{Answer, Hello, Request, Serve};

pub(crate) use dial::probe;

/// What the threads of a worker share.
#[derive(Default)]
struct Shared {
    processes: process::Processes,
    servers: Mutex<HashMap<String, Vec<serve::Server>>>,
}

/// What one connection keeps between its requests.
struct Seat {
    shared: Arc<Shared>,
    conversation: Option<dial::Conversation>,
    packets: Option<packet::PacketSocket>,
    loading: Option<Loading>,
    sinks: Vec<drive::Sink>,
    holding: Option<drive::Holding>,
}

/// Load that goes on.
struct Loading {
    control: Arc<load::Control>,
    thread: JoinHandle<Result<Report>>,
}

/// Answers connections until the process is killed.
pub(crate) fn work(listener: &UnixListener) -> Result<()> {
    let shared = Arc::new(Shared::default());
    for stream in listener.incoming() {
        let stream = stream.context("a worker can't accept connections any more")?;
        let shared = shared.clone();
        thread::Builder::new().stack_size(512 << 10).spawn(move || {
            // The other side has gone, or never said where it wants to be: nobody is left to tell.
            let _ = converse(stream, shared);
        })?;
    }
    Ok(())
}

/// Answers on these ports of this process's own network, as every pod of the lab does, until it is killed.
///
/// # Errors
/// A port is taken.
pub fn serve(name: &str, node: &str, tcp: &[u16], udp: &[u16]) -> Result<()> {
    let wanted = Serve {
        netns: None,
        pod: name.to_owned(),
        node: node.to_owned(),
        addresses: Vec::new(),
        tcp: tcp.to_vec(),
        udp: udp.to_vec(),
        sctp: Vec::new(),
    };
    let _server = serve::Server::start(wanted)?;
    loop {
        thread::park();
    }
}

/// Generates load from this process's own network and says what became of it.
///
/// # Errors
/// The load asks for nothing, or for something that never succeeds.
pub fn load(wanted: &Load, under_way: impl FnOnce()) -> Result<Report> {
    let control = load::Control { may_end: true.into(), ..load::Control::default() };
    load::generate(wanted, &control, under_way)
}

fn converse(mut stream: UnixStream, shared: Arc<Shared>) -> Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(hello) = lines.next() else { return Ok(()) };
    let hello: Hello = serde_json::from_str(&hello?)?;
    let entered = hello.netns.as_deref().map_or(Ok(()), netns::enter);
    let mut seat = Seat { shared, conversation: None, packets: None, loading: None, sinks: Vec::new(), holding: None };
    for line in lines {
        let request: Request = serde_json::from_str(&line?)?;
        let outcome = match &entered {
            Ok(()) => seat.answer(request),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        let answer = outcome.map_or_else(|error| Answer::Failed(format!("{error:#}")), Answer::Done);
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        stream.write_all(&line)?;
    }
    Ok(())
}

impl Seat {
    fn answer(&mut self, request: Request) -> Result<Value> {
        match request {
            Request::Run(command) => give(process::run(&command)?),
            Request::Spawn { command, log } => give(self.shared.processes.spawn(&command, &log)?),
            Request::Signal { pid, signal } => give(self.shared.processes.signal(pid, signal)?),
            Request::Wait { pid, millis } => give(self.shared.processes.wait(pid, millis)?),
            Request::Connectable(path) => give(UnixStream::connect(path).is_ok()),
            Request::AddNetns(name) => give(netns::add(&name)?),
            Request::RemoveNetns(name) => {
                self.shared.servers.lock().expect("no holder panics").remove(&name);
                give(netns::remove(&name)?)
            }
            Request::Serve(wanted) => {
                let key = wanted.netns.clone().unwrap_or_default();
                let server = serve::Server::start(wanted)?;
                self.shared.servers.lock().expect("no holder panics").entry(key).or_default().push(server);
                give(())
            }
            Request::Probe(probe) => give(dial::probe(&probe)),
            Request::Message { probe, hex } => {
                let message = from_hex(&hex).context("a message is not hexadecimal")?;
                give(dial::message(&probe, &message).map(|answer| to_hex(&answer)))
            }
            Request::Ping(ping) => give(ping::ping(&ping)),
            Request::Open(probe) => give(dial::Conversation::open(&probe).map(|(conversation, greeting)| {
                self.conversation = Some(conversation);
                greeting
            })),
            Request::Exchange { size, pad } => {
                give(self.conversation.as_mut().context("no connection was opened")?.exchange(size, pad))
            }
            Request::Close => {
                self.conversation = None;
                give(())
            }
            Request::Bind { udp, address } => {
                let bound = match udp {
                    true => UdpSocket::bind(address).map(drop),
                    false => TcpListener::bind(address).map(drop),
                };
                give(bound.map_err(|error| error.raw_os_error().unwrap_or_default()))
            }
            Request::PacketOpen(interface) => {
                self.packets = Some(packet::PacketSocket::open(&interface)?);
                give(())
            }
            Request::PacketSend(frame) => give(self.packets()?.send(&frame)?),
            Request::PacketReceive { millis } => give(self.packets()?.receive(millis)?),
            Request::LoadBegin(wanted) => give(self.loading.insert(Loading::begin(*wanted)?).count()),
            Request::LoadCount => give(self.loading.as_ref().context("no load was begun")?.count()),
            Request::LoadEnd => give(self.loading.take().context("no load was begun")?.end()?),
            Request::Sink(port) => {
                self.sinks.push(drive::Sink::start(port)?);
                give(())
            }
            Request::Drive(wanted) => give(drive::drive(&wanted)?),
            Request::Hold(wanted) => {
                let (holding, opened) = drive::Holding::open(&wanted)?;
                self.holding = Some(holding);
                give(opened)
            }
            Request::Receive(wanted) => give(bulk::receive(&wanted)?),
            Request::Send(wanted) => give(bulk::send(&wanted)?),
            Request::Finish => give(self.holding.take().context("no connections were opened")?.finish()?),
        }
    }

    fn packets(&mut self) -> Result<&mut packet::PacketSocket> {
        self.packets.as_mut().context("no packet socket was opened")
    }
}

impl Loading {
    /// Begins, and returns when it is under way.
    fn begin(wanted: Load) -> Result<Self> {
        let control = Arc::new(load::Control::default());
        let (say, under_way) = mpsc::channel();
        let of_thread = control.clone();
        // The thread is in the network namespace of this one.
        let thread = thread::spawn(move || {
            load::generate(&wanted, &of_thread, || {
                let _ = say.send(());
            })
        });
        let begun = Self { control, thread };
        // What does not get under way has ended.
        match under_way.recv() {
            Ok(()) => Ok(begun),
            Err(_) => Err(begun.end().err().context("the load ended before it was under way")?),
        }
    }

    fn count(&self) -> u64 {
        self.control.count.load(Ordering::Relaxed)
    }

    /// Waits until its time is over.
    fn end(self) -> Result<Report> {
        self.control.may_end.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load generator broke"))?
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever wanted the load has gone.
        if let Some(loading) = self.loading.take() {
            loading.control.may_end.store(true, Ordering::Relaxed);
        }
    }
}

fn give<T: Serialize>(value: T) -> Result<Value> {
    Ok(serde_json::to_value(value)?)
}
