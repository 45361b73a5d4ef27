//! What every response has in common, and what becomes of queries that are not as they should be.

use fairlead_dns::forward::Limits;
use fairlead_dns::full::Outcome;
use fairlead_dns::manner::Transport;
use fairlead_dns::{Builder, Zone};
use fairlead_objects::{Event, Kind, Object, Protocol};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, RData};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{PATIENCE, Tiers, exchange, message, query, read, run, write};
use crate::fixture::{Port, cluster, endpoint, forwarder, namespace, origin, responder, service, slice, zone, zone_of};

/// Sends bytes over UDP and TCP, which say the same, and reads the response.
async fn reply(tiers: &Tiers, bytes: &[u8]) -> Message {
    let udp = tiers.udp(bytes).await;
    assert_eq!(udp, tiers.tcp(bytes).await);
    Message::from_vec(&udp).unwrap()
}

async fn tiers() -> Tiers {
    Tiers::start(responder(zone(), None)).await
}

#[test]
fn d19_negative_answers_carry_the_soa() {
    run(async {
        let tiers = tiers().await;
        let serial = tiers.responder.zone.read().unwrap().serial();
        for question in ["web4.shop.svc.cluster.local AAAA", "no.shop.svc.cluster.local A", "cluster.local A"] {
            let message = Message::from_vec(&tiers.ask(&query(question), true).await).unwrap();
            let data = format!("ns.dns.cluster.local. hostmaster.cluster.local. {serial} 7200 1800 86400 5");
            let lines: Vec<_> = message.authorities.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [format!("cluster.local. 5 IN SOA {data}")]);
            assert!(message.metadata.authoritative);
        }
    });
}

#[test]
fn d20_without_every_list_there_is_only_servfail() {
    run(async {
        let objects = || cluster().into_iter().map(Event::Applied);
        for missing in Builder::KINDS {
            let synced = Builder::KINDS.into_iter().filter(|kind| *kind != missing).map(Event::Synced);
            let tiers = Tiers::start(responder(zone_of(objects().chain(synced)), None)).await;
            for question in [
                "web.shop.svc.cluster.local A",
                "no.shop.svc.cluster.local A",
                "cluster.local SOA",
                "1.0.96.10.in-addr.arpa PTR",
            ] {
                let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
                assert_eq!(message.metadata.response_code, ResponseCode::ServFail, "{question} without {missing:?}");
                assert!(message.answers.is_empty() && message.authorities.is_empty());
                assert!(!message.metadata.authoritative);
            }
            assert!(tiers.responder.stats.not_ready.get() > 0);
        }
    });
}

#[test]
fn d20_kinds_that_do_not_matter_are_not_waited_for() {
    let events = || cluster().into_iter().map(Event::Applied);
    assert!(zone_of(events().chain(Builder::KINDS.map(Event::Synced))).is_synced());
    assert!(!zone_of(events().chain([Kind::Pod, Kind::Node, Kind::NetworkPolicy].map(Event::Synced))).is_synced());
}

#[test]
fn d21_the_ttl_is_chosen() {
    run(async {
        for (chosen, ttl, soa) in [(0, 0, 0), (30, 30, 30), (600, 600, 300), (9999, 3600, 300)] {
            let mut zone = Zone::new(origin(), chosen).unwrap();
            let mut builder = crate::fixture::builder();
            cluster().into_iter().for_each(|object| builder.apply(Event::Applied(object)));
            builder.settle().into_iter().for_each(|delta| zone.update(delta));
            zone.set_synced();
            let tiers = Tiers::start(responder(zone, None)).await;
            let found = tiers.ask(&query("web.shop.svc.cluster.local A"), true).await;
            assert_eq!(Message::from_vec(&found).unwrap().answers[0].ttl, ttl);
            let negative = Message::from_vec(&tiers.ask(&query("no.shop.svc.cluster.local A"), true).await).unwrap();
            assert_eq!(negative.authorities[0].ttl, soa);
            assert!(matches!(&negative.authorities[0].data, RData::SOA(data) if data.minimum == ttl));
        }
    });
}

#[test]
fn d22_names_keep_the_clients_spelling() {
    run(async {
        let tiers = tiers().await;
        let ask = async |question, short| Message::from_vec(&tiers.ask(&query(question), short).await).unwrap();
        let found = ask("WeB.sHoP.SvC.cLuStEr.LoCaL A", true).await;
        assert_eq!(found.queries[0].name.to_string(), "WeB.sHoP.SvC.cLuStEr.LoCaL.");
        assert_eq!(found.answers[0].to_string(), "WeB.sHoP.SvC.cLuStEr.LoCaL. 5 IN A 10.96.0.1");
        let negative = ask("No.sHoP.SvC.cLuStEr.LoCaL A", true).await;
        let soa = negative.authorities[0].to_string();
        assert!(soa.starts_with("cLuStEr.LoCaL. 5 IN SOA ns.dns.cLuStEr.LoCaL. hostmaster.cLuStEr.LoCaL. "), "{soa}");
        let srv = ask("_HTTP._tcp.WEB6.shop.svc.CLUSTER.local SRV", false).await;
        let line = "_HTTP._tcp.WEB6.shop.svc.CLUSTER.local. 5 IN SRV 0 100 80 web6.shop.svc.CLUSTER.local.";
        assert_eq!(srv.answers[0].to_string(), line);
        assert_eq!(srv.additionals[0].to_string(), "web6.shop.svc.CLUSTER.local. 5 IN AAAA fd00:10:96::6");
    });
}

#[test]
fn d23_other_classes_are_refused() {
    run(async {
        let tiers = tiers().await;
        for class in [DNSClass::CH, DNSClass::ANY, DNSClass::Unknown(77)] {
            let mut message = message("web.shop.svc.cluster.local A");
            message.queries[0].set_query_class(class);
            let response = reply(&tiers, &message.to_vec().unwrap()).await;
            assert_eq!(response.metadata.response_code, ResponseCode::Refused, "{class}");
            assert_eq!(response.queries, message.queries);
        }
    });
}

#[test]
fn d23_queries_without_a_question_fail() {
    run(async {
        let tiers = tiers().await;
        let mut bytes = query("web.shop.svc.cluster.local A");
        bytes[5] = 0;
        assert_eq!(reply(&tiers, &bytes).await.metadata.response_code, ResponseCode::FormErr);
        bytes[5] = 2;
        assert_eq!(reply(&tiers, &bytes).await.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(tiers.responder.stats.malformed.get(), 4);
    });
}

#[test]
fn d23_other_opcodes_are_not_implemented() {
    run(async {
        let tiers = tiers().await;
        for opcode in [1, 2, 4, 5, 6, 15] {
            let mut bytes = query("web.shop.svc.cluster.local A");
            bytes[2] |= opcode << 3;
            let response = tiers.udp(&bytes).await;
            assert_eq!(response, tiers.tcp(&bytes).await);
            let id = [bytes[0], bytes[1]];
            assert_eq!(response[..4], [id[0], id[1], 0x81 | opcode << 3, 4], "opcode {opcode}");
        }
    });
}

#[test]
fn d23_responses_are_ignored() {
    run(async {
        let tiers = tiers().await;
        let mut bytes = query("web.shop.svc.cluster.local A");
        bytes[2] |= 0x80;
        for bytes in [&bytes[..], &bytes[..11], &[]] {
            assert!(tiers.fast(bytes).is_none());
            assert!(matches!(tiers.responder.respond(bytes, Transport::Udp), Outcome::Silence));
        }
        assert_eq!(tiers.responder.stats.ignored.get(), 3);
        // On a socket: the next query is answered, so the response to it is the first thing that comes.
        let server = tiers.server.udp_addresses()[0];
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        socket.send(&bytes).await.unwrap();
        let good = query("web4.shop.svc.cluster.local A");
        socket.send(&good).await.unwrap();
        let mut buffer = [0; 512];
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(Some(&buffer[..length]), tiers.fast(&good).as_deref());
    });
}

#[test]
fn d23_malformed_queries_get_an_error_and_harm_nobody() {
    run(async {
        let tiers = tiers().await;
        let good = query("web.shop.svc.cluster.local A");
        let pointer_loop = [&good[..12], &[0xc0, 12, 0, 1, 0, 1][..]].concat();
        let long_label = [&good[..12], &[0x7f; 40][..]].concat();
        let mut missing_opt = good.clone();
        missing_opt[11] = 1;
        let mut two_opts = good.clone();
        two_opts[11] = 2;
        two_opts.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0].repeat(2));
        for bytes in [&good[..20], &good[..good.len() - 1], &pointer_loop, &long_label, &missing_opt, &two_opts] {
            let response = reply(&tiers, bytes).await;
            assert_eq!(response.metadata.response_code, ResponseCode::FormErr, "{bytes:?}");
            assert_eq!(response.metadata.id, message("web.shop.svc.cluster.local A").metadata.id);
        }
        assert_eq!(tiers.responder.stats.malformed.get(), 12);
        tiers.ask(&good, true).await;
    });
}

#[test]
fn d24_no_opt_record_unless_asked() {
    run(async {
        let tiers = tiers().await;
        for question in ["web.shop.svc.cluster.local A", "no.shop.svc.cluster.local A", "www.example.org A"] {
            assert!(reply(&tiers, &query(question)).await.edns.is_none());
        }
    });
}

#[test]
fn d24_the_opt_record_repeats_size_and_do() {
    run(async {
        let tiers = tiers().await;
        for question in
            ["web.shop.svc.cluster.local A", "no.shop.svc.cluster.local A", "pets.shop.svc.cluster.local SRV"]
        {
            for (size, dnssec_ok) in [(512, false), (1232, true), (4096, true), (65535, false)] {
                let mut message = message(question);
                let mut edns = Edns::new();
                edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
                message.set_edns(edns);
                let response = tiers.ask(&message.to_vec().unwrap(), !question.ends_with("SRV")).await;
                let edns = Message::from_vec(&response).unwrap().edns.unwrap();
                assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (size, dnssec_ok), "{question}");
                assert_eq!((edns.version(), edns.options().options.len()), (0, 0));
            }
        }
    });
}

#[test]
fn d24_sizes_below_512_are_512() {
    run(async {
        let tiers = tiers().await;
        let mut bytes = query("web.shop.svc.cluster.local A");
        bytes[11] = 1;
        bytes.extend([0, 0, 41, 0, 100, 0, 0, 0, 0, 0, 0]);
        let response = Message::from_vec(&tiers.ask(&bytes, true).await).unwrap();
        assert_eq!(response.edns.unwrap().max_payload(), 512);
    });
}

#[test]
fn d24_unknown_versions_are_refused() {
    run(async {
        let tiers = tiers().await;
        let mut message = message("web.shop.svc.cluster.local A");
        let mut edns = Edns::new();
        edns.set_version(1);
        message.set_edns(edns);
        let response = reply(&tiers, &message.to_vec().unwrap()).await;
        // The code is shared with BADSIG, as which it is read.
        assert_eq!(u16::from(response.metadata.response_code), 16);
        assert_eq!(response.edns.unwrap().version(), 0);
        assert!(response.answers.is_empty());
    });
}

#[test]
fn d24_options_are_not_repeated() {
    run(async {
        let tiers = tiers().await;
        for length in [0, 8, 400] {
            for code in [3, 8, 9, 10, 11, 12, 15, 65001] {
                let mut message = message("many.shop.svc.cluster.local A");
                let mut edns = Edns::new();
                edns.set_max_payload(1232);
                let plain = {
                    message.set_edns(edns.clone());
                    tiers.udp(&message.to_vec().unwrap()).await
                };
                edns.options_mut().insert(EdnsOption::Unknown(code, vec![0; length]));
                message.set_edns(edns);
                let response = tiers.udp(&message.to_vec().unwrap()).await;
                // A client that pads its query gets as many records as any other.
                if Message::from_vec(&response).unwrap().metadata.response_code == ResponseCode::NoError {
                    assert_eq!(response, plain, "option {code} of {length} bytes");
                } else {
                    assert_ne!(code, 12, "padding may have any length");
                }
            }
        }
    });
}

#[test]
fn d25_what_does_not_fit_is_cut_and_says_so() {
    run(async {
        let tiers = tiers().await;
        for (question, all) in
            [("many.shop.svc.cluster.local A", 250), ("_web._tcp.many.shop.svc.cluster.local SRV", 250)]
        {
            for (size, limit) in [(None, 512), (Some(600), 600), (Some(4096), 1232)] {
                let mut message = message(question);
                if let Some(size) = size {
                    let mut edns = Edns::new();
                    edns.set_max_payload(size);
                    message.set_edns(edns);
                }
                let bytes = message.to_vec().unwrap();
                let udp = tiers.udp(&bytes).await;
                assert!(udp.len() <= limit && udp.len() > limit - 100, "{} bytes of {limit}", udp.len());
                let cut = Message::from_vec(&udp).unwrap();
                assert!(cut.metadata.truncation && (1..all).contains(&cut.answers.len()));
                assert_eq!(cut.edns.is_some(), size.is_some());
                let tcp = Message::from_vec(&tiers.tcp(&bytes).await).unwrap();
                assert!(!tcp.metadata.truncation);
                assert_eq!(tcp.answers.len(), all);
            }
        }
    });
}

#[test]
fn d25_clients_that_take_the_first_address_spread() {
    run(async {
        let tiers = tiers().await;
        let mut firsts = std::collections::BTreeSet::new();
        for id in 0..32_u8 {
            let mut bytes = query("six.shop.svc.cluster.local A");
            bytes[1] = id;
            let response = Message::from_vec(&tiers.ask(&bytes, true).await).unwrap();
            firsts.insert(response.answers[0].to_string());
        }
        assert_eq!(firsts.len(), 6);
    });
}

#[test]
fn d8_a_thousand_targets_fit_over_tcp() {
    run(async {
        let endpoint = |n: u32| endpoint(&std::net::Ipv4Addr::from_bits(0x0af4_0000 + n).to_string(), "", true);
        let ports: &[Port] = &[("web", Protocol::Tcp, 80)];
        let objects = [
            namespace("shop"),
            Object::Service(service("shop", "crowd", &[], &[])),
            Object::EndpointSlice(slice("shop", "crowd-1", "crowd", ports, (1..=1000).map(endpoint).collect())),
        ];
        let events = objects.into_iter().map(Event::Applied).chain(Builder::KINDS.map(Event::Synced));
        let tiers = Tiers::start(responder(zone_of(events), None)).await;
        let tcp = tiers.tcp(&query("_web._tcp.crowd.shop.svc.cluster.local SRV")).await;
        let response = Message::from_vec(&tcp).unwrap();
        assert!(!response.metadata.truncation);
        // As many of their addresses as there is room for.
        assert!(response.answers.len() == 1000 && !response.additionals.is_empty());
    });
}

#[test]
fn d25_what_does_not_fit_over_tcp_is_cut_and_says_so() {
    run(async {
        let endpoint = |n: u32| endpoint(&std::net::Ipv4Addr::from_bits(0x0af4_0000 + n).to_string(), "", true);
        let ports: &[Port] = &[("web", Protocol::Tcp, 80)];
        let objects = [
            namespace("shop"),
            Object::Service(service("shop", "crowd", &[], &[])),
            Object::EndpointSlice(slice("shop", "crowd-1", "crowd", ports, (1..=2000).map(endpoint).collect())),
        ];
        let events = objects.into_iter().map(Event::Applied).chain(Builder::KINDS.map(Event::Synced));
        let tiers = Tiers::start(responder(zone_of(events), None)).await;
        // 2 000 addresses fit, 2 000 SRV records don't.
        for (question, fits) in
            [("crowd.shop.svc.cluster.local A", true), ("_web._tcp.crowd.shop.svc.cluster.local SRV", false)]
        {
            let mut message = message(question);
            message.set_edns(Edns::new());
            let bytes = message.to_vec().unwrap();
            let tcp = tiers.tcp(&bytes).await;
            assert_eq!(tcp, tiers.full(&bytes, Transport::Tcp).await);
            let response = Message::from_vec(&tcp).unwrap();
            assert_eq!((response.metadata.truncation, response.answers.len() == 2000), (!fits, fits), "{question}");
            assert!(response.edns.is_some() && response.additionals.is_empty());
            assert!(fits || tcp.len() > 65_000, "{} bytes are most of what a message may have", tcp.len());
        }
    });
}

#[test]
fn d26_a_connection_carries_many_queries() {
    run(async {
        let tiers = tiers().await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        let queries: Vec<_> = (0..40_u8)
            .map(|id| {
                let mut bytes = query("web.shop.svc.cluster.local A");
                bytes[..2].copy_from_slice(&[0, id]);
                bytes
            })
            .collect();
        for query in &queries {
            write(&mut stream, query).await;
        }
        // Who has asked all and says so still gets all.
        stream.shutdown().await.unwrap();
        let mut received = Vec::new();
        for _ in &queries {
            received.push(timeout(PATIENCE, read(&mut stream)).await.unwrap());
        }
        received.sort();
        let expected: Vec<_> = queries.iter().map(|query| tiers.fast(query).unwrap()).collect();
        assert!(received == expected, "every query has its response");
    });
}

#[test]
fn d26_a_bad_message_does_not_end_the_connection() {
    run(async {
        let tiers = tiers().await;
        let good = query("web.shop.svc.cluster.local A");
        let mut response = good.clone();
        response[2] |= 0x80;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        for ignored in [&response[..], &good[..11]] {
            write(&mut stream, ignored).await;
        }
        write(&mut stream, &good[..20]).await;
        write(&mut stream, &good).await;
        let error = Message::from_vec(&timeout(PATIENCE, read(&mut stream)).await.unwrap()).unwrap();
        assert_eq!(error.metadata.response_code, ResponseCode::FormErr);
        let answer = timeout(PATIENCE, read(&mut stream)).await.unwrap();
        assert_eq!(Some(answer), tiers.fast(&good));
    });
}

#[test]
fn d26_a_silent_connection_is_closed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let tiers = tiers().await;
        let partial: &[u8] = &[0, 30, 1, 2];
        for sent in [&[], partial] {
            let began = tokio::time::Instant::now();
            let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
            stream.write_all(sent).await.unwrap();
            // The clock jumps to the next timer when there is nothing else to do. What was not read is a reset.
            let end = stream.read(&mut [0; 16]).await;
            assert!(matches!(end, Ok(0)) || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
            assert!((10..12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn d32_recursion_is_available_when_there_is_an_upstream() {
    run(async {
        let upstream = forwarder(&["127.0.0.1:9".parse().unwrap()], Limits::default());
        for (forwarder, available) in [(None, false), (upstream, true)] {
            let tiers = Tiers::start(responder(zone(), forwarder)).await;
            for question in ["web.shop.svc.cluster.local A", "no.shop.svc.cluster.local A"] {
                let response = Message::from_vec(&tiers.ask(&query(question), true).await).unwrap();
                assert_eq!(response.metadata.recursion_available, available);
            }
        }
    });
}

#[test]
fn responses_leave_from_the_address_that_was_asked() {
    run(async {
        for (listen, server) in
            [("[::]:0", "127.0.0.2"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1"), ("0.0.0.0:0", "127.0.0.3")]
        {
            let tiers = Tiers::listen(responder(zone(), None), listen).await;
            let port = tiers.server.udp_addresses()[0].port();
            let query = query("web.shop.svc.cluster.local A");
            // The client's socket is connected: a response from another address never reaches it.
            let response = exchange((server.parse::<std::net::IpAddr>().unwrap(), port).into(), &query).await;
            assert_eq!(response, tiers.fast(&query), "{server} at {listen}");
        }
    });
}

#[test]
fn the_server_stops() {
    run(async {
        let tiers = tiers().await;
        tiers.udp(&query("web.shop.svc.cluster.local A")).await;
        timeout(PATIENCE, tiers.server.stop()).await.expect("it ends");
    });
}
