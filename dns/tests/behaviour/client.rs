//! Asks every tier and compares.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_dns::crowd::Bounds;
use fairlead_dns::fast;
use fairlead_dns::full::{Outcome, Responder};
use fairlead_dns::manner::Transport;
use fairlead_dns::server::{Config, Server};
use fairlead_dns::wire::PlainQuery;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::fixture;

/// Longer than any forwarder of these tests takes, and than a busy machine stops.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One line of a table: a question and what must come back.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    question: &'static str,
    code: ResponseCode,
    answers: &'static [&'static str],
    additionals: &'static [&'static str],
    authority: bool,
    short: bool,
}

/// A question, as `name type`; `TYPE65` is a type by its number.
pub(crate) fn ask(question: &'static str) -> Case {
    let code = ResponseCode::NoError;
    Case { question, code, answers: &[], additionals: &[], authority: false, short: false }
}

impl Case {
    /// These records, in any order, and nothing in the other sections.
    pub(crate) fn gives(self, answers: &'static [&'static str]) -> Self {
        Self { answers, ..self }
    }

    /// And these with them.
    pub(crate) fn with(self, additionals: &'static [&'static str]) -> Self {
        Self { additionals, ..self }
    }

    /// The name exists, no such record.
    pub(crate) fn no_data(self) -> Self {
        Self { authority: true, ..self }
    }

    /// The name doesn't exist.
    pub(crate) fn no_name(self) -> Self {
        Self { authority: true, code: ResponseCode::NXDomain, ..self }
    }

    /// An error.
    pub(crate) fn fails(self, code: ResponseCode) -> Self {
        Self { code, ..self }
    }

    /// The short way answers it too.
    pub(crate) fn everywhere(self) -> Self {
        Self { short: true, ..self }
    }

    fn check(&self, message: &Message) {
        let Self { question, code, answers, additionals, authority, .. } = self;
        let sorted = |records: &[Record]| {
            let mut lines: Vec<String> = records.iter().map(ToString::to_string).collect();
            lines.sort();
            lines
        };
        let expected = |lines: &[&str]| {
            let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            lines.sort();
            lines
        };
        assert_eq!(message.metadata.response_code, *code, "{question}");
        assert_eq!(sorted(&message.answers), expected(answers), "answers of {question}");
        assert_eq!(sorted(&message.additionals), expected(additionals), "additionals of {question}");
        assert!(!message.metadata.truncation, "{question} is complete");
        assert!(message.metadata.recursion_desired, "RD of {question} is repeated");
        let authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        assert_eq!(message.metadata.authoritative, authoritative, "AA of {question}");
        if *authority {
            let [soa] = &message.authorities[..] else { panic!("{question} has one SOA: {:?}", message.authorities) };
            assert_eq!(soa.record_type(), RecordType::SOA, "{question}");
            assert_eq!(soa.ttl, 5, "{question}");
        } else {
            assert!(message.authorities.is_empty(), "{question} has no authority: {:?}", message.authorities);
        }
    }
}

/// Asks the small cluster, in every tier.
pub(crate) fn check(cases: &[Case]) {
    run(async {
        let asked = Tiers::start(fixture::responder(fixture::zone(), None)).await;
        for case in cases {
            let message = asked.ask(&query(case.question), case.short).await;
            case.check(&Message::from_vec(&message).unwrap());
        }
    });
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// A question as bytes, with RD set and an id made of the question.
pub(crate) fn query(question: &str) -> Vec<u8> {
    message(question).to_vec().unwrap()
}

pub(crate) fn message(question: &str) -> Message {
    let (name, record_type) = question.split_once(' ').unwrap();
    let id = question.bytes().fold(7_u16, |id, byte| id.wrapping_mul(31).wrapping_add(byte.into()));
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("{name}.")).unwrap();
    let number = record_type.strip_prefix("TYPE").map(|number| RecordType::from(number.parse::<u16>().unwrap()));
    message.add_query(Query::query(name, number.unwrap_or_else(|| record_type.parse().unwrap())));
    message
}

/// A server on the loopback and the functions behind it.
pub(crate) struct Tiers {
    pub(crate) responder: Arc<Responder>,
    pub(crate) server: Server,
}

impl Tiers {
    pub(crate) async fn start(responder: Arc<Responder>) -> Self {
        Self::listen(responder, "127.0.0.1:0").await
    }

    pub(crate) async fn listen(responder: Arc<Responder>, address: &str) -> Self {
        let connections = Bounds { all: 1000, each: 250 };
        Self::limited(responder, address, connections).await
    }

    pub(crate) async fn limited(responder: Arc<Responder>, address: &str, connections: Bounds) -> Self {
        let config = Config { listen: vec![address.parse().unwrap()], threads: 2, connections, tls: None };
        let server = Server::start(&config, &responder).await.unwrap();
        Self { responder, server }
    }

    /// Asks every tier; where two answer, they say the same bytes. Returns what comes over TCP.
    pub(crate) async fn ask(&self, query: &[u8], short: bool) -> Vec<u8> {
        let fast = self.fast(query);
        assert!(!short || fast.is_some(), "the short way answers");
        // What is kept counts down from one question to the next.
        let keeps = self.responder.site().forwarders().iter().any(|forwarder| forwarder.cache().rules().bytes > 0);
        // The same bytes otherwise, which a message that is encoded anew hides all but the number of.
        let said = |bytes: &[u8]| {
            let message = if keeps { without_ttls(bytes) } else { bytes.to_vec() };
            (bytes.len(), message)
        };
        let udp = said(&self.udp(query).await);
        let tcp = self.tcp(query).await;
        assert_eq!(said(&self.full(query, Transport::Udp).await), udp, "the long way and UDP");
        assert_eq!(said(&self.full(query, Transport::Tcp).await), said(&tcp), "the long way and TCP");
        assert_eq!(udp, said(&tcp), "UDP and TCP");
        if let Some(fast) = fast {
            assert_eq!(said(&fast), udp, "the short way and UDP");
        }
        tcp
    }

    /// What the short way says from the zone, if the question may go there.
    pub(crate) fn fast(&self, query: &[u8]) -> Option<Vec<u8>> {
        let Self { responder, .. } = self;
        let site = responder.site();
        let plain = PlainQuery::read(query)?;
        if !site.is_short(&plain.name.to_ascii_lowercase(), plain.record_type, Ipv4Addr::LOCALHOST.into()) {
            return None;
        }
        let mut out = Vec::new();
        let zone = responder.zone.read().unwrap();
        fast::respond(&zone, site.manner(responder.manner), query, &mut out).then_some(out)
    }

    pub(crate) async fn full(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        match self.responder.respond(query, transport) {
            Outcome::Reply(response) => response.encode(),
            Outcome::Pending(pending) => self.responder.finish(*pending).await.0.encode(),
            Outcome::Silence | Outcome::Transfer(_) => panic!("a query gets a response"),
        }
    }

    pub(crate) async fn udp(&self, query: &[u8]) -> Vec<u8> {
        exchange(self.server.udp_addresses()[0], query).await.expect("a response over UDP")
    }

    pub(crate) async fn tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.tcp_addresses()[0]).await.unwrap();
        write(&mut stream, query).await;
        timeout(PATIENCE, read(&mut stream)).await.expect("a response over TCP")
    }
}

/// A message, but for how long its records live.
pub(crate) fn without_ttls(message: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(message).unwrap();
    let Message { answers, authorities, additionals, .. } = &mut message;
    for record in answers.iter_mut().chain(authorities).chain(additionals) {
        record.ttl = 0;
    }
    message.to_vec().unwrap()
}

/// One datagram there and one back; `None` when nothing comes for a while.
pub(crate) async fn exchange(server: SocketAddr, query: &[u8]) -> Option<Vec<u8>> {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 65535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.unwrap();
    buffer.truncate(length);
    Some(buffer)
}

pub(crate) async fn write(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&[&u16::try_from(message.len()).unwrap().to_be_bytes(), message].concat()).await.unwrap();
}

pub(crate) async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut message).await.unwrap();
    message
}
