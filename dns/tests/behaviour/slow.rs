//! Clients over TLS and HTTPS that are slow, and servers that end.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_dns::crowd::Bounds;
use fairlead_dns::full::Transfers;
use fairlead_dns::server::Server;
use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};
use http::{Method, StatusCode};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::client::{PATIENCE, Tiers, message, query, read, run, write};
use crate::elsewhere::{LIMITS, found};
use crate::encrypted::{Files, Https, MANY, OWN, ask, connect, large, request, secured, tiers_of, whole};
use crate::fixture::{forwarder, responder, zone};

fn frame(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

#[test]
fn d26_a_client_over_tls_that_does_not_read_is_let_go() {
    run(async {
        let files = Files::new("unread");
        let trusted = files.renew();
        let tiers = tiers_of(responder(zone(), None), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        let asked = frame(&query("many.shop.svc.cluster.local A")).repeat(64);
        let flood = async { while stream.write_all(&asked).await.is_ok() && stream.flush().await.is_ok() {} };
        timeout(PATIENCE, flood).await.expect("the connection ends");
        let mut other = connect(&tiers, &trusted).await.unwrap();
        assert!(ask(&mut other, &query(OWN)).await.is_ok(), "somebody else is answered");
    });
}

#[test]
fn d43_a_client_that_asks_nothing_more_gets_all_of_a_zone_however_long_it_takes() {
    run(async {
        let files = Files::new("paced");
        let trusted = files.renew();
        let tiers = tiers_of(large(), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        stream.write_all(&frame(&query("cluster.local AXFR"))).await.unwrap();
        let begin = Instant::now();
        let (records, messages) = whole(&mut stream, Duration::from_millis(160)).await;
        let took = begin.elapsed();
        assert!(took > Duration::from_secs(10), "longer than an idle connection may be open: {messages} in {took:?}");
        let is_one = |record: &&Record| {
            record.record_type() == RecordType::A && record.name.to_string().starts_with("service-number-")
        };
        assert_eq!(records.iter().filter(is_one).count(), 9_000);
    });
}

#[test]
fn d43_a_zone_that_is_not_taken_in_time_ends_the_connection_over_tls_too() {
    run(async {
        let files = Files::new("late");
        let trusted = files.renew();
        let mut responder = large();
        Arc::get_mut(&mut responder).unwrap().transfers = Transfers::within(Duration::ZERO);
        let tiers = tiers_of(responder, &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        stream.write_all(&frame(&query("cluster.local AXFR"))).await.unwrap();
        let mut first = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(Message::from_vec(&first).unwrap().answers[0].record_type(), RecordType::SOA);
        assert!(timeout(PATIENCE, stream.read_u8()).await.expect("an end").is_err(), "and nothing more");
    });
}

#[test]
fn d26_half_a_request_over_https_holds_no_place_and_ends() {
    run(async {
        let files = Files::new("half");
        let trusted = files.renew();
        let tiers = tiers_of(responder(zone(), None), &files, Bounds { all: 2, each: 2 }).await;
        let mut slow = Https::connect(&tiers, &trusted).await;
        let half = async |slow: &mut Https| {
            slow.requests = slow.requests.clone().ready().await.unwrap();
            let (response, mut body) = slow.requests.send_request(request(Method::POST, "/dns-query"), false).unwrap();
            body.send_data(Bytes::copy_from_slice(&query(OWN)[..9]), false).unwrap();
            (response, body)
        };
        let (response, _body) = half(&mut slow).await;
        let response = timeout(PATIENCE, response).await.expect("an end").unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        // One more half, and others want the place.
        let (response, _body) = half(&mut slow).await;
        let mut first = connect(&tiers, &trusted).await.unwrap();
        assert!(ask(&mut first, &query(OWN)).await.is_ok());
        let mut second = connect(&tiers, &trusted).await.unwrap();
        assert!(ask(&mut second, &query(OWN)).await.is_ok());
        assert!(timeout(PATIENCE, response).await.expect("an end").is_err(), "it has lost its place");
        assert_eq!(tiers.responder.stats.tcp_evicted.get(), 1);
    });
}

/// An upstream server whose answers are late: they come when the server has been told to stop.
struct Late {
    upstream: UdpSocket,
    asked: Vec<(Message, SocketAddr)>,
}

impl Late {
    /// The server of that upstream server.
    async fn tiers(files: &Files) -> (Self, Tiers) {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(&[upstream.local_addr().unwrap()], LIMITS);
        let tiers = tiers_of(responder(zone(), forwarder), files, MANY).await;
        (Self { upstream, asked: vec![] }, tiers)
    }

    /// Waits until so many questions are there.
    async fn is_asked(&mut self, count: usize) {
        let mut buffer = [0; 512];
        while self.asked.len() < count {
            let (length, from) = self.upstream.recv_from(&mut buffer).await.unwrap();
            self.asked.push((Message::from_vec(&buffer[..length]).unwrap(), from));
        }
    }

    async fn answers(&self) {
        for (question, from) in &self.asked {
            self.upstream.send_to(&found(question, "192.0.2.1").to_vec().unwrap(), from).await.unwrap();
        }
    }
}

#[test]
fn a_server_that_stops_answers_what_waits_and_says_goodbye() {
    run(async {
        let files = Files::new("goodbye");
        let trusted = files.renew();
        let (mut late, tiers) = Late::tiers(&files).await;
        let idle = Https::connect(&tiers, &trusted).await;
        let mut https = Https::connect(&tiers, &trusted).await;
        let mut tls = connect(&tiers, &trusted).await.unwrap();
        let mut tcp = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        let slow = ["a.example.org A", "b.example.org A", "c.example.org A"].map(message);
        let bytes: Vec<Vec<u8>> = slow.iter().map(|message| message.to_vec().unwrap()).collect();
        write(&mut tcp, &bytes[0]).await;
        tls.write_all(&frame(&bytes[1])).await.unwrap();
        let Tiers { server, .. } = tiers;
        let over_https = async { https.post(&bytes[2]).await.1 };
        let stopping = async {
            late.is_asked(3).await;
            let stop = tokio::spawn(Server::stop(server));
            // The idle connection has ended because of that.
            timeout(PATIENCE, idle.connection).await.expect("an end").unwrap().expect("a goodbye, and no error");
            late.answers().await;
            timeout(PATIENCE, stop).await.expect("it stops").unwrap();
        };
        let (over_https, ()) = tokio::join!(over_https, stopping);
        let mut over_tls = vec![0; usize::from(tls.read_u16().await.unwrap())];
        tls.read_exact(&mut over_tls).await.unwrap();
        for said in [read(&mut tcp).await, over_tls, over_https] {
            assert_eq!(Message::from_vec(&said).unwrap().answers.len(), 1);
        }
        timeout(PATIENCE, https.connection).await.expect("an end").unwrap().expect("a goodbye, and no error");
        assert!(timeout(PATIENCE, tls.read_u8()).await.expect("an end").is_err());
    });
}

/// Everything that comes until the server ends its side, which it does in order.
async fn until_the_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<Message> {
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    read.expect("an end, and no error");
    let mut rest = &bytes[..];
    while let Some((length, more)) = rest.split_first_chunk() {
        let (message, more) = more.split_at(u16::from_be_bytes(*length).into());
        messages.push(Message::from_vec(message).unwrap());
        rest = more;
    }
    messages
}

#[test]
fn d26_a_client_that_goes_on_asking_a_server_that_stops_reads_the_answers_to_what_it_asked_before() {
    run(async {
        let files = Files::new("goes-on");
        let trusted = files.renew();
        let (mut late, tiers) = Late::tiers(&files).await;
        let address = tiers.server.tcp_addresses()[0];
        let mut idle = (TcpStream::connect(address).await.unwrap(), connect(&tiers, &trusted).await.unwrap());
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let mut tls = connect(&tiers, &trusted).await.unwrap();
        let slow = ["a.example.org A", "b.example.org A"].map(message);
        tcp.write_all(&frame(&slow[0].to_vec().unwrap())).await.unwrap();
        tls.write_all(&frame(&slow[1].to_vec().unwrap())).await.unwrap();
        late.is_asked(2).await;
        let Tiers { server, .. } = tiers;
        let stop = tokio::spawn(Server::stop(server));
        assert_eq!(until_the_end(&mut idle.0).await.len() + until_the_end(&mut idle.1).await.len(), 0);
        // Nobody reads these any more.
        let more = frame(&query(OWN)).repeat(64);
        tcp.write_all(&more).await.unwrap();
        tls.write_all(&more).await.unwrap();
        late.answers().await;
        for (messages, slow) in [(until_the_end(&mut tcp).await, &slow[0]), (until_the_end(&mut tls).await, &slow[1])] {
            let is_it = |message: &&Message| message.metadata.id == slow.metadata.id;
            assert_eq!(messages.iter().find(is_it).expect("the answer has come").answers.len(), 1);
        }
        drop((tcp, tls, idle));
        timeout(PATIENCE, stop).await.expect("it stops").unwrap();
    });
}

#[test]
fn d26_a_client_over_https_that_is_late_reads_the_answers_of_a_server_that_has_stopped_and_a_goodbye() {
    run(async {
        let files = Files::new("behind");
        let trusted = files.renew();
        let (mut late, tiers) = Late::tiers(&files).await;
        let stream = TcpStream::connect(tiers.server.https_address().unwrap()).await.unwrap();
        let socket = stream.as_fd().try_clone_to_owned().unwrap();
        let stream = secured(stream, &trusted, b"h2").await.unwrap();
        let (mut requests, connection) = h2::client::handshake(stream).await.unwrap();
        let mut connection = pin!(connection);
        let (response, mut body) = requests.send_request(request(Method::POST, "/dns-query"), false).unwrap();
        body.send_data(query("a.example.org A").into(), true).unwrap();
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            () = late.is_asked(1) => {}
        }
        // From now on the client does nothing, and the server is done with it.
        let Tiers { server, .. } = tiers;
        let stop = tokio::spawn(Server::stop(server));
        late.answers().await;
        let ends = move || {
            let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLRDHUP, 0)).unwrap();
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::try_from(PATIENCE).unwrap()).unwrap()
        };
        assert_eq!(tokio::task::spawn_blocking(ends).await.unwrap(), 1, "the server ends its side");
        let said = async {
            let mut body = response.await.unwrap().into_body();
            let mut said = Vec::new();
            while let Some(part) = body.data().await {
                said.extend_from_slice(&part.unwrap());
            }
            said
        };
        drop(requests);
        let (ended, said) = tokio::join!(timeout(PATIENCE, connection), said);
        ended.expect("an end").expect("a goodbye, and no error");
        assert_eq!(Message::from_vec(&said).unwrap().answers.len(), 1);
        timeout(PATIENCE, stop).await.expect("it stops").unwrap();
    });
}
