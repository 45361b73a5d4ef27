//! What gets lost between this server and upstream servers, or comes late or cut.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Limits;
use hickory_proto::op::{Message, ResponseCode};
use nix::sys::socket::sockopt::Linger;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::client::{Tiers, query, run, write};
use crate::elsewhere::{IMPATIENT, LIMITS, Upstream, found, response};
use crate::fixture::forwarder_of;
use crate::process::free_address;
use crate::sites::served;
use crate::upstreams::{address, counted, cut_off, fails, keeping, keeping_within, keeps_nothing, signed, udp};

/// The address for those who want signatures, and that for others.
fn by_signatures(question: &Message) -> Vec<u8> {
    let wants = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    found(question, if wants { "192.0.2.1" } else { "192.0.2.0" }).to_vec().unwrap()
}

#[test]
fn d31_signatures_are_asked_for_again_where_a_question_was_lost() {
    run(async {
        let (upstream, count) = counted(|question, number| match number {
            0 => vec![],
            _ => vec![by_signatures(question)],
        })
        .await;
        let tiers = keeping_within(IMPATIENT, &[upstream.address], 30, 0).await;
        // The second time it is kept.
        for _ in 0..2 {
            let said = tiers.udp(&signed("www.example.org A").to_vec().unwrap()).await;
            assert_eq!(address(&Message::from_vec(&said).unwrap()), "192.0.2.1");
        }
        assert_eq!(count.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn d31_what_comes_without_signatures_is_not_kept_for_those_who_want_them() {
    run(async {
        let (upstream, count) = counted(|question, _| match question.edns {
            Some(_) => vec![fails(question, ResponseCode::FormErr)],
            None => vec![by_signatures(question)],
        })
        .await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        // With an OPT record and without; then it is known that the server has none.
        for asked in [2, 3] {
            let said = tiers.udp(&signed("www.example.org A").to_vec().unwrap()).await;
            assert_eq!(address(&Message::from_vec(&said).unwrap()), "192.0.2.0");
            assert_eq!(count.load(Ordering::Relaxed), asked);
        }
        // For others it is all there is.
        for _ in 0..2 {
            assert_eq!(address(&udp(&tiers, "www.example.org A").await), "192.0.2.0");
        }
        assert_eq!(count.load(Ordering::Relaxed), 4);
    });
}

/// An upstream server whose TCP accepts connections, and that is all.
pub(crate) async fn silent_over_tcp() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

#[test]
fn d31_a_server_that_changes_spellings_answers_also_where_nothing_comes_over_tcp() {
    run(async {
        let (socket, _tcp) = silent_over_tcp().await;
        let upstream = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let mut message = found(&Message::from_vec(&buffer[..length]).unwrap(), "192.0.2.1");
                let lower = message.queries[0].name.to_lowercase();
                message.queries[0].set_name(lower);
                socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
            }
        });
        let tiers = keeps_nothing(&[upstream]).await;
        for number in 0..2 {
            let said = udp(&tiers, &format!("n{number}.a-rather-long-name.example.org A")).await;
            assert_eq!(address(&said), "192.0.2.1");
        }
    });
}

#[test]
fn d31_a_server_that_starts_a_moment_later_is_asked_once_more() {
    run(async {
        let upstream = free_address();
        // It is asked once more after some seconds: longer than a busy machine stops.
        let tiers = keeps_nothing(&[upstream]).await;
        let server = &forwarder_of(&tiers.responder).upstreams()[0];
        let starting = async {
            let asked = || server.sockets().iter().map(|count| count.get()).sum::<u64>();
            while asked() == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let socket = UdpSocket::bind(upstream).await.unwrap();
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let message = found(&Message::from_vec(&buffer[..length]).unwrap(), "192.0.2.1");
                socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
            }
        };
        tokio::select! {
            said = udp(&tiers, "www.example.org A") => assert_eq!(address(&said), "192.0.2.1"),
            () = starting => unreachable!(),
        }
    });
}

#[test]
fn d31_it_is_remembered_that_nothing_comes_over_tcp() {
    run(async {
        let (socket, tcp) = silent_over_tcp().await;
        let upstream = socket.local_addr().unwrap();
        tokio::spawn(cut_off(socket));
        let connections = Arc::new(AtomicUsize::new(0));
        let names = Arc::new(Mutex::new(Vec::new()));
        let (counter, asked) = (Arc::clone(&connections), Arc::clone(&names));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        stream.read_exact(&mut question).await.unwrap();
                        let name = Message::from_vec(&question).unwrap().queries[0].name.to_string();
                        asked.lock().unwrap().push(name);
                    }
                });
            }
        });
        let tiers = keeps_nothing(&[upstream]).await;
        let is_cut = async |number: usize| {
            let said = udp(&tiers, &format!("n{number}.example.org A")).await;
            assert!(said.metadata.truncation && address(&said) == "192.0.2.1", "{said}");
        };
        futures::future::join_all((0..3).map(&is_cut)).await;
        let tried = async {
            while connections.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), tried).await.expect("it is asked over TCP");
        // It is forgotten after ten seconds, which a busy machine may take, and then tried again.
        for number in 3..10 {
            is_cut(number).await;
            if !names.lock().unwrap().contains(&format!("n{number}.example.org.")) {
                return;
            }
        }
        panic!("it is asked over TCP each time: {names:?}");
    });
}

#[test]
fn d31_a_failure_that_is_cut_is_not_kept() {
    run(async {
        // No TCP is there.
        let upstream = free_address();
        let socket = UdpSocket::bind(upstream).await.unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let mut message = response(&Message::from_vec(&buffer[..length]).unwrap());
                message.metadata.response_code = ResponseCode::ServFail;
                message.metadata.truncation = true;
                counter.fetch_add(1, Ordering::Relaxed);
                socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
            }
        });
        let tiers = keeping(&[upstream], 30, 0).await;
        for asked in 1..=2 {
            let said = udp(&tiers, "www.example.org A").await;
            assert_eq!(said.metadata.response_code, ResponseCode::ServFail);
            assert_eq!(count.load(Ordering::Relaxed), asked);
        }
    });
}

#[test]
fn d31_nobody_learns_that_signatures_of_a_name_were_checked_that_was_rewritten() {
    run(async {
        let upstream = Upstream::start(|question, _| {
            let mut message = found(question, "192.0.2.1");
            message.metadata.authentic_data = true;
            vec![message.to_vec().unwrap()]
        })
        .await;
        let to = upstream.address;
        let tiers = served(&format!(
            ".:53 {{\nkubernetes cluster.local\nrewrite name old.example.org www.example.org\nforward . {to}\n}}\n"
        ))
        .await;
        for (name, is) in [("www.example.org A", true), ("old.example.org A", false)] {
            let said = Message::from_vec(&tiers.ask(&signed(name).to_vec().unwrap(), false).await).unwrap();
            assert_eq!((address(&said).as_str(), said.metadata.authentic_data), ("192.0.2.1", is), "{name}");
        }
    });
}

#[test]
fn d31_a_server_that_is_slow_and_knows_edns_is_asked_with_it() {
    run(async {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let upstream = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                let name = question.queries[0].name.to_string().to_lowercase();
                seen.lock().unwrap().push((name, question.edns.is_some()));
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    // It is asked again meanwhile, and answers both.
                    tokio::time::sleep(IMPATIENT.patience * 3 / 2).await;
                    socket.send_to(&by_signatures(&question), client).await.unwrap();
                });
            }
        });
        let tiers = keeping_within(IMPATIENT, &[upstream], 30, 0).await;
        for number in 0..3 {
            assert_eq!(address(&udp(&tiers, &format!("n{number}.example.org A")).await), "192.0.2.0");
            // The second answer has come too.
            tokio::time::sleep(IMPATIENT.patience * 2).await;
        }
        let twice = |name: &str| {
            let asked = asked.lock().unwrap();
            let with = |edns| asked.iter().any(|(other, has)| other == name && *has == edns);
            with(true) && with(false)
        };
        assert!((0..3).all(|number| twice(&format!("n{number}.example.org."))), "{asked:?}");
        let said = tiers.udp(&signed("signed.example.org A").to_vec().unwrap()).await;
        assert_eq!(address(&Message::from_vec(&said).unwrap()), "192.0.2.1", "{asked:?}");
    });
}

/// An upstream server that answers each question after 300 ms, and what forwards to it.
async fn unhurried(limits: Limits) -> Tiers {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let upstream = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                socket.send_to(&by_signatures(&question), client).await.unwrap();
            });
        }
    });
    keeping_within(limits, &[upstream], 30, 0).await
}

/// Waits until so many queries were to be asked elsewhere.
async fn forwarded(tiers: &Tiers, count: u64) {
    while tiers.responder.stats.forwarded.get() < count {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn d31_a_client_that_goes_does_not_make_a_server_seem_silent() {
    run(async {
        let tiers = unhurried(LIMITS).await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        for number in 0..4 {
            write(&mut stream, &query(&format!("n{number}.example.org A"))).await;
        }
        forwarded(&tiers, 4).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        // A reset.
        nix::sys::socket::setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(stream);
        let server = &forwarder_of(&tiers.responder).upstreams()[0];
        forwarder_of(&tiers.responder).idle().await;
        assert!(!server.is_down());
    });
}

#[test]
fn d31_a_client_that_asks_too_much_does_not_make_a_server_seem_silent() {
    run(async {
        let tiers = unhurried(Limits { in_flight: Bounds { all: 100, each: 2 }, ..LIMITS }).await;
        let server = &forwarder_of(&tiers.responder).upstreams()[0];
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for number in 0..10 {
            let message = query(&format!("n{number}.example.org A"));
            socket.send_to(&message, tiers.server.udp_addresses()[0]).await.unwrap();
            // It is asked before its place goes to another.
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!server.is_down());
        }
        forwarded(&tiers, 10).await;
        for _ in 0..50 {
            assert!(!server.is_down());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn d31_answers_that_are_late_over_tcp_leave_what_is_cut_to_be_asked_there() {
    run(async {
        let (socket, tcp) = silent_over_tcp().await;
        let upstream = socket.local_addr().unwrap();
        tokio::spawn(cut_off(socket));
        tokio::spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                let (mut reader, writer) = stream.into_split();
                let writer = Arc::new(tokio::sync::Mutex::new(writer));
                tokio::spawn(async move {
                    while let Ok(length) = reader.read_u16().await {
                        let mut question = vec![0; usize::from(length)];
                        reader.read_exact(&mut question).await.unwrap();
                        let question = Message::from_vec(&question).unwrap();
                        let writer = Arc::clone(&writer);
                        tokio::spawn(async move {
                            if question.queries[0].name.to_string().starts_with("slow") {
                                tokio::time::sleep(Duration::from_millis(1500)).await;
                            }
                            let said = found(&question, "192.0.2.2").to_vec().unwrap();
                            let length = u16::try_from(said.len()).unwrap().to_be_bytes();
                            let _gone = writer.lock().await.write_all(&[&length, &said[..]].concat()).await;
                        });
                    }
                });
            }
        });
        let tiers = keeps_nothing(&[upstream]).await;
        let is_whole = async |name: &str| !udp(&tiers, name).await.metadata.truncation;
        let slow = |numbers: std::ops::Range<usize>| numbers.map(|number| format!("slow{number}.example.org A"));
        // One after the other, and side by side.
        for name in slow(0..3) {
            is_whole(&name).await;
        }
        let names: Vec<String> = slow(3..9).collect();
        futures::future::join_all(names.iter().map(|name| is_whole(name))).await;
        // It is waited for a second, which a busy machine may take.
        let mut whole = false;
        for number in 0..3 {
            whole = whole || is_whole(&format!("big{number}.example.org A")).await;
        }
        assert!(whole);
    });
}

#[test]
fn d31_where_tcp_is_not_tried_one_answer_in_another_spelling_proves_nothing() {
    /// Whether a question is spelled at random after that, if it took no longer than is remembered what comes over TCP.
    async fn is_spelled() -> Option<bool> {
        let (socket, _tcp) = silent_over_tcp().await;
        let upstream = socket.local_addr().unwrap();
        let names = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&names);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let mut message = found(&Message::from_vec(&buffer[..length]).unwrap(), "192.0.2.1");
                let name = message.queries[0].name.clone();
                asked.lock().unwrap().push(name.to_string());
                message.metadata.truncation = name.to_string().to_lowercase().starts_with("cut");
                if name.to_string().to_lowercase().starts_with("forged") {
                    message.queries[0].set_name(name.to_lowercase());
                }
                socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
            }
        });
        let tiers = keeps_nothing(&[upstream]).await;
        for number in 0..3 {
            assert!(udp(&tiers, &format!("cut{number}.example.org A")).await.metadata.truncation);
        }
        let begin = Instant::now();
        assert_eq!(address(&udp(&tiers, "forged.a-rather-long-name.example.org A").await), "192.0.2.1");
        let took = begin.elapsed();
        assert_eq!(address(&udp(&tiers, "www.a-rather-long-name.example.org A").await), "192.0.2.1");
        let names = names.lock().unwrap();
        let last = names.last().unwrap();
        // Where it was tried over TCP, that took a second.
        (took < Duration::from_millis(900)).then(|| *last != last.to_lowercase())
    }
    run(async {
        for _ in 0..3 {
            if let Some(is_spelled) = is_spelled().await {
                assert!(is_spelled);
                return;
            }
        }
        panic!("it is tried over TCP each time");
    });
}
