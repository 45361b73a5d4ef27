//! What a Corefile says about servers: as whom they are asked, who is asked where an answer is not taken, and what is kept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_dns::WireName;
use fairlead_dns::forward::tls::Trust;
use fairlead_dns::forward::{Config, Failover, Forwarder, Limits, Over, Policy, Upstream as To};
use hickory_proto::op::{Message, ResponseCode};

use ResponseCode::{NXDomain, NoError, ServFail};

use crate::client::{Tiers, run};
use crate::elsewhere::{IMPATIENT, LIMITS, Upstream, found, response};
use crate::fixture::{forwarder_of, responder, zone};
use crate::process::free_address;
use crate::sites::served;
use crate::upstreams::{address, all, counted, fails, over_tls, udp};

/// A server that knows the names that begin with this, says that others do not exist, or with `none` that they have
/// nothing, and fails for `broken`. It counts its questions.
async fn knows(label: &'static str, answer: &'static str) -> (Upstream, Arc<AtomicUsize>) {
    counted(move |question, _| {
        let name = question.queries[0].name.to_string().to_lowercase();
        vec![if name.starts_with(label) {
            found(question, answer).to_vec().unwrap()
        } else if name.starts_with("none") {
            response(question).to_vec().unwrap()
        } else if name.starts_with("broken") {
            fails(question, ServFail)
        } else {
            fails(question, NXDomain)
        }]
    })
    .await
}

/// A Corefile with these lines beside the cluster's zone.
fn corefile(lines: &str) -> String {
    format!(". {{\nkubernetes cluster.local\n{lines}\n}}\n")
}

/// The code and the addresses.
async fn said(tiers: &Tiers, question: &str) -> (ResponseCode, String) {
    let message: Message = udp(tiers, question).await;
    (message.metadata.response_code, address(&message))
}

fn is(code: ResponseCode, addresses: &str) -> (ResponseCode, String) {
    (code, addresses.to_owned())
}

#[test]
fn d45_each_server_proves_its_own_name() {
    run(async {
        let (one, first) = over_tls("one.example", "192.0.2.1").await;
        let (two, second) = over_tls("two.example", "192.0.2.2").await;
        let plain = Upstream::of("192.0.2.3").await;
        let authorities = format!("{first}{second}");
        let trust = Trust::new(Some((Path::new("ca.pem"), &authorities))).unwrap();
        let over = |name: &str| Over::Tls(trust.server(name).unwrap());
        let seen = async |names: [&str; 2]| {
            let upstreams = vec![
                To { address: one, over: over(names[0]) },
                To { address: two, over: over(names[1]) },
                plain.address.into(),
            ];
            let config = Config { upstreams, limits: LIMITS, policy: Policy::Random, ..Config::default() };
            let tiers = Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await;
            let mut seen = std::collections::BTreeSet::new();
            for number in 0..60 {
                seen.insert(said(&tiers, &format!("n{number}.example.org A")).await.1);
            }
            seen.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(seen(["one.example", "two.example"]).await, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        // Whoever has the other's name is not asked, and the others are.
        assert_eq!(seen(["one.example", "one.example"]).await, ["192.0.2.1", "192.0.2.3"]);
    });
}

#[test]
fn d46_the_next_forward_is_asked_where_the_answer_says_so() {
    run(async {
        let (one, _) = knows("one", "192.0.2.1").await;
        let (two, asked_two) = knows("two", "192.0.2.2").await;
        let (three, _) = knows("three", "192.0.2.3").await;
        let lines = format!(
            "forward . {} {{\nnext NXDOMAIN\nnext_on_nodata\n}}\nforward other.example {}\nforward . {} {{\nexcept not.example\n}}\n\
             cache",
            one.address, three.address, two.address
        );
        let tiers = served(&corefile(&lines)).await;
        for _ in 0..2 {
            assert_eq!(said(&tiers, "one.example A").await, is(NoError, "192.0.2.1"));
            assert_eq!(said(&tiers, "two.example A").await, is(NoError, "192.0.2.2"));
            assert_eq!(said(&tiers, "three.other.example A").await, is(NoError, "192.0.2.3"));
        }
        // The second time it is kept, as the answer of all of them.
        assert_eq!(tiers.responder.stats.forwarded.get(), 3);
        // The last one's word stands, and so does that of one behind whom nobody is for the name.
        assert_eq!(said(&tiers, "nobody.example A").await, is(NXDomain, ""));
        assert_eq!(said(&tiers, "none.example A").await, is(NoError, ""));
        let before = asked_two.load(Ordering::Relaxed);
        assert_eq!(said(&tiers, "two.not.example A").await, is(NXDomain, ""));
        assert_eq!(said(&tiers, "broken.example A").await, is(ServFail, ""));
        assert_eq!(asked_two.load(Ordering::Relaxed), before, "SERVFAIL is not among the codes");
    });
}

#[test]
fn d46_the_next_server_is_asked_where_the_answer_says_so() {
    run(async {
        let (one, _) = knows("one", "192.0.2.1").await;
        let (two, asked_two) = knows("two", "192.0.2.2").await;
        let forward = format!("forward . {} {} {{\npolicy sequential\n", one.address, two.address);
        let tiers = served(&corefile(&format!("{forward}failover NXDOMAIN\n}}"))).await;
        assert_eq!(said(&tiers, "two.example A").await, is(NoError, "192.0.2.2"));
        assert_eq!(said(&tiers, "nobody.example A").await, is(NXDomain, ""));
        let before = asked_two.load(Ordering::Relaxed);
        assert_eq!(said(&tiers, "one.example A").await, is(NoError, "192.0.2.1"));
        assert_eq!(asked_two.load(Ordering::Relaxed), before);
        // What says more about the server than about the name is never taken.
        let tiers = served(&corefile(&format!("{forward}}}"))).await;
        assert_eq!(said(&tiers, "two.example A").await, is(NXDomain, ""));
        let before = asked_two.load(Ordering::Relaxed);
        assert_eq!(said(&tiers, "broken.example A").await, is(ServFail, ""));
        assert!(asked_two.load(Ordering::Relaxed) > before);
    });
}

#[test]
fn d46_nobody_is_waited_for_while_no_server_answers() {
    run(async {
        let silent = Upstream::start(|_, _| vec![]).await;
        let limits = Limits { deadline: Duration::from_secs(2), ..IMPATIENT };
        let failover = Failover { fast: true, ..Failover::default() };
        let config = Config { upstreams: all(&[silent.address]), limits, failover, ..Config::default() };
        let tiers = Tiers::start(responder(zone(), Forwarder::new(config).map(Arc::new))).await;
        let all = ["a.example A", "b.example A", "c.example A"];
        let answers = futures::future::join_all(all.map(|question| said(&tiers, question))).await;
        assert!(answers.iter().all(|answer| *answer == is(ServFail, "")));
        let begin = Instant::now();
        for number in 0..20 {
            assert_eq!(said(&tiers, &format!("n{number}.example A")).await, is(ServFail, ""));
        }
        assert!(begin.elapsed() < limits.deadline * 20, "{:?}", begin.elapsed());
    });
}

#[test]
fn d47_what_is_cached_depends_on_the_name() {
    run(async {
        let (upstream, _) = knows("one", "192.0.2.1").await;
        let times = async |cache: &str, question: &str| {
            let tiers = served(&corefile(&format!("forward . {}\n{cache}", upstream.address))).await;
            for _ in 0..3 {
                udp(&tiers, question).await;
            }
            tiers.responder.stats.forwarded.get()
        };
        let disabled = "cache {\ndisable success a.example\ndisable denial b.example\nservfail 0\n}";
        for (cache, question, wanted) in [
            ("cache 30 a.example", "one.a.example A", 1),
            ("cache 30 a.example", "one.b.example A", 3),
            ("cache 30 a.example", "ONE.A.Example A", 1),
            (disabled, "one.a.example A", 3),
            (disabled, "one.b.example A", 1),
            (disabled, "broken.c.example A", 3),
            ("cache", "broken.c.example A", 1),
            ("cache {\ndisable denial\n}", "broken.c.example A", 3),
            ("cache {\ndisable success\n}", "one.c.example A", 3),
        ] {
            assert_eq!(times(cache, question).await, wanted, "{cache} {question}");
        }
    });
}

#[test]
fn d47_ttls_shrink_or_stay() {
    run(async {
        let upstream = Upstream::of("192.0.2.1").await;
        let ttl = async |cache: &str, question: &'static str| {
            let tiers = served(&corefile(&format!("forward . {}\n{cache}", upstream.address))).await;
            udp(&tiers, question).await;
            tokio::time::sleep(Duration::from_millis(1100)).await;
            udp(&tiers, question).await.answers[0].ttl
        };
        assert_eq!(ttl("cache 30 {\nkeepttl\n}", "one.example A").await, 30);
        assert!(ttl("cache 30", "one.example A").await < 30);
        // Names that are none of the cache's have the TTL that they came with.
        assert_eq!(ttl("cache 30 other.example", "one.example A").await, 60);
    });
}

#[test]
fn d31_servers_that_lead_back_for_a_domain_alone_are_found() {
    run(async {
        let (one, other) = (free_address(), free_address());
        let nowhere = Upstream::of("192.0.2.1").await;
        let corp = WireName::parse("corp.example").unwrap();
        let leading_to = async |there: SocketAddr, here: SocketAddr| {
            let stubs = vec![(corp.clone(), vec![there.into()])];
            let config = Config { upstreams: all(&[nowhere.address]), stubs, limits: LIMITS, ..Config::default() };
            let responder = responder(zone(), Forwarder::new(config).map(Arc::new));
            Tiers::listen(responder, &here.to_string()).await
        };
        let (first, _second) = (leading_to(other, one).await, leading_to(one, other).await);
        let forwarder = forwarder_of(&first.responder);
        let loops = async || {
            let all = forwarder.by_domain();
            for (domain, server) in &all {
                forwarder.probe(server, domain).await;
            }
            all.iter().map(|(_, server)| server.is_loop()).collect::<Vec<_>>()
        };
        // A probe that comes back late proves nothing.
        for _ in 0..10 {
            if loops().await == [false, true] {
                break;
            }
        }
        assert_eq!(loops().await, [false, true]);
        assert_eq!(said(&first, "www.corp.example A").await, is(ServFail, ""), "at once, without asking");
        assert_eq!(said(&first, "www.example A").await, is(NoError, "192.0.2.1"));
    });
}

#[test]
fn d36_types_that_are_no_addresses_may_go_on() {
    run(async {
        let (upstream, asked) = knows("fixed", "192.0.2.1").await;
        for (option, wanted) in [("", 0), ("fallthrough_unsupported", 1)] {
            let hosts = format!("hosts /none {{\n192.0.2.50 fixed.example\nfallthrough\n{option}\n}}");
            let tiers = served(&corefile(&format!("forward . {}\n{hosts}", upstream.address))).await;
            let before = asked.load(Ordering::Relaxed);
            assert_eq!(said(&tiers, "fixed.example A").await, is(NoError, "192.0.2.50"));
            assert_eq!(said(&tiers, "fixed.example AAAA").await, is(NoError, ""));
            assert_eq!(asked.load(Ordering::Relaxed), before);
            udp(&tiers, "fixed.example TXT").await;
            assert_eq!(tiers.responder.stats.forwarded.get(), wanted, "{option}");
        }
    });
}
