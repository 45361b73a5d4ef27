//! The questions: every name with every type, and as many again with odd wishes, chosen by a fixed seed.

use std::fmt;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

/// Over what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A question as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) bytes: Vec<u8>,
    pub(crate) transport: Transport,
    pub(crate) over_v6: bool,
    pub(crate) expects_silence: bool,
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// Answers are kept.
    pub(crate) kept: bool,
    /// What is odd about it.
    pub(crate) wish: &'static str,
}

impl Question {
    /// One without wishes, over UDP.
    pub(crate) fn plain(name: &str, kind: u16) -> Self {
        Self::of(name, kind, &message(name, kind))
    }

    fn of(name: &str, kind: u16, message: &Message) -> Self {
        Self {
            bytes: message.to_vec().unwrap(),
            transport: Transport::Udp,
            over_v6: false,
            expects_silence: name.ends_with("dropped.test"),
            name: name.to_owned(),
            kind,
            class: message.queries.first().map_or(1, |query| query.query_class().into()),
            kept: false,
            wish: "",
        }
    }

    /// Whether it asks for a whole zone.
    pub(crate) fn is_transfer(&self) -> bool {
        matches!(self.kind, 251 | 252)
    }

    /// Whether its name is in a zone.
    pub(crate) fn is_in(&self, zone: &str) -> bool {
        let name = self.name.to_ascii_lowercase();
        name == zone || name.strip_suffix(zone).is_some_and(|front| front.ends_with('.'))
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, class, transport, over_v6, wish, .. } = self;
        write!(f, "{name} {} class {class} over {transport:?}", RecordType::from(*kind))?;
        write!(f, "{} {wish}", if *over_v6 { " and IPv6" } else { "" })
    }
}

/// Names of all kinds.
const NAMES: [&str; 4] = [
    // The cluster's zone.
    "cluster.local svc.cluster.local pod.cluster.local dns-version.cluster.local ns.dns.cluster.local \
     dns.cluster.local shop.svc.cluster.local empty.svc.cluster.local none.svc.cluster.local shop.pod.cluster.local \
     none.pod.cluster.local web.shop.svc.cluster.local dual.shop.svc.cluster.local six.shop.svc.cluster.local \
     bare.shop.svc.cluster.local node.shop.svc.cluster.local outer.shop.svc.cluster.local \
     pets.shop.svc.cluster.local idle.shop.svc.cluster.local portless.shop.svc.cluster.local \
     inside.shop.svc.cluster.local outside.shop.svc.cluster.local dangling.shop.svc.cluster.local \
     gone.shop.svc.cluster.local none.shop.svc.cluster.local _http._tcp.web.shop.svc.cluster.local \
     _dns._udp.web.shop.svc.cluster.local _http._udp.web.shop.svc.cluster.local \
     _none._tcp.web.shop.svc.cluster.local _tcp.web.shop.svc.cluster.local _http._tcp.dual.shop.svc.cluster.local \
     _db._tcp.pets.shop.svc.cluster.local _metrics._tcp.pets.shop.svc.cluster.local \
     http._tcp.web.shop.svc.cluster.local pets-0.pets.shop.svc.cluster.local pets-1.pets.shop.svc.cluster.local \
     late.pets.shop.svc.cluster.local none.pets.shop.svc.cluster.local 10-244-1-1.web.shop.svc.cluster.local \
     back.web.shop.svc.cluster.local 10-244-4-1.portless.shop.svc.cluster.local \
     _db._tcp.pets-0.pets.shop.svc.cluster.local a.b.c.web.shop.svc.cluster.local x.inside.shop.svc.cluster.local \
     web.shop.cluster.local web.shop 10-244-1-1.shop.pod.cluster.local 10-1-1.shop.pod.cluster.local \
     fd00--1.shop.pod.cluster.local 10-244-1-1.none.pod.cluster.local web.shop.svc \
     kube-dns.kube-system.svc.cluster.local kubernetes.default.svc.cluster.local",
    // Addresses.
    "1.1.96.10.in-addr.arpa 2.1.96.10.in-addr.arpa 1.2.244.10.in-addr.arpa 1.1.244.10.in-addr.arpa \
     9.9.9.10.in-addr.arpa 96.10.in-addr.arpa in-addr.arpa 50.2.0.192.in-addr.arpa \
     2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa",
    // Addresses for the outside.
    "out.example shop.out.example none.out.example outer.shop.out.example balanced.shop.out.example \
     cloud.shop.out.example web.shop.out.example pets.shop.out.example pets-0.pets.shop.out.example \
     any.outer.shop.out.example _http._tcp.balanced.shop.out.example _db._tcp.pets.shop.out.example \
     _none._tcp.balanced.shop.out.example ns1.dns.out.example dns.out.example ns2.dns.out.example \
     a.b.outer.shop.out.example _http._tcp.cloud.shop.out.example",
    // Everything else.
    "fixed.test two.test node.internal old.test v4.before.test hidden.test any.apps.test 9.apps.test x.noipv6.test \
     a.void.test a.blocked.test a.filtered.test a.dropped.test v4.test v6.test both.test mapped.test many.test \
     text.test mail.test alias.test gone.test refused.test failed.test none.test web.corp.test x.corp.test .",
];

/// A, NS, CNAME, SOA, HINFO, MX, TXT, PTR, AAAA, SRV, HTTPS, ANY, and one that is nobody's.
const TYPES: [u16; 13] = [1, 2, 5, 6, 13, 15, 16, 12, 28, 33, 65, 255, 65280];

fn message(name: &str, kind: u16) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = if name == "." { Name::root() } else { Name::from_ascii(format!("{name}.")).unwrap() };
    message.add_query(Query::query(name, RecordType::from(kind)));
    message
}

/// xorshift64: the same questions in every run.
struct Choice(u64);

impl Choice {
    fn of(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % count
    }
}

/// Everything that is asked.
pub(crate) fn all() -> Vec<Question> {
    let names: Vec<&str> = NAMES.iter().flat_map(|names| names.split_whitespace()).collect();
    let plain = |name: &&str| TYPES.map(|kind| Question::plain(name, kind));
    let mut all: Vec<Question> = names.iter().flat_map(plain).collect();
    let mut choice = Choice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..12_000 {
        let (name, kind) = (names[choice.of(names.len())], TYPES[choice.of(TYPES.len())]);
        all.push(wished(name, kind, &mut choice));
    }
    // For clients of IPv6, addresses are made.
    for name in &names {
        all.push(Question { over_v6: true, ..Question::plain(name, 28) });
    }
    for zone in ["cluster.local", "out.example", "shop.svc.cluster.local", "in-addr.arpa", "v4.test"] {
        for kind in [252, 251] {
            for transport in [Transport::Udp, Transport::Tcp] {
                all.push(Question { transport, wish: "whole", ..Question::plain(zone, kind) });
            }
        }
        // One who has a zone as it was.
        let mut old = message(zone, 251);
        let data = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 1);
        old.authorities.push(Record::from_rdata(Name::from_ascii(format!("{zone}.")).unwrap(), 0, RData::SOA(data)));
        all.push(Question { transport: Transport::Tcp, wish: "since", ..Question::of(zone, 251, &old) });
    }
    all.extend(broken());
    all
}

/// A question with one thing that is odd, or several.
fn wished(name: &str, kind: u16, choice: &mut Choice) -> Question {
    let mut asked = message(name, kind);
    let mut edns = Edns::new();
    let with = |edns: &mut Edns, code: u16, data: Vec<u8>| edns.options_mut().insert(EdnsOption::Unknown(code, data));
    let wishes = [
        "no EDNS",
        "512",
        "1232",
        "4096",
        "DO",
        "version 1",
        "cookie",
        "NSID",
        "padding",
        "keepalive",
        "client subnet",
        "unknown option",
        "CD",
        "AD",
        "no RD",
        "CH",
        "class ANY",
        "spelling",
        "100 bytes",
    ];
    let wish = wishes[choice.of(wishes.len())];
    let mut has_edns = true;
    let mut spelled = name.to_owned();
    match wish {
        "512" => drop(edns.set_max_payload(512)),
        "100 bytes" => drop(edns.set_max_payload(100)),
        "1232" => drop(edns.set_max_payload(1232)),
        "4096" => drop(edns.set_max_payload(4096)),
        "DO" => drop(edns.set_dnssec_ok(true)),
        "version 1" => drop(edns.set_version(1)),
        "cookie" => with(&mut edns, 10, vec![7; 8]),
        "NSID" => with(&mut edns, 3, vec![]),
        "padding" => with(&mut edns, 12, vec![0; 64]),
        "keepalive" => with(&mut edns, 11, vec![]),
        "client subnet" => with(&mut edns, 8, vec![0, 1, 24, 0, 192, 0, 2]),
        "unknown option" => with(&mut edns, 65001, vec![1, 2, 3]),
        _ => has_edns = false,
    }
    match wish {
        "CD" => asked.metadata.checking_disabled = true,
        "AD" => asked.metadata.authentic_data = true,
        "no RD" => asked.metadata.recursion_desired = false,
        "CH" => drop(asked.queries[0].set_query_class(DNSClass::CH)),
        "class ANY" => drop(asked.queries[0].set_query_class(DNSClass::ANY)),
        "spelling" => {
            spelled =
                name.chars().enumerate().map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c }).collect();
            asked.queries[0].set_name(message(&spelled, kind).queries[0].name().clone());
        }
        _ => {}
    }
    asked.edns = has_edns.then_some(edns);
    let transport = if choice.of(3) == 0 { Transport::Tcp } else { Transport::Udp };
    let over_v6 = choice.of(6) == 0;
    Question { transport, over_v6, wish, ..Question::of(&spelled, kind, &asked) }
}

/// What is no question.
fn broken() -> Vec<Question> {
    let good = Question::plain("web.shop.svc.cluster.local", 1);
    let with = |wish, change: &dyn Fn(&mut Vec<u8>)| {
        let mut question = Question { wish, expects_silence: true, ..good.clone() };
        change(&mut question.bytes);
        question
    };
    let opcode = |code: u8| move |bytes: &mut Vec<u8>| bytes[2] |= code << 3;
    let all = vec![
        with("a response", &|bytes| bytes[2] |= 0x80),
        with("no question", &|bytes| {
            bytes[5] = 0;
            bytes.truncate(12);
        }),
        with("two questions", &|bytes| {
            bytes[5] = 2;
            let again = bytes[12..].to_vec();
            bytes.extend(again);
        }),
        with("half a question", &|bytes| bytes.truncate(20)),
        with("half a header", &|bytes| bytes.truncate(7)),
        with("more behind it", &|bytes| bytes.extend([1, 2, 3])),
        with("status", &opcode(2)),
        with("notify", &opcode(4)),
        with("update", &opcode(5)),
        with("opcode 15", &opcode(15)),
    ];
    all
}
