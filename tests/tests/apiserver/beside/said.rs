//! What a server says, as far as the order of records does not matter.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};

use super::questions::{Question, Transport};

/// How long an answer may take, and how long it takes to see that there is none.
const PATIENCE: Duration = Duration::from_secs(8);
const SILENCE: Duration = Duration::from_millis(300);

/// A record: its owner, its type, its TTL, and its data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) owner: String,
    pub(crate) kind: String,
    pub(crate) ttl: u32,
    pub(crate) data: String,
}

/// An answer, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) silent: bool,
    pub(crate) code: String,
    pub(crate) flags: BTreeSet<&'static str>,
    pub(crate) question: String,
    pub(crate) answers: Vec<Entry>,
    pub(crate) authorities: Vec<Entry>,
    pub(crate) additionals: Vec<Entry>,
    /// Size, version, DO, and the codes of options.
    pub(crate) opt: Option<(u16, u8, bool, Vec<u16>)>,
}

impl Said {
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Which parts differ.
    pub(crate) fn parts(&self, other: &Self) -> Vec<String> {
        let differs = [
            ("silence", self.silent != other.silent),
            ("code", self.code != other.code),
            ("question", self.question != other.question),
            ("answers", self.answers != other.answers),
            ("authorities", self.authorities != other.authorities),
            ("additionals", self.additionals != other.additionals),
            ("opt", self.opt != other.opt),
        ];
        let parts = differs.iter().filter(|(_, differs)| *differs).map(|(part, _)| (*part).to_owned());
        parts.chain(self.flags.symmetric_difference(&other.flags).map(|flag| (*flag).to_owned())).collect()
    }

    /// Records that the other has not.
    pub(crate) fn only(&self, other: &Self) -> Vec<String> {
        let sections = [&self.answers, &self.authorities, &self.additionals];
        let others = [&other.answers, &other.authorities, &other.additionals];
        let missing =
            sections.iter().zip(others).flat_map(|(own, other)| own.iter().filter(|entry| !other.contains(entry)));
        missing.map(|Entry { owner, kind, ttl, data }| format!("{owner} {ttl} {kind} {data}")).collect()
    }

    /// Every record.
    pub(crate) fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.answers.iter_mut().chain(&mut self.authorities).chain(&mut self.additionals)
    }

    pub(crate) fn sort(&mut self) {
        for section in [&mut self.answers, &mut self.authorities, &mut self.additionals] {
            section.sort();
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.silent {
            return f.write_str("nothing");
        }
        let Self { code, flags, question, answers, authorities, additionals, opt, .. } = self;
        write!(f, "{code} {flags:?} {question}")?;
        for (name, section) in [("answer", answers), ("authority", authorities), ("additional", additionals)] {
            for Entry { owner, kind, ttl, data } in section.iter().take(6) {
                write!(f, "; {name} {owner} {ttl} {kind} {data}")?;
            }
            if section.len() > 6 {
                write!(f, "; {} more", section.len() - 6)?;
            }
        }
        write!(f, "; OPT {opt:?}")
    }
}

pub(crate) fn ask(server: SocketAddr, question: &Question) -> Said {
    let messages = match question.transport {
        Transport::Udp => over_udp(server, question).into_iter().collect(),
        Transport::Tcp => over_tcp(server, question),
    };
    let mut said = Said { silent: messages.is_empty(), ..Said::default() };
    for message in messages {
        let Ok(message) = Message::from_vec(&message) else {
            said.code = "unreadable".to_owned();
            continue;
        };
        add(&mut said, &message);
    }
    said.sort();
    said
}

fn add(said: &mut Said, message: &Message) {
    let metadata = &message.metadata;
    let flags = [
        (metadata.authoritative, "AA"),
        (metadata.truncation, "TC"),
        (metadata.recursion_desired, "RD"),
        (metadata.recursion_available, "RA"),
        (metadata.authentic_data, "AD"),
        (metadata.checking_disabled, "CD"),
    ];
    said.code = format!("{:?}", metadata.response_code);
    said.flags.extend(flags.iter().filter(|(is, _)| *is).map(|(_, name)| *name));
    said.question =
        message.queries.iter().map(|q| format!("{} {} {}", q.name(), q.query_type(), q.query_class())).collect();
    let entry = |record: &Record| Entry {
        owner: record.name.to_string(),
        kind: record.record_type().to_string(),
        ttl: record.ttl,
        data: record.data.to_string(),
    };
    said.answers.extend(message.answers.iter().map(entry));
    said.authorities.extend(message.authorities.iter().map(entry));
    said.additionals.extend(message.additionals.iter().map(entry));
    said.opt = message.edns.as_ref().map(|edns| {
        let codes = edns.options().as_ref().iter().map(|(code, _)| u16::from(*code)).collect();
        (edns.max_payload(), edns.version(), edns.flags().dnssec_ok, codes)
    });
}

fn over_udp(server: SocketAddr, question: &Question) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(if question.expects_silence { SILENCE } else { PATIENCE })).unwrap();
    socket.send(&question.bytes).ok()?;
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn over_tcp(server: SocketAddr, question: &Question) -> Vec<Vec<u8>> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(if question.expects_silence { SILENCE } else { PATIENCE })).unwrap();
    let length = u16::try_from(question.bytes.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &question.bytes].concat()).unwrap();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut ends = 0;
    loop {
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            return messages;
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).unwrap();
        let records = Message::from_vec(&message).map(|message| message.answers).unwrap_or_default();
        // A zone goes on until its SOA comes again.
        let soas = records.iter().filter(|record| record.record_type() == RecordType::SOA).count();
        ends += soas;
        let alone = messages.is_empty() && records.len() <= 1;
        messages.push(message);
        if !question.is_transfer() || alone || ends >= 2 || ends == 0 {
            return messages;
        }
    }
}
