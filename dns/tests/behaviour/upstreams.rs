//! Upstream servers that misbehave, and what is kept of those that don't.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_dns::WireName;
use fairlead_dns::counter::Counter;
use fairlead_dns::forward::tls::Trust;
use fairlead_dns::forward::{Config, Forwarder, Limits, Over, Policy, Rules, Server, Upstream as To};
use fairlead_dns::site::Site;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::client::{Tiers, message, query, run};
use crate::elsewhere::{IMPATIENT, LIMITS, Upstream, found, response};
use crate::fixture::{forwarder, forwarder_of, origin, responder, zone};
use crate::lossy::silent_over_tcp;
use crate::process::free_address;

/// Servers that are asked over UDP.
pub(crate) fn all(addresses: &[SocketAddr]) -> Vec<To> {
    addresses.iter().map(|address| To::from(*address)).collect()
}

/// A server that forwards there and keeps answers for at most so many seconds.
pub(crate) async fn keeping(upstreams: &[SocketAddr], ttl: u32, stale: u32) -> Tiers {
    keeping_within(LIMITS, upstreams, ttl, stale).await
}

/// The same with other limits.
pub(crate) async fn keeping_within(limits: Limits, upstreams: &[SocketAddr], ttl: u32, stale: u32) -> Tiers {
    let rules = Rules { ttl, stale, ..Rules::default() };
    let config = Config { upstreams: all(upstreams), limits, rules, ..Config::default() };
    Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await
}

pub(crate) async fn keeps_nothing(upstreams: &[SocketAddr]) -> Tiers {
    Tiers::start(responder(zone(), forwarder(upstreams, LIMITS))).await
}

pub(crate) async fn udp(tiers: &Tiers, question: &str) -> Message {
    Message::from_vec(&tiers.udp(&query(question)).await).unwrap()
}

pub(crate) fn address(message: &Message) -> String {
    message.answers.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(",")
}

/// A question of a client that checks signatures itself.
pub(crate) fn signed(question: &str) -> Message {
    let mut message = message(question);
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

/// An upstream server that counts its questions.
pub(crate) async fn counted(
    script: impl Fn(&Message, usize) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> (Upstream, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let upstream = Upstream::start(move |question, _| script(question, counter.fetch_add(1, Ordering::Relaxed))).await;
    (upstream, count)
}

/// Questions that were sent to an upstream server.
fn sent(server: &Server) -> u64 {
    server.sockets().map(Counter::get).iter().sum()
}

pub(crate) fn fails(question: &Message, code: ResponseCode) -> Vec<u8> {
    let mut message = response(question);
    message.metadata.response_code = code;
    message.to_vec().unwrap()
}

#[test]
fn d31_a_server_that_says_it_can_not_is_not_asked_again() {
    run(async {
        for code in [ResponseCode::ServFail, ResponseCode::Refused] {
            let (upstream, count) = counted(move |question, _| vec![fails(question, code)]).await;
            let tiers = keeps_nothing(&[upstream.address]).await;
            assert_eq!(udp(&tiers, "www.example.org A").await.metadata.response_code, code);
            assert_eq!(count.load(Ordering::Relaxed), 1);
        }
    });
}

#[test]
fn d31_two_servers_that_forward_to_each_other_end_in_an_error_and_find_the_loop() {
    run(async {
        let (nowhere, _) = counted(|question, _| vec![found(question, "192.0.2.1").to_vec().unwrap()]).await;
        // Longer than a busy machine stops: who answers is asked once.
        let limits = Limits { patience: Duration::from_secs(4), ..LIMITS };
        let one = Tiers::start(responder(zone(), forwarder(&[nowhere.address], limits))).await;
        let other = keeps_nothing(&one.server.udp_addresses()[..1]).await;
        let forwarder = |tiers: &Tiers| forwarder_of(&tiers.responder);
        forwarder(&one).set_upstreams(&[other.server.udp_addresses()[0].into(), nowhere.address.into()]);
        // It goes round until it meets itself, and then the one that does not lead back answers.
        assert_eq!(address(&udp(&one, "www.example.org A").await), "192.0.2.1");
        let asked = |tiers: &Tiers| tiers.responder.stats.forwarded.get();
        assert!(asked(&one) + asked(&other) <= 6, "{} and {}", asked(&one), asked(&other));
        let servers = forwarder(&one).upstreams();
        // A probe that comes back late proves nothing.
        for _ in 0..10 {
            for server in servers.iter() {
                forwarder(&one).probe(server, &WireName::default()).await;
            }
            if servers[0].is_loop() {
                break;
            }
        }
        assert_eq!([servers[0].is_loop(), servers[1].is_loop()], [true, false]);
        let before = sent(&servers[0]);
        assert_eq!(address(&udp(&one, "www.example.com A").await), "192.0.2.1");
        assert_eq!(sent(&servers[0]), before, "a server that leads back is not asked");
        // It leads back no longer.
        forwarder(&other).set_upstreams(&[nowhere.address.into()]);
        forwarder(&one).probe(&servers[0], &WireName::default()).await;
        assert!(!servers[0].is_loop());
    });
}

#[test]
fn d31_addresses_of_the_dns_service_are_loops() {
    run(async {
        let upstreams = ["10.96.0.10:53", "10.96.0.1:53", "192.0.2.1:53", "127.0.0.1:53"];
        let upstreams = upstreams.map(|text| text.parse().unwrap());
        let tiers = keeps_nothing(&upstreams).await;
        let forwarder = forwarder_of(&tiers.responder);
        forwarder.compare_addresses(&tiers.responder.zone, &["0.0.0.0:53".parse().unwrap()], &[]);
        let loops: Vec<bool> = forwarder.upstreams().iter().map(|server| server.is_loop()).collect();
        assert_eq!(loops, [true, false, false, true]);
    });
}

#[test]
fn d31_long_datagrams_of_servers_that_ignore_edns_are_read() {
    run(async {
        let upstream = Upstream::start(|question, tcp| {
            assert!(!tcp, "nothing was cut");
            let mut message = found(question, "192.0.2.1");
            for n in 0..200 {
                message.answers.extend(found(question, &format!("198.51.100.{n}")).answers);
            }
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = keeps_nothing(&[upstream.address]).await;
        let message = Message::from_vec(&tiers.tcp(&query("www.example.org A")).await).unwrap();
        assert_eq!(message.answers.len(), 201);
    });
}

/// A server whose answers say that there is more.
pub(crate) async fn cut_off(socket: UdpSocket) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let mut message = found(&Message::from_vec(&buffer[..length]).unwrap(), "192.0.2.1");
        message.metadata.truncation = true;
        socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
    }
}

#[test]
fn d31_what_is_cut_is_kept_when_there_is_no_tcp() {
    run(async {
        let upstream = free_address();
        tokio::spawn(cut_off(UdpSocket::bind(upstream).await.unwrap()));
        let message = udp(&keeps_nothing(&[upstream]).await, "www.example.org A").await;
        assert!(message.metadata.truncation);
        assert_eq!(address(&message), "192.0.2.1");
    });
}

#[test]
fn d31_what_is_cut_is_kept_when_nothing_comes_over_tcp() {
    run(async {
        let (socket, tcp) = silent_over_tcp().await;
        let upstream = socket.local_addr().unwrap();
        tokio::spawn(cut_off(socket));
        let asking = tokio::spawn(async move { udp(&keeps_nothing(&[upstream]).await, "www.example.org A").await });
        // It accepts a connection, and that is all.
        let _silent = tcp.accept().await.unwrap();
        let message = asking.await.unwrap();
        assert_eq!((message.metadata.response_code, message.metadata.truncation), (ResponseCode::NoError, true));
        assert_eq!(address(&message), "192.0.2.1");
    });
}

#[test]
fn d31_clients_that_know_the_bit_learn_whether_signatures_were_checked() {
    run(async {
        // A server that checks signatures says so to whoever asks for it (RFC 6840 section 5.7).
        let (upstream, count) = counted(|question, _| {
            let mut message = found(question, "192.0.2.1");
            message.metadata.authentic_data = question.metadata.authentic_data;
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        let signed = signed("www.example.org A");
        let mut knows = message("www.example.org A");
        knows.metadata.authentic_data = true;
        // The second time it is kept.
        for _ in 0..2 {
            for (asked, wanted) in
                [(message("www.example.org A"), false), (knows.clone(), true), (signed.clone(), true)]
            {
                let said = Message::from_vec(&tiers.ask(&asked.to_vec().unwrap(), false).await).unwrap();
                assert_eq!(said.metadata.authentic_data, wanted, "{asked}");
            }
        }
        assert_eq!(count.load(Ordering::Relaxed), 2, "only signatures are a different question");
    });
}

#[test]
fn d31_servers_without_edns_are_asked_without() {
    run(async {
        for code in [Some(ResponseCode::FormErr), Some(ResponseCode::NotImp), None] {
            let with_edns = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&with_edns);
            let upstream = Upstream::start(move |question, _| {
                if question.edns.is_none() {
                    return vec![found(question, "192.0.2.1").to_vec().unwrap()];
                }
                counter.fetch_add(1, Ordering::Relaxed);
                code.map(|code| fails(question, code)).into_iter().collect()
            })
            .await;
            let tiers = Tiers::start(responder(zone(), forwarder(&[upstream.address], IMPATIENT))).await;
            for number in 0..4 {
                assert_eq!(address(&udp(&tiers, &format!("n{number}.example.org A")).await), "192.0.2.1");
            }
            // It is remembered: after the first that said so, after the third that was silent.
            let before = with_edns.load(Ordering::Relaxed);
            assert_eq!(address(&udp(&tiers, "last.example.org A").await), "192.0.2.1");
            assert!(before > 0, "{code:?}");
            assert_eq!(with_edns.load(Ordering::Relaxed), before, "{code:?}");
        }
    });
}

#[test]
fn d31_a_server_that_is_silent_is_asked_last() {
    run(async {
        let silent = Upstream::start(|_, _| vec![]).await;
        let good = Upstream::of("192.0.2.1").await;
        let upstreams = [silent.address, good.address];
        let tiers = Tiers::start(responder(zone(), forwarder(&upstreams, IMPATIENT))).await;
        for number in 0..3 {
            assert_eq!(address(&udp(&tiers, &format!("n{number}.example.org A")).await), "192.0.2.1");
        }
        let servers = forwarder_of(&tiers.responder).upstreams();
        assert_eq!([servers[0].is_down(), servers[1].is_down()], [true, false]);
        let before = sent(&servers[0]);
        for number in 0..10 {
            assert_eq!(address(&udp(&tiers, &format!("last{number}.example.org A")).await), "192.0.2.1");
        }
        // Nobody waits for it any more. Where the good one is late it is asked too.
        let more = sent(&servers[0]) - before;
        assert!(more <= 4, "{more} of 10");
    });
}

#[test]
fn d31_equal_questions_are_asked_once() {
    run(async {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tiers = keeps_nothing(&[upstream.local_addr().unwrap()]).await;
        let asking = futures::future::join_all((0..20).map(|_| udp(&tiers, "www.example.org A")));
        let asked = AtomicUsize::new(0);
        let answering = async {
            let mut buffer = [0; 512];
            loop {
                let (length, client) = upstream.recv_from(&mut buffer).await.unwrap();
                asked.fetch_add(1, Ordering::Relaxed);
                // All of them wait.
                while tiers.responder.stats.forwarded.get() < 20 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                let message = found(&Message::from_vec(&buffer[..length]).unwrap(), "192.0.2.1");
                upstream.send_to(&message.to_vec().unwrap(), client).await.unwrap();
            }
        };
        let answers = tokio::select! {
            answers = asking => answers,
            () = answering => unreachable!(),
        };
        assert!(answers.iter().all(|message| address(message) == "192.0.2.1"), "{answers:?}");
        // Again by whoever is counted and comes to ask when the first have their answer.
        assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?}");
    });
}

#[test]
fn d31_spellings_are_random_and_ports_change() {
    run(async {
        let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        let names = Arc::clone(&seen);
        let (upstream, _) = counted(move |question, _| {
            names.lock().unwrap().insert(question.queries[0].name.to_string());
            vec![found(question, "192.0.2.1").to_vec().unwrap()]
        })
        .await;
        let tiers = keeps_nothing(&[upstream.address]).await;
        for _ in 0..20 {
            udp(&tiers, "www.example.org A").await;
        }
        assert!(seen.lock().unwrap().len() > 15, "{:?}", seen.lock().unwrap());
        let servers = forwarder_of(&tiers.responder).upstreams();
        let [reused, opened] = servers[0].sockets().map(Counter::get);
        assert!((2..=8).contains(&opened) && reused + opened == 20, "{reused} {opened}");
    });
}

#[test]
fn d31_over_tcp_only_where_that_is_wanted() {
    run(async {
        let upstream = Upstream::start(|question, tcp| {
            vec![found(question, if tcp { "192.0.2.1" } else { "192.0.2.2" }).to_vec().unwrap()]
        })
        .await;
        let (upstreams, limits) = (vec![To { address: upstream.address, over: Over::Tcp }], LIMITS);
        let config = Config { upstreams, limits, policy: Policy::Fastest, ..Config::default() };
        let tiers = Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await;
        for number in 0..5 {
            assert_eq!(address(&udp(&tiers, &format!("n{number}.example.org A")).await), "192.0.2.1");
        }
    });
}

#[test]
fn d31_kept_answers_are_the_same_in_every_tier_and_ask_nobody() {
    run(async {
        let (upstream, count) = counted(|question, _| {
            let mut message = found(question, "192.0.2.1");
            message.answers.extend(found(question, "192.0.2.2").answers);
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = keeping(&[upstream.address], 3600, 0).await;
        for question in ["www.example.org A", "WWW.example.org A"] {
            let answer = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
            assert_eq!(answer.answers.len(), 2);
            assert!(answer.answers.iter().all(|record| (30..=60).contains(&record.ttl)));
            assert_eq!(answer.queries[0].name.to_string(), question.replace(" A", "."));
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(tiers.responder.stats.cached.get() >= 2, "they are answered on the short way");
        let forwarder = forwarder_of(&tiers.responder);
        let counts = &forwarder.cache().counts;
        assert_eq!((counts.misses.get(), counts.hits.get()), (1, 7));
        // Other data may be wanted.
        tiers.udp(&signed("www.example.org A").to_vec().unwrap()).await;
        assert_eq!(count.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn d31_ttls_are_capped_and_count_down() {
    run(async {
        let (upstream, count) = counted(|question, _| vec![found(question, "192.0.2.1").to_vec().unwrap()]).await;
        let second = Duration::from_millis(1050);
        let tiers = keeping(&[upstream.address], 30, 0).await;
        assert_eq!(udp(&tiers, "www.example.org A").await.answers[0].ttl, 30);
        tokio::time::sleep(second).await;
        assert!((1..30).contains(&udp(&tiers, "www.example.org A").await.answers[0].ttl));
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // And then it goes.
        let tiers = keeping(&[upstream.address], 1, 0).await;
        for asked in [2, 3] {
            assert_eq!(udp(&tiers, "www.example.org A").await.answers[0].ttl, 1);
            assert_eq!(count.load(Ordering::Relaxed), asked);
            tokio::time::sleep(second).await;
        }
    });
}

#[test]
fn d31_denials_and_failures_are_kept() {
    run(async {
        let (upstream, count) = counted(|question, _| {
            let name = question.queries[0].name.to_string().to_lowercase();
            if name.starts_with("fail") {
                return vec![fails(question, ResponseCode::ServFail)];
            }
            let mut message = response(question);
            message.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(Name::root(), Name::root(), 1, 2, 3, 4, 5);
            message.add_authority(Record::from_rdata(Name::from_ascii("example.org.").unwrap(), 60, RData::SOA(soa)));
            vec![message.to_vec().unwrap()]
        })
        .await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        for (name, code) in [("no", ResponseCode::NXDomain), ("fail", ResponseCode::ServFail)] {
            for number in 0.. {
                let (before, begin) = (count.load(Ordering::Relaxed), Instant::now());
                for _ in 0..3 {
                    let message = udp(&tiers, &format!("{name}{number}.example.org A")).await;
                    assert_eq!(message.metadata.response_code, code);
                    assert_eq!(message.authorities.len(), usize::from(code == ResponseCode::NXDomain));
                }
                let asked = count.load(Ordering::Relaxed) - before;
                // Either is kept for five seconds. A busy machine may take longer, and has to try again.
                if begin.elapsed() < Duration::from_secs(5) {
                    assert_eq!(asked, 1, "{name}");
                    break;
                }
            }
        }
    });
}

#[test]
fn d31_old_answers_are_given_while_nobody_answers() {
    run(async {
        let dead = Arc::new(AtomicBool::new(false));
        let is_dead = Arc::clone(&dead);
        let (upstream, _) = counted(move |question, _| {
            if is_dead.load(Ordering::Relaxed) { vec![] } else { vec![found(question, "192.0.2.1").to_vec().unwrap()] }
        })
        .await;
        let limits = Limits { deadline: Duration::from_millis(600), ..IMPATIENT };
        let tiers = keeping_within(limits, &[upstream.address], 1, 60).await;
        // A busy machine may take longer than that for an answer.
        let known = async {
            while address(&udp(&tiers, "www.example.org A").await) != "192.0.2.1" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), known).await.expect("an answer");
        dead.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1050)).await;
        let before = tiers.responder.stats.forwarded.get();
        for _ in 0..10 {
            assert_eq!(address(&udp(&tiers, "www.example.org A").await), "192.0.2.1");
        }
        // The first waits for the server, and then nobody does for some seconds.
        let waited = tiers.responder.stats.forwarded.get() - before;
        assert!((1..5).contains(&waited), "{waited} of 10");
        assert_eq!(forwarder_of(&tiers.responder).cache().counts.stale.get(), 10);
        // What was never known is still an error.
        assert_eq!(udp(&tiers, "new.example.org A").await.metadata.response_code, ResponseCode::ServFail);
    });
}

#[test]
fn d31_stub_domains_have_servers_of_their_own() {
    run(async {
        let other = Upstream::of("192.0.2.1").await;
        let corp = Upstream::of("192.0.2.2").await;
        let lab = Upstream::of("192.0.2.3").await;
        let domain = |text| WireName::parse(text).unwrap();
        let stubs = vec![
            (domain("corp.example"), vec![corp.address.into()]),
            (domain("lab.corp.example"), vec![lab.address.into()]),
        ];
        let (upstreams, limits) = (vec![other.address.into()], LIMITS);
        let config = Config { upstreams, stubs: stubs.clone(), limits, ..Config::default() };
        let tiers = Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await;
        for (question, answer) in [
            ("www.corp.example A", "192.0.2.2"),
            ("CORP.example A", "192.0.2.2"),
            ("a.lab.corp.example A", "192.0.2.3"),
            ("mycorp.example A", "192.0.2.1"),
            ("www.example.org A", "192.0.2.1"),
            ("web4.shop.svc.cluster.local A", "10.96.0.4"),
        ] {
            assert_eq!(address(&udp(&tiers, question).await), answer, "{question}");
        }
        // Without servers for everything else that is refused.
        let config = Config { stubs, limits, ..Config::default() };
        let tiers = Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await;
        assert_eq!(address(&udp(&tiers, "www.corp.example A").await), "192.0.2.2");
        assert_eq!(udp(&tiers, "www.example.org A").await.metadata.response_code, ResponseCode::Refused);
    });
}

#[test]
fn d31_fixed_addresses_come_before_what_others_say() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        // It is kept before the name gets a fixed address.
        assert_eq!(address(&udp(&tiers, "host.minikube.internal A").await), "192.0.2.1");
        let hosts = fairlead_dns::hosts::Hosts::parse("192.168.65.254 host.minikube.internal").unwrap();
        let forwarder = forwarder_of(&tiers.responder);
        tiers.responder.set_site(Site::plain(&origin(), Some(forwarder), hosts));
        for (question, answer) in [
            ("Host.minikube.internal A", "192.168.65.254"),
            ("host.minikube.internal AAAA", ""),
            ("254.65.168.192.in-addr.arpa PTR", "host.minikube.internal."),
            ("x.minikube.internal A", "192.0.2.1"),
        ] {
            let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
            assert_eq!(message.metadata.response_code, ResponseCode::NoError, "{question}");
            assert_eq!(address(&message), answer, "{question}");
        }
    });
}

/// An upstream server over TLS whose certificate has this name; the certificate in PEM.
pub(crate) async fn over_tls(name: &str, answer: &'static str) -> (SocketAddr, String) {
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; usize::from(length)];
                    stream.read_exact(&mut question).await.unwrap();
                    let answer = found(&Message::from_vec(&question).unwrap(), answer).to_vec().unwrap();
                    stream.write_all(&[&(answer.len() as u16).to_be_bytes(), &answer[..]].concat()).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    (address, cert.pem())
}

#[test]
fn d31_servers_over_tls_prove_who_they_are() {
    run(async {
        let (upstream, certificate) = over_tls("dns.example", "192.0.2.1").await;
        let file = Path::new("ca.pem");
        let tiers = async |name: &str, limits: Limits| {
            let over = Over::Tls(Trust::new(Some((file, &certificate))).unwrap().server(name).unwrap());
            let config = Config { upstreams: vec![To { address: upstream, over }], limits, ..Config::default() };
            Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await
        };
        let good = tiers("dns.example", LIMITS).await;
        for number in 0..3 {
            assert_eq!(address(&udp(&good, &format!("n{number}.example.org A")).await), "192.0.2.1");
        }
        let other = tiers("other.example", IMPATIENT).await;
        assert_eq!(udp(&other, "www.example.org A").await.metadata.response_code, ResponseCode::ServFail);
        assert!(Trust::new(Some((file, ""))).map(drop).unwrap_err().to_string().contains("ca.pem"));
        assert!(Trust::new(Some((file, &certificate))).unwrap().server("no name").is_err());
    });
}
