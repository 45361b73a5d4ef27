//! The processes of a lab, and a way into labs that were kept.

#![forbid(unsafe_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode};
use clap::{Parser, Subcommand};
use fairlead_agent::bpf::{ObjectFile, PinDir, load};
use fairlead_tests::{processes, relayout};

#[derive(Parser)]
#[command(about = "Processes of Fairlead's lab, and a way into labs that were kept")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Shows the labs on this machine
    List,
    /// Runs a command in a place of a lab: a node, client, far-client or fabric
    Enter {
        /// The lab, as `list` shows it
        lab: String,
        /// The place
        place: String,
        /// A pod on that node, as namespace/name
        #[arg(long)]
        pod: Option<String>,
        /// The command; a shell if there is none
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Ends a lab and removes everything that belongs to it
    Stop {
        /// The lab, as `list` shows it
        lab: String,
    },
    /// Sends text to a socket of the place and shows the answer; for tests
    #[command(hide = true)]
    Say {
        /// A unix socket, or ADDR:PORT for TCP
        socket: PathBuf,
        /// The text
        text: String,
        /// How often the text is sent
        #[arg(long, default_value_t = 1)]
        times: usize,
    },
    /// Opens connections to a unix socket, says text in each, and keeps them until it is ended; for tests
    #[command(hide = true)]
    Idle {
        /// The socket
        socket: PathBuf,
        /// How many
        connections: usize,
        /// The text
        #[arg(long, default_value = "")]
        text: String,
    },
    /// Sends datagrams, each to another port, and says how many it sent; for tests
    #[command(hide = true)]
    Flood {
        /// The addresses, by turns
        #[arg(required = true)]
        to: Vec<IpAddr>,
        /// How long
        #[arg(long)]
        seconds: u64,
    },
    /// Connects a socket, says so, and waits until it is ended; for tests
    #[command(hide = true)]
    Stay {
        /// Where to
        to: SocketAddr,
        /// By UDP
        #[arg(long)]
        udp: bool,
    },
    /// Detaches programs whose links are pinned there; for tests
    #[command(hide = true)]
    Detach {
        /// The pins
        pins: Vec<PathBuf>,
    },
    /// Pins a table as an agent of another version would; for tests
    #[command(hide = true)]
    Relayout {
        /// The table
        table: String,
        /// The elements that it has then
        elements: u32,
        /// Where tables are pinned
        #[arg(long, default_value = "/sys/fs/bpf/fairlead")]
        pins: PathBuf,
    },
    /// Has a program that lets everything pass see what comes in and goes out by interfaces before every other; for tests
    #[command(hide = true)]
    Precede {
        /// The interfaces
        interfaces: Vec<String>,
        /// Where it is pinned: a directory that does not exist, on a bpf file system
        #[arg(long)]
        pins: PathBuf,
    },
    /// Has interfaces take frames that XDP sends from their other ends, until it is ended; for tests
    #[command(hide = true)]
    Catch {
        /// The interfaces: of veths
        interfaces: Vec<String>,
    },
    /// Switches on and off what an interface does for the kernel; for tests
    #[command(hide = true)]
    Offloads {
        /// The interface
        interface: String,
        /// As rx-gro=on
        features: Vec<String>,
    },
    /// Answers on ports, as pods of a lab do; for pods of a real cluster
    #[command(hide = true)]
    Serve {
        /// What it says of itself
        #[arg(long, env = "POD_NAME", default_value = "")]
        name: String,
        /// The node that it says it is on
        #[arg(long, env = "NODE_NAME", default_value = "")]
        node: String,
        /// TCP ports
        #[arg(long)]
        tcp: Vec<u16>,
        /// UDP ports
        #[arg(long)]
        udp: Vec<u16>,
    },
    /// Generates load, given as JSON. Says when it is under way, then what became of it as JSON; for pods of a real cluster
    #[command(hide = true)]
    Load {
        /// The load
        json: String,
    },
    /// Makes a lab and cleans up after it; started by the lab itself
    #[command(hide = true)]
    Guardian,
    /// The first process of a lab; started by its guardian
    #[command(hide = true)]
    Init {
        /// The lab
        lab: String,
    },
    /// A process that acts for the lab; started by its first process
    #[command(hide = true)]
    Worker {
        /// The lab
        lab: String,
        /// Which one
        name: String,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Task::Guardian => processes::guard()?,
        Task::Init { lab } => processes::init(&lab)?,
        Task::Worker { lab, name } => processes::worker(&lab, &name)?,
        Task::Serve { name, node, tcp, udp } => processes::serve(&name, &node, &tcp, &udp)?,
        Task::Load { json } => {
            let report = processes::load(&serde_json::from_str(&json)?, || println!("{}", processes::UNDER_WAY))?;
            println!("{}", serde_json::to_string(&report)?);
        }
        Task::List => {
            for lab in processes::list()? {
                println!("{lab}");
            }
        }
        Task::Stop { lab } => processes::stop(&lab)?,
        Task::Detach { pins } => {
            for pin in pins {
                fairlead_agent::bpf::detach(&pin)?;
            }
        }
        Task::Offloads { interface, features } => processes::set_offloads(&interface, &features)?,
        Task::Catch { interfaces } => catch(&interfaces)?,
        Task::Idle { socket, connections, text } => idle(&socket, connections, &text)?,
        Task::Flood { to, seconds } => println!("{}", flood(&to, Duration::from_secs(seconds))?),
        Task::Stay { to, udp } => println!("ended: {}", stay(to, udp)?),
        Task::Relayout { table, elements, pins } => relayout(&pins, &table, elements)?,
        Task::Precede { interfaces, pins } => precede(&interfaces, &pins)?,
        Task::Say { socket, text, times } => say(&socket, &text.repeat(times))?,
        Task::Enter { lab, place, pod, command } => {
            let code = processes::enter(&lab, &place, pod.as_deref(), &command)?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The program is one of the agent's, in tables of its own: of a packet it counts nothing, and 0 is what lets it pass.
fn precede(interfaces: &[String], pins: &Path) -> Result<()> {
    const PROGRAM: &str = "sweep";
    let mut loaded = load(&ObjectFile::find()?, &PinDir::open(pins)?)?;
    let program = loaded.ebpf.program_mut(PROGRAM).context("the object has no such program")?;
    let program: &mut SchedClassifier = program.try_into()?;
    for interface in interfaces {
        for (direction, name) in [(TcAttachType::Ingress, "in"), (TcAttachType::Egress, "out")] {
            let first = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(interface, direction, first)?;
            let link = FdLink::try_from(program.take_link(id)?)?;
            link.pin(pins.join("links").join(format!("{name}_{interface}")))?;
        }
    }
    Ok(())
}

/// A veth takes frames of its other end's XDP by an XDP program alone (`veth_xdp_flush` in drivers/net/veth.c). This one is the
/// agent's, in tables of its own, which know no flow: it lets everything pass.
fn catch(interfaces: &[String]) -> Result<()> {
    let mut ebpf = Ebpf::load(&std::fs::read(fairlead_tree::path("ebpf/fairlead.bpf.o")?)?)?;
    let program: &mut Xdp = ebpf.program_mut("xdp_uplink").context("the object has no such program")?.try_into()?;
    program.load()?;
    for interface in interfaces {
        program.attach(interface, XdpMode::Driver)?;
    }
    println!("attached");
    loop {
        std::thread::park();
    }
}

/// Sends as fast as it can, from a new port for every round of ports: each datagram begins a flow. One that is not taken, as
/// by a queue that is full, is passed over.
fn flood(to: &[IpAddr], during: Duration) -> Result<u64> {
    let (end, mut sent) = (Instant::now() + during, 0);
    while Instant::now() < end {
        let sockets = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?];
        for port in 1..=u16::MAX {
            for ip in to {
                sent += u64::from(sockets[usize::from(ip.is_ipv6())].send_to(b"?", (*ip, port)).is_ok());
            }
            if port % 256 == 0 && Instant::now() >= end {
                break;
            }
        }
    }
    Ok(sent)
}

/// What ends a connected socket that says nothing: the other side, which a server's greeting is not, or an error.
fn stay(to: SocketAddr, udp: bool) -> Result<String> {
    let end = |read: &mut dyn FnMut(&mut [u8]) -> std::io::Result<usize>| {
        println!("connected");
        loop {
            match read(&mut [0; 4096]) {
                Ok(0) if !udp => return "closed".to_owned(),
                Ok(_) => {}
                Err(error) => return format!("{:?}", error.kind()),
            }
        }
    };
    if udp {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        return Ok(end(&mut |buffer| socket.recv(buffer)));
    }
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    Ok(end(&mut |buffer| stream.read(buffer)))
}

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other side may hang up on nonsense before it has read it all; what counts is that it ends the connection.
fn say(socket: &Path, text: &str) -> Result<()> {
    match socket.to_str().and_then(|text| text.parse().ok()) {
        Some(address) => {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let sent = stream.write_all(text.as_bytes());
            listen(socket, &mut stream, sent)
        }
        None => {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let sent = stream.write_all(text.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
            listen(socket, &mut stream, sent)
        }
    }
}

/// What the other side says stays unread, and that it hung up unnoticed: some clients are like that.
fn idle(socket: &Path, connections: usize, text: &str) -> Result<()> {
    let mut open = Vec::new();
    for _ in 0..connections {
        let mut stream = UnixStream::connect(socket)?;
        let _hung_up = stream.write_all(text.as_bytes());
        open.push(stream);
    }
    println!("{} connections", open.len());
    loop {
        std::thread::park();
    }
}

fn listen(socket: &Path, stream: &mut impl Read, sent: std::io::Result<()>) -> Result<()> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if read.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)) {
        bail!("{} keeps the connection and says nothing", socket.display());
    }
    println!("{}", String::from_utf8_lossy(&answer).trim_end());
    for error in [sent.err(), read.err()].into_iter().flatten() {
        eprintln!("the connection ended: {error}");
    }
    Ok(())
}
