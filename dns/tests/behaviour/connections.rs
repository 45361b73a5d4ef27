//! TCP: many connections, slow ones, and clients that take more than their share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fairlead_dns::WireName;
use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::{Limits, Question, Wants};
use fairlead_dns::wire::RecordType;
use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::client::{PATIENCE, Tiers, message, query, read, run, write};
use crate::elsewhere::{LIMITS, Upstream};
use crate::fixture::{forwarder, responder, zone};

const OWN: &str = "web.shop.svc.cluster.local A";

/// Connects as the client with this address.
async fn connect(server: SocketAddr, client: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(client), 0).into()).unwrap();
    socket.connect(server).await.unwrap()
}

async fn is_open(stream: &mut TcpStream) -> bool {
    stream.write_all(&[&(query(OWN).len() as u16).to_be_bytes(), &query(OWN)[..]].concat()).await.is_ok()
        && matches!(timeout(PATIENCE, stream.read_u16()).await, Ok(Ok(length)) if {
            let mut rest = vec![0; usize::from(length)];
            stream.read_exact(&mut rest).await.is_ok()
        })
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, stream.read_u8()).await, Ok(Err(_)))
}

/// Waits until the server has seen so many connections.
async fn accepted(tiers: &Tiers, count: u64) {
    let seen = async {
        while tiers.responder.stats.tcp_connections.get() + tiers.responder.stats.tcp_refused.get() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, seen).await.expect("the server accepts connections");
}

async fn limited(all: usize, each: usize) -> Tiers {
    Tiers::limited(responder(zone(), None), "127.0.0.1:0", Bounds { all, each }).await
}

#[test]
fn d26_half_messages_on_2500_connections_take_little_memory() {
    // Other tests take memory too, so this one has a process to itself.
    const ALONE: &str = "FAIRLEAD_DNS_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "connections::d26_half_messages_on_2500_connections_take_little_memory";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let said = command.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        // Not as lines of this process' own tests.
        let text = text.replace('\n', "\n    ");
        assert!(said.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let _limit = fairlead_dns::descriptors::raise();
    run(async {
        let tiers = limited(4000, 4000).await;
        let server = tiers.server.tcp_addresses()[0];
        let before = resident();
        let mut streams = Vec::new();
        for number in 0..2500_u32 {
            let mut stream = connect(server, [127, 0, 1, (number % 250) as u8]).await;
            // A length that promises the longest message, and half of a query.
            let query = query(OWN);
            stream.write_all(&[&[0x0f, 0xff], &query[..query.len() / 2]].concat()).await.unwrap();
            streams.push(stream);
        }
        accepted(&tiers, 2500).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 24 << 20, "{} MiB for 2500 connections, this test's own ends included", grown >> 20);
        assert!(is_open(&mut connect(server, [127, 0, 2, 1]).await).await, "somebody else is answered");
    });
}

/// This process' memory, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn d26_the_client_with_the_most_connections_loses_its_oldest_idle_one() {
    run(async {
        let tiers = limited(20, 12).await;
        let server = tiers.server.tcp_addresses()[0];
        let mut quiet = connect(server, [127, 0, 0, 3]).await;
        assert!(is_open(&mut quiet).await);
        let mut loud = Vec::new();
        for number in 1..=15 {
            loud.push(connect(server, [127, 0, 0, 2]).await);
            accepted(&tiers, 1 + number).await;
        }
        for stream in &mut loud[..3] {
            assert!(is_closed(stream).await, "a client has its bound, and its oldest connections go");
        }
        // Twelve of the loud one, one of the quiet one, and others come.
        let mut others = Vec::new();
        for number in 0..10_u8 {
            others.push(connect(server, [127, 0, 1, number]).await);
            accepted(&tiers, 17 + u64::from(number)).await;
        }
        assert!(is_open(&mut quiet).await);
        for other in &mut others {
            assert!(is_open(other).await);
        }
        for stream in &mut loud[3..6] {
            assert!(is_closed(stream).await);
        }
        assert!(is_open(&mut loud[14]).await);
        assert_eq!(tiers.responder.stats.tcp_evicted.get(), 6);
    });
}

#[test]
fn d26_queries_of_one_connection_are_answered_as_they_get_ready() {
    run(async {
        let upstream = Upstream::start(|_, _| vec![]).await;
        let forwarder = forwarder(&[upstream.address], Limits::default());
        let tiers = Tiers::start(responder(zone(), forwarder)).await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        write(&mut stream, &query("never.example.org A")).await;
        write(&mut stream, &query(OWN)).await;
        let first = timeout(PATIENCE, read(&mut stream)).await.unwrap();
        assert_eq!(Message::from_vec(&first).unwrap().metadata.id, message(OWN).metadata.id);
        // The other one is answered when nobody is waited for any more.
        let second = timeout(PATIENCE, read(&mut stream)).await.unwrap();
        assert_eq!(Message::from_vec(&second).unwrap().metadata.id, message("never.example.org A").metadata.id);
    });
}

#[test]
fn d26_a_client_that_does_not_read_is_let_go() {
    run(async {
        let tiers = limited(10, 10).await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        let question = query("many.shop.svc.cluster.local A");
        let frame = [&(question.len() as u16).to_be_bytes(), &question[..]].concat();
        let flood = async {
            loop {
                if stream.write_all(&frame.repeat(64)).await.is_err() {
                    break;
                }
            }
        };
        timeout(PATIENCE, flood).await.expect("the connection ends");
    });
}

#[test]
fn d26_waiting_questions_of_one_client_do_not_refuse_those_of_another() {
    run(async {
        // Names below `dead` are never answered.
        let upstream = Upstream::start(|question, _| {
            let dead = question.queries[0].name.to_string().contains("dead");
            if dead { vec![] } else { vec![crate::elsewhere::found(question, "192.0.2.1").to_vec().unwrap()] }
        })
        .await;
        let limits = Limits { in_flight: Bounds { all: 60, each: 40 }, ..LIMITS };
        let forwarder = forwarder(&[upstream.address], limits).unwrap();
        let ask = async |name: String, client: [u8; 4]| {
            let name = WireName::parse(&name).unwrap();
            let question = Question::new(name.as_wire(), RecordType::A, Wants::default());
            forwarder.ask(&question, IpAddr::from(client)).await
        };
        let flood = async |client: u8| {
            for round in 0.. {
                let one = |number| ask(format!("n{round}-{number}-{client}.dead.example.org."), [10, 0, 0, client]);
                futures::future::join_all((0..250).map(one)).await;
            }
        };
        let others = async {
            for number in 0..20 {
                // The quiet client, and the flooding one itself.
                for client in [[10, 0, 0, 9], [10, 0, 0, 1]] {
                    let answer = ask(format!("n{number}.example.org."), client).await;
                    assert!(answer.is_ok(), "{client:?}: {:?}", answer.err());
                }
            }
        };
        let floods = futures::future::join(flood(1), flood(2));
        // The floods come first, and go on while the others ask.
        tokio::select! {
            biased;
            _ = floods => unreachable!("floods go on"),
            () = others => {}
        }
    });
}
