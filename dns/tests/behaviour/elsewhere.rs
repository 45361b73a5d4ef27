//! Other zones: asked of upstream servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Limits;
use fairlead_dns::manner::Transport;
use fairlead_objects::Event;
use hickory_proto::op::{Edns, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::client::{Tiers, message, query, read, run, write};
use crate::fixture::{cluster, forwarder, responder, zone, zone_of};
use crate::process::free_address;

/// A server that answers is asked once, however busy the machine is.
pub(crate) const LIMITS: Limits = Limits {
    patience: Duration::from_secs(20),
    deadline: Duration::from_secs(20),
    in_flight: Bounds { all: 100, each: 100 },
};

/// One that is silent is soon asked again, and others are asked too.
pub(crate) const IMPATIENT: Limits = Limits { patience: Duration::from_millis(100), ..LIMITS };

/// What an upstream server says to a question: datagrams, or messages over TCP.
pub(crate) type Script = dyn Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync;

/// An upstream server that does as it is told, over UDP and TCP on one port.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Upstream {
    pub(crate) async fn start(script: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let of_udp = Arc::clone(&script);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                for response in of_udp(&Message::from_vec(&buffer[..length]).unwrap(), false) {
                    udp.send_to(&response, client).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                connections.spawn(talk(stream, Arc::clone(&script)));
            }
        });
        Self { address, _tasks: tasks }
    }

    /// One that answers every question with this address.
    pub(crate) async fn of(address: &'static str) -> Self {
        Self::start(move |question, _| vec![found(question, address).to_vec().unwrap()]).await
    }
}

/// Answers what comes over a connection. It ends where there is nothing to say, or nobody to say it to.
async fn talk(mut stream: TcpStream, script: Arc<Script>) -> std::io::Result<()> {
    loop {
        let mut question = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut question).await?;
        let responses = script(&Message::from_vec(&question).unwrap(), true);
        if responses.is_empty() {
            return Ok(());
        }
        for response in responses {
            let length = u16::try_from(response.len()).unwrap();
            stream.write_all(&[&length.to_be_bytes(), &response[..]].concat()).await?;
        }
    }
}

pub(crate) fn response(question: &Message) -> Message {
    let mut message = question.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message
}

pub(crate) fn found(question: &Message, address: &str) -> Message {
    let mut message = response(question);
    let name = question.queries[0].name.clone();
    message.add_answer(Record::from_rdata(name, 60, RData::A(A(address.parse().unwrap()))));
    message
}

async fn tiers(upstreams: &[SocketAddr], limits: Limits) -> Tiers {
    Tiers::start(responder(zone(), forwarder(upstreams, limits))).await
}

/// Asks every tier for the address of `www.example.org`.
async fn asked(tiers: &Tiers) -> Message {
    Message::from_vec(&tiers.ask(&query("www.example.org A"), false).await).unwrap()
}

/// What is said when it is not cut. Over TCP an upstream server is waited for a second, and a busy machine may take
/// longer.
async fn uncut(ask: impl AsyncFn() -> Vec<u8>) -> Vec<u8> {
    for _ in 0..3 {
        let said = ask().await;
        if !Message::from_vec(&said).unwrap().metadata.truncation {
            return said;
        }
    }
    panic!("it is cut each time")
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter(|r| r.record_type() == RecordType::A).map(|r| r.data.to_string()).collect()
}

#[test]
fn d31_without_upstreams_other_zones_are_refused() {
    run(async {
        assert!(forwarder(&[], LIMITS).is_none());
        let tiers = tiers(&[], LIMITS).await;
        for question in ["www.example.org A", "example TXT", "local A", "xcluster.local A"] {
            let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
            assert_eq!(message.metadata.response_code, ResponseCode::Refused, "{question}");
            assert!(message.answers.is_empty() && message.authorities.is_empty());
        }
    });
}

#[test]
fn d31_other_zones_are_forwarded() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        let message = asked(&tiers).await;
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert_eq!(message.answers[0].to_string(), "www.example.org. 60 IN A 192.0.2.7");
        assert!(message.metadata.recursion_available && !message.metadata.authoritative);
        assert!(message.edns.is_none());
        assert_eq!(tiers.responder.stats.forwarded.get(), 4);
        // The cluster's zone is never asked of anybody.
        let own = Message::from_vec(&tiers.ask(&query("no.shop.svc.cluster.local A"), true).await).unwrap();
        assert_eq!(own.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(tiers.responder.stats.forwarded.get(), 4);
    });
}

#[test]
fn d31_names_that_do_not_exist_pass_through() {
    run(async {
        let upstream = Upstream::start(|question, _| {
            let mut message = response(question);
            message.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 5);
            message.add_authority(Record::from_rdata(Name::from_ascii("example.org.").unwrap(), 60, RData::SOA(soa)));
            vec![message.to_vec().unwrap()]
        })
        .await;
        let message = asked(&tiers(&[upstream.address], LIMITS).await).await;
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(message.authorities[0].to_string(), "example.org. 60 IN SOA . . 1 2 3 4 5");
    });
}

#[test]
fn d31_opt_records_are_each_sides_own() {
    run(async {
        let upstream = Upstream::start(|question, _| {
            let edns = question.edns.as_ref().unwrap();
            assert_eq!((edns.max_payload(), edns.options().options.len()), (1232, 0));
            let answer = if edns.flags().dnssec_ok { "192.0.2.1" } else { "192.0.2.0" };
            vec![found(question, answer).to_vec().unwrap()]
        })
        .await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.0"]);
        let mut question = message("www.example.org A");
        let mut edns = Edns::new();
        edns.set_max_payload(4000).set_dnssec_ok(true);
        question.set_edns(edns);
        let answer = Message::from_vec(&tiers.ask(&question.to_vec().unwrap(), false).await).unwrap();
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        assert_eq!(answer.edns.unwrap().max_payload(), 4000);
    });
}

#[test]
fn d31_answers_that_are_cut_are_fetched_over_tcp() {
    run(async {
        let upstream = Upstream::start(|question, tcp| {
            let mut message = if tcp { found(question, "192.0.2.9") } else { response(question) };
            message.metadata.truncation = !tcp;
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        let asked = query("www.example.org A");
        let udp = uncut(async || tiers.udp(&asked).await).await;
        assert_eq!(addresses(&Message::from_vec(&udp).unwrap()), ["192.0.2.9"]);
        assert_eq!(uncut(async || tiers.tcp(&asked).await).await, udp);
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(uncut(async || tiers.full(&asked, transport).await).await, udp);
        }
    });
}

#[test]
fn d31_answers_that_do_not_fit_the_client_are_cut() {
    run(async {
        let upstream = Upstream::start(|question, tcp| {
            let mut message = response(question);
            message.metadata.truncation = !tcp;
            for n in 0..if tcp { 100 } else { 0 } {
                message.answers.extend(found(question, &format!("192.0.2.{n}")).answers);
            }
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        let udp = tiers.udp(&query("www.example.org A")).await;
        assert!(udp.len() <= 512);
        assert!(Message::from_vec(&udp).unwrap().metadata.truncation);
        let tcp = uncut(async || tiers.tcp(&query("www.example.org A")).await).await;
        assert_eq!(Message::from_vec(&tcp).unwrap().answers.len(), 100);
    });
}

#[test]
fn d26_a_query_that_waits_for_upstream_holds_back_none_for_ever() {
    run(async {
        let upstream = Upstream::of("192.0.2.9").await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        let questions = ["www.example.org A", "web.shop.svc.cluster.local A", "www.example.com A"];
        for question in questions {
            write(&mut stream, &query(question)).await;
        }
        let mut expected = questions.map(|question| message(question).metadata.id);
        let mut received = [0; 3];
        for id in &mut received {
            let response = Message::from_vec(&read(&mut stream).await).unwrap();
            assert_eq!(response.answers.len(), 1);
            *id = response.metadata.id;
        }
        expected.sort_unstable();
        received.sort_unstable();
        assert_eq!(received, expected);
    });
}

#[test]
fn d31_what_answers_another_question_is_left_alone() {
    run(async {
        let upstream = Upstream::start(|question, _| {
            let mut id = found(question, "203.0.113.1");
            id.metadata.id = id.metadata.id.wrapping_add(1);
            let mut name = found(question, "203.0.113.2");
            name.queries[0].set_name(Name::from_ascii("www.example.net.").unwrap());
            let mut kind = found(question, "203.0.113.3");
            kind.queries[0].set_query_type(RecordType::TXT);
            let mut query = found(question, "203.0.113.4");
            query.metadata.message_type = MessageType::Query;
            let mut none = found(question, "203.0.113.5");
            none.queries.clear();
            let mut good = found(question, "192.0.2.1");
            // A server may write the name as it likes.
            let lower = good.queries[0].name.to_lowercase();
            good.queries[0].set_name(lower);
            let mut all: Vec<_> = [id, name, kind, query, none, good].iter().map(|m| m.to_vec().unwrap()).collect();
            all.insert(0, vec![1, 2, 3]);
            all
        })
        .await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.1"]);
        let spelled = Message::from_vec(&tiers.udp(&query("WWW.Example.ORG A")).await).unwrap();
        assert_eq!(spelled.queries[0].name.to_string(), "WWW.Example.ORG.");
        assert_eq!(addresses(&spelled), ["192.0.2.1"]);
    });
}

#[test]
fn d31_the_next_server_is_asked_when_one_fails() {
    run(async {
        let good = Upstream::of("192.0.2.1").await;
        let silent = Upstream::start(|_, _| vec![]).await;
        let failing = |code| {
            Upstream::start(move |question, _| {
                let mut message = response(question);
                message.metadata.response_code = code;
                vec![message.to_vec().unwrap()]
            })
        };
        let (broken, refusing) = (failing(ResponseCode::ServFail).await, failing(ResponseCode::Refused).await);
        let closed = free_address();
        for first in [silent.address, broken.address, refusing.address, closed] {
            let tiers = tiers(&[first, good.address], IMPATIENT).await;
            assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.1"]);
        }
        let tiers = tiers(&[silent.address, broken.address, closed, refusing.address, good.address], IMPATIENT).await;
        assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.1"]);
        // From now on the good one comes first.
        assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.1"]);
    });
}

#[test]
fn d31_lost_questions_are_asked_again() {
    run(async {
        let asked_before = std::sync::atomic::AtomicBool::new(false);
        let upstream = Upstream::start(move |question, _| {
            if asked_before.swap(true, std::sync::atomic::Ordering::Relaxed) {
                vec![found(question, "192.0.2.1").to_vec().unwrap()]
            } else {
                vec![]
            }
        })
        .await;
        assert_eq!(addresses(&asked(&tiers(&[upstream.address], IMPATIENT).await).await), ["192.0.2.1"]);
    });
}

#[test]
fn d31_when_nobody_answers_the_client_is_told() {
    run(async {
        let silent = Upstream::start(|_, _| vec![]).await;
        let limits = Limits { deadline: Duration::from_millis(300), ..IMPATIENT };
        let tiers = tiers(&[silent.address], limits).await;
        let message = asked(&tiers).await;
        assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
        assert!(tiers.responder.stats.forward_failed.get() > 0);
    });
}

#[test]
fn d31_too_many_waiting_queries_are_refused() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let tiers = tiers(&[upstream.address], Limits { in_flight: Bounds { all: 0, each: 0 }, ..LIMITS }).await;
        assert_eq!(asked(&tiers).await.metadata.response_code, ResponseCode::Refused);
        assert!(tiers.responder.stats.forward_refused.get() > 0);
    });
}

#[test]
fn d31_other_zones_do_not_wait_for_objects() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let zone = zone_of(cluster().into_iter().map(Event::Applied));
        assert!(!zone.is_synced());
        let tiers = Tiers::start(responder(zone, forwarder(&[upstream.address], LIMITS))).await;
        assert_eq!(addresses(&asked(&tiers).await), ["192.0.2.1"]);
    });
}

#[test]
fn d13_addresses_of_others_are_asked_of_others() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        for (question, own) in [("1.0.96.10.in-addr.arpa PTR", true), ("1.2.0.192.in-addr.arpa PTR", false)] {
            let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
            assert_eq!(message.metadata.authoritative, own, "{question}");
            assert_eq!(message.answers[0].record_type() == RecordType::PTR, own, "{question}");
        }
    });
}

#[test]
fn d11_external_names_are_followed_to_other_zones() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let tiers = tiers(&[upstream.address], LIMITS).await;
        let question = "outside.shop.svc.cluster.local A";
        let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
        let lines: Vec<_> = message.answers.iter().map(ToString::to_string).collect();
        let alias = "outside.shop.svc.cluster.local. 5 IN CNAME www.example.org.";
        assert_eq!(lines, [alias, "www.example.org. 60 IN A 192.0.2.1"]);
        assert_eq!(message.queries[0].name.to_string(), "outside.shop.svc.cluster.local.");
    });
}

#[test]
fn d11_a_failure_behind_an_external_name_is_a_failure() {
    run(async {
        let silent = Upstream::start(|_, _| vec![]).await;
        let limits = Limits { deadline: Duration::from_millis(300), ..IMPATIENT };
        let tiers = tiers(&[silent.address], limits).await;
        let message = tiers.ask(&query("outside.shop.svc.cluster.local A"), false).await;
        let message = Message::from_vec(&message).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
        assert!(message.answers.is_empty());
    });
}
