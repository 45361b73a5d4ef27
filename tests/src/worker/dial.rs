//! Clients: TCP connections and UDP datagrams, and how they fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::line;
use crate::probe::{Identity, Probe, ProbeError, Reply, Transport};

/// How long the other end of a connection that is made may take to answer at least: its kernel has taken the connection, and its
/// thread may have to wait for a CPU.
const ANSWER: Duration = Duration::from_secs(5);

/// Sends a probe.
pub(crate) fn probe(probe: &Probe) -> Result<Reply, ProbeError> {
    match probe.transport {
        Transport::Tcp | Transport::Sctp => tcp(probe),
        Transport::Udp => udp(probe),
    }
}

/// By TCP, or by SCTP in the same way.
fn tcp(probe: &Probe) -> Result<Reply, ProbeError> {
    let (mut conversation, greeting) = Conversation::open(probe)?;
    if probe.size == 0 && probe.pad == 0 {
        return Ok(greeting);
    }
    let answer = conversation.exchange(probe.size, probe.pad)?;
    Ok(Reply { took: greeting.took + answer.took, ..answer })
}

fn udp(probe: &Probe) -> Result<Reply, ProbeError> {
    let started = Instant::now();
    let socket = socket(probe, Type::DGRAM)?;
    let request = line::request(probe.size, probe.pad);
    if probe.connected {
        socket.connect(&probe.to.into())?;
    }
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(probe.timeout))?;
    if probe.connected {
        socket.send(&request)?;
    } else {
        socket.send_to(&request, probe.to)?;
    }
    let mut buffer = vec![0; 65536];
    let (count, from) = socket.recv_from(&mut buffer)?;
    Ok(Reply {
        server: identity(&buffer[..count])?,
        peer: if probe.connected { socket.peer_addr()? } else { from },
        local: socket.local_addr()?,
        took: started.elapsed(),
    })
}

/// Sends a message and gives its answer.
pub(super) fn message(probe: &Probe, message: &[u8]) -> Result<Vec<u8>, ProbeError> {
    match probe.transport {
        Transport::Tcp | Transport::Sctp => {
            let socket = socket(probe, Type::STREAM)?;
            socket.connect_timeout(&probe.to.into(), probe.timeout)?;
            let mut stream: TcpStream = socket.into();
            stream.set_read_timeout(Some(probe.timeout.max(ANSWER)))?;
            let length = u16::try_from(message.len()).map_err(|_| ProbeError::TooBig)?;
            stream.write_all(&[&length.to_be_bytes(), message].concat())?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        }
        Transport::Udp => {
            let socket = socket(probe, Type::DGRAM)?;
            socket.connect(&probe.to.into())?;
            let socket: UdpSocket = socket.into();
            socket.set_read_timeout(Some(probe.timeout))?;
            socket.send(message)?;
            let mut answer = vec![0; 65536];
            let count = socket.recv(&mut answer)?;
            answer.truncate(count);
            Ok(answer)
        }
    }
}

/// A connection that is open.
pub(super) struct Conversation {
    stream: BufReader<TcpStream>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Conversation {
    /// Connects and reads the greeting.
    pub(super) fn open(probe: &Probe) -> Result<(Self, Reply), ProbeError> {
        let started = Instant::now();
        let socket = socket(probe, Type::STREAM)?;
        if probe.abort {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        socket.connect_timeout(&probe.to.into(), probe.timeout)?;
        let stream: TcpStream = socket.into();
        if probe.transport == Transport::Tcp {
            stream.set_nodelay(true)?;
        }
        let patience = probe.timeout.max(ANSWER);
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let mut new = Self { stream: BufReader::new(stream), peer, local };
        let mut greeting = new.read()?;
        greeting.took = started.elapsed();
        Ok((new, greeting))
    }

    /// Sends a line and reads the answer.
    pub(super) fn exchange(&mut self, size: usize, pad: usize) -> Result<Reply, ProbeError> {
        let started = Instant::now();
        self.stream.get_mut().write_all(&line::request(size, pad))?;
        let mut reply = self.read()?;
        reply.took = started.elapsed();
        Ok(reply)
    }

    /// Asks for an answer after this silence, closes for writing, and waits for the answer and for the server's end.
    pub(super) fn half_close(mut self, silence: Duration) -> Result<(), ProbeError> {
        let stream = self.stream.get_mut();
        stream.write_all(&line::request_later(silence))?;
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(silence + stream.read_timeout()?.unwrap_or_default()))?;
        self.read()?;
        match self.read() {
            Err(ProbeError::Closed) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(ProbeError::Other("the server goes on after its last word".to_owned())),
        }
    }

    fn read(&mut self) -> Result<Reply, ProbeError> {
        let mut answer = Vec::new();
        if self.stream.read_until(b'\n', &mut answer)? == 0 {
            return Err(ProbeError::Closed);
        }
        Ok(Reply { server: identity(&answer)?, peer: self.peer, local: self.local, took: Duration::ZERO })
    }
}

fn identity(answer: &[u8]) -> Result<Identity, ProbeError> {
    serde_json::from_slice(answer).map_err(|_| {
        ProbeError::Other(format!("somebody answered who is no server of the lab: {}", answer.escape_ascii()))
    })
}

/// A socket as the probe wants it, bound where it names a source.
pub(super) fn socket(probe: &Probe, kind: Type) -> Result<Socket, ProbeError> {
    let protocol = (probe.transport == Transport::Sctp).then_some(Protocol::SCTP);
    let socket = Socket::new(Domain::for_address(probe.to), kind, protocol)?;
    if probe.source_ip.is_some() || probe.source_port.is_some() {
        let any: IpAddr = if probe.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(probe.source_ip.unwrap_or(any), probe.source_port.unwrap_or(0)).into())?;
    }
    match (probe.ttl, probe.to.is_ipv4()) {
        (Some(ttl), true) => socket.set_ttl_v4(ttl)?,
        (Some(ttl), false) => socket.set_unicast_hops_v6(ttl)?,
        (None, _) => {}
    }
    Ok(socket)
}
