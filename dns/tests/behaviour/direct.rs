//! Questions over UDP that no task waits for, and what becomes of them when their answer is late, missing or odd.

use std::sync::atomic::Ordering;
use std::time::Duration;

use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Limits;
use hickory_proto::op::{Message, ResponseCode};
use tokio::net::UdpSocket;

use crate::client::{Tiers, query, run};
use crate::elsewhere::{IMPATIENT, LIMITS, Upstream, found};
use crate::fixture::{forwarder, forwarder_of, responder, zone};
use crate::upstreams::{address, counted, fails, udp};

/// An upstream server whose answers are given by hand.
async fn by_hand(limits: Limits) -> (UdpSocket, Tiers) {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let tiers = Tiers::start(responder(zone(), forwarder(&[upstream.local_addr().unwrap()], limits))).await;
    (upstream, tiers)
}

/// The next question, and whose it is.
async fn asked(upstream: &UdpSocket) -> (Message, std::net::SocketAddr) {
    let mut buffer = [0; 512];
    let (length, from) = upstream.recv_from(&mut buffer).await.unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), from)
}

#[test]
fn d31_an_answer_that_comes_after_a_second_question_still_counts() {
    run(async {
        let (upstream, tiers) = by_hand(IMPATIENT).await;
        let asking = udp(&tiers, "www.example.org A");
        let answering = async {
            let (first, from) = asked(&upstream).await;
            let (second, _) = asked(&upstream).await;
            assert!(first.edns.is_some() && second.edns.is_none(), "the server may drop what has an OPT record");
            upstream.send_to(&found(&first, "192.0.2.1").to_vec().unwrap(), from).await.unwrap();
        };
        let (message, ()) = tokio::join!(asking, answering);
        assert_eq!(address(&message), "192.0.2.1");
    });
}

#[test]
fn d31_equal_questions_over_udp_and_tcp_are_asked_once() {
    run(async {
        let (upstream, tiers) = by_hand(LIMITS).await;
        let question = query("www.example.org A");
        let ask = async |tcp: bool| {
            let said = if tcp { tiers.tcp(&question).await } else { tiers.udp(&question).await };
            address(&Message::from_vec(&said).unwrap())
        };
        let answering = async {
            let (first, from) = asked(&upstream).await;
            // All of them are there before it is answered.
            while tiers.responder.stats.forwarded.get() < 4 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            upstream.send_to(&found(&first, "192.0.2.1").to_vec().unwrap(), from).await.unwrap();
        };
        let (one, two, three, four, ()) = tokio::join!(ask(false), ask(true), ask(false), ask(true), answering);
        assert_eq!([one, two, three, four], ["192.0.2.1"; 4]);
        assert!(upstream.try_recv_from(&mut [0; 512]).is_err(), "nobody has asked again");
    });
}

#[test]
fn d31_who_asks_much_in_vain_is_refused_and_may_ask_again() {
    run(async {
        // Names below `dead` are never answered.
        let upstream = Upstream::start(|question, _| {
            let dead = question.queries[0].name.to_string().to_lowercase().contains("dead");
            if dead { vec![] } else { vec![found(question, "192.0.2.1").to_vec().unwrap()] }
        })
        .await;
        let limits = Limits { in_flight: Bounds { all: 20, each: 10 }, deadline: Duration::from_secs(2), ..IMPATIENT };
        let tiers = Tiers::start(responder(zone(), forwarder(&[upstream.address], limits))).await;
        let dead: Vec<String> = (0..40).map(|number| format!("n{number}.dead.example.org A")).collect();
        let floods = futures::future::join_all(dead.iter().map(|question| udp(&tiers, question))).await;
        // Those that lost their place are refused, and nobody waits for ever.
        let codes = |code| floods.iter().filter(|message| message.metadata.response_code == code).count();
        assert_eq!(codes(ResponseCode::ServFail) + codes(ResponseCode::Refused), 40);
        forwarder_of(&tiers.responder).idle().await;
        assert_eq!(address(&udp(&tiers, "www.example.org A").await), "192.0.2.1");
    });
}

#[test]
fn d31_servers_that_are_replaced_leave_nobody_without_an_answer() {
    run(async {
        let (upstream, tiers) = by_hand(IMPATIENT).await;
        let other = Upstream::of("192.0.2.2").await;
        let replacing = async {
            let _question = asked(&upstream).await;
            forwarder_of(&tiers.responder).set_upstreams(&[other.address.into()]);
        };
        let (message, ()) = tokio::join!(udp(&tiers, "www.example.org A"), replacing);
        assert_eq!(address(&message), "192.0.2.2");
    });
}

#[test]
fn d31_a_server_where_nothing_listens_is_asked_twice_and_the_next_answers_at_once() {
    run(async {
        let (upstream, count) = counted(|question, number| match number {
            0 => vec![fails(question, ResponseCode::ServFail)],
            _ => vec![found(question, "192.0.2.1").to_vec().unwrap()],
        })
        .await;
        let nobody = crate::process::free_address();
        let tiers = Tiers::start(responder(zone(), forwarder(&[nobody, upstream.address], LIMITS))).await;
        // The second fails once, and the first has nothing to say.
        assert_eq!(udp(&tiers, "one.example.org A").await.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(address(&udp(&tiers, "two.example.org A").await), "192.0.2.1");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    });
}
