//! DNS questions as a pod's resolver sends them: one message, one answer, nothing asked twice.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde::{Deserialize, Serialize};

use crate::probe::{ProbeError, Transport};

/// The longest UDP answer that is taken: more than servers send without EDNS.
const LONGEST: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// IPv4 addresses
    A,
    /// IPv6 addresses
    Aaaa,
    /// Servers of a named port
    Srv,
}

impl Kind {
    /// The record that holds addresses of this one's family.
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::A } else { Self::Aaaa }
    }
}

/// A question to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Question {
    /// Who is asked.
    pub(super) server: SocketAddr,
    /// How.
    pub(super) transport: Transport,
    /// The complete name.
    pub(super) name: String,
    /// Which records.
    pub(super) kind: Kind,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// An answer without error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The addresses in it, sorted.
    pub(super) addresses: Vec<IpAddr>,
    /// The SRV records in it, sorted.
    pub(super) targets: Vec<Target>,
    /// From the first system call to the answer.
    pub(super) took: Duration,
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Target {
    /// The server's name, without the last dot.
    pub(super) name: String,
    /// Its port.
    pub(super) port: u16,
    /// Lower ones come first.
    pub(super) priority: u16,
    /// Shares among those of one priority.
    pub(super) weight: u16,
}

/// Asks.
pub(super) fn ask(question: &Question) -> Result<Answer, ProbeError> {
    let started = Instant::now();
    let other = |reason: &dyn std::fmt::Display| ProbeError::Other(format!("DNS: {reason}"));
    let name = Name::from_str(&format!("{}.", question.name.trim_end_matches('.'))).map_err(|e| other(&e))?;
    let kind = match question.kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Srv => RecordType::SRV,
    };
    // Ids need not be hard to guess here, only different from those of answers that come late.
    let mut message = Message::new(started.elapsed().subsec_nanos() as u16, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let bytes = message.to_vec().map_err(|e| other(&e))?;
    let bytes = match question.transport {
        Transport::Udp => over_udp(question, &bytes)?,
        // There is no DNS over SCTP.
        Transport::Tcp | Transport::Sctp => over_tcp(question, &bytes)?,
    };
    let took = started.elapsed();
    let answer = Message::from_vec(&bytes).map_err(|e| other(&e))?;
    if answer.metadata.id != message.metadata.id || answer.queries != message.queries {
        return Err(other(&"this is no answer to the question"));
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(read(&answer, took)),
        code => Err(other(&code)),
    }
}

fn read(message: &Message, took: Duration) -> Answer {
    let mut answer = Answer { addresses: Vec::new(), targets: Vec::new(), took };
    for record in &message.answers {
        match &record.data {
            RData::A(ip) => answer.addresses.push(ip.0.into()),
            RData::AAAA(ip) => answer.addresses.push(ip.0.into()),
            RData::SRV(srv) => answer.targets.push(Target {
                name: srv.target.to_string().trim_end_matches('.').to_owned(),
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            }),
            _ => {}
        }
    }
    answer.addresses.sort_unstable();
    answer.targets.sort_unstable();
    answer
}

fn over_udp(question: &Question, query: &[u8]) -> Result<Vec<u8>, ProbeError> {
    let any: IpAddr = match question.server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(question.timeout))?;
    socket.connect(question.server)?;
    socket.send(query)?;
    let mut answer = vec![0; LONGEST];
    let count = socket.recv(&mut answer)?;
    answer.truncate(count);
    Ok(answer)
}

/// RFC 1035, section 4.2.2: two bytes of length come first.
fn over_tcp(question: &Question, query: &[u8]) -> Result<Vec<u8>, ProbeError> {
    let mut stream = TcpStream::connect_timeout(&question.server, question.timeout)?;
    stream.set_read_timeout(Some(question.timeout))?;
    let length = u16::try_from(query.len()).map_err(|_| ProbeError::TooBig)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
