//! What a Corefile has for others than the cluster's pods: NAT64, external addresses, whole zones.

use std::time::Duration;

use fairlead_dns::full::{Outcome, Response, TransferError, Transfers};
use fairlead_dns::manner::Transport;
use fairlead_dns::zone::{Delta, OutsideDelta};
use fairlead_objects::{LoadBalancerIngress, Object, Protocol, ServiceType};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{AAAA, CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::client::{PATIENCE, Tiers, message, query, read, run, write};
use crate::elsewhere::{Upstream, found, response};
use crate::fixture::{endpoint, service, slice};
use crate::sites::{answering, says, served, served_with};

use ResponseCode::{NXDomain, NoError, Refused, ServFail};

fn lines(records: &[Record]) -> Vec<String> {
    records.iter().map(ToString::to_string).collect()
}

/// A world in which names say what they have: `v4`, `v6`, `both`, `mapped`, `alias`, `none`, `gone` and `broken`.
fn world(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let query = &question.queries[0];
    let name = query.name().clone();
    let label = name.iter().next().map(|label| String::from_utf8_lossy(label).to_lowercase()).unwrap();
    let mut message = response(question);
    let mut add = |name: &Name, data| message.answers.push(Record::from_rdata(name.clone(), 60, data));
    let (v4, v6) = (query.query_type() == RecordType::A, query.query_type() == RecordType::AAAA);
    match label.as_str() {
        "v4" | "both" | "mapped" if v4 => return vec![found(question, "192.0.2.33").to_vec().unwrap()],
        "v6" | "both" if v6 => add(&name, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
        "mapped" if v6 => add(&name, RData::AAAA(AAAA("::ffff:192.0.2.33".parse().unwrap()))),
        "alias" => {
            let target = Name::from_ascii("v4.example.").unwrap();
            add(&name, RData::CNAME(CNAME(target.clone())));
            if v4 {
                add(&target, found(question, "192.0.2.33").answers[0].data.clone());
            }
        }
        "gone" => message.metadata.response_code = NXDomain,
        "broken" if v6 => message.metadata.response_code = ServFail,
        "broken" => return vec![found(question, "192.0.2.33").to_vec().unwrap()],
        _ => {}
    }
    let is_known = message.metadata.response_code != ServFail;
    if is_known && !message.answers.iter().any(|record| record.record_type() == query.query_type()) {
        let zone = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 20);
        message.authorities.push(Record::from_rdata(zone, 20, RData::SOA(soa)));
    }
    vec![message.to_vec().unwrap()]
}

#[test]
fn d41_addresses_of_ipv6_are_made_for_names_that_have_none() {
    run(async {
        let upstream = Upstream::start(world).await;
        let with = |options: &str| {
            let forward = upstream.address;
            format!(
                ". {{\nkubernetes cluster.local\nrewrite name exact old.example v4.example\n\
                 dns64 {{\n{options}\n}}\nforward . {forward}\n}}"
            )
        };
        let tiers = served(&with("allow_ipv4")).await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            // As long as the absence of IPv6 may be kept.
            ("v4.example AAAA", NoError, &["v4.example. 20 IN AAAA 64:ff9b::c000:221"]),
            ("V4.Example AAAA", NoError, &["V4.Example. 20 IN AAAA 64:ff9b::c000:221"]),
            ("v4.example A", NoError, &["v4.example. 60 IN A 192.0.2.33"]),
            ("v6.example AAAA", NoError, &["v6.example. 60 IN AAAA 2001:db8::1"]),
            ("both.example AAAA", NoError, &["both.example. 60 IN AAAA 2001:db8::1"]),
            // IPv4 as IPv6 writes it leads nowhere.
            ("mapped.example AAAA", NoError, &["mapped.example. 60 IN AAAA 64:ff9b::c000:221"]),
            (
                "alias.example AAAA",
                NoError,
                &["alias.example. 60 IN CNAME v4.example.", "v4.example. 20 IN AAAA 64:ff9b::c000:221"],
            ),
            ("none.example AAAA", NoError, &[]),
            ("gone.example AAAA", NXDomain, &[]),
            // An error is as good as no address.
            ("broken.example AAAA", NoError, &["broken.example. 60 IN AAAA 64:ff9b::c000:221"]),
            ("old.example AAAA", NoError, &["old.example. 20 IN AAAA 64:ff9b::c000:221"]),
            // The cluster's names too: a Service may have IPv4 only.
            ("web4.shop.svc.cluster.local AAAA", NoError, &["web4.shop.svc.cluster.local. 5 IN AAAA 64:ff9b::a60:4"]),
            ("web.shop.svc.cluster.local AAAA", NoError, &["web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1"]),
            ("no.shop.svc.cluster.local AAAA", NXDomain, &[]),
        ];
        says(&tiers, cases).await;
        let none = Message::from_vec(&tiers.tcp(&query("none.example AAAA")).await).unwrap();
        assert_eq!(none.authorities.len(), 1, "that there is none can be kept");

        let tiers = served(&with("allow_ipv4\ntranslate_all\nprefix 2001:db8:122::/48")).await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("both.example AAAA", NoError, &["both.example. 60 IN AAAA 2001:db8:122:c000:2:2100::"]),
            ("v6.example AAAA", NoError, &["v6.example. 60 IN AAAA 2001:db8::1"]),
        ];
        says(&tiers, cases).await;
    });
}

#[test]
fn d41_clients_that_ask_over_ipv4_have_it() {
    run(async {
        let upstream = Upstream::start(world).await;
        let corefile = format!(". {{\nkubernetes cluster.local\ncache\ndns64\nforward . {}\n}}", upstream.address);
        let asked = query("v4.example AAAA");
        let tiers = served(&corefile).await;
        says(&tiers, &[("v4.example AAAA", NoError, &[])]).await;
        let tiers = served_with(&corefile, Vec::new(), "[::1]:0").await;
        // The second is made of what is kept.
        for ttls in [20..=20, 10..=20] {
            let mut said = Message::from_vec(&tiers.udp(&asked).await).unwrap();
            let ttl = std::mem::take(&mut said.answers[0].ttl);
            assert_eq!(lines(&said.answers), ["v4.example. 0 IN AAAA 64:ff9b::c000:221"]);
            assert!(ttls.contains(&ttl), "{ttl}");
        }
        assert_eq!(tiers.responder.stats.forwarded.get(), 2);
    });
}

/// Services with addresses for the outside.
fn outside() -> Vec<Object> {
    use Protocol::{Tcp, Udp};
    let mut shop = service("shop", "front", &["10.96.0.20"], &[("http", Tcp, 80), ("dns", Udp, 53)]);
    shop.service_type = ServiceType::LoadBalancer;
    shop.external_ips = vec!["198.51.100.1".parse().unwrap()];
    let ingress = |ip: &str| LoadBalancerIngress { ip: ip.parse().unwrap(), vip: true };
    shop.load_balancer = vec![ingress("203.0.113.1"), ingress("2001:db8:1::1")];
    let mut cloud = service("shop", "cloud", &["10.96.0.21"], &[("https", Tcp, 443)]);
    cloud.load_balancer_names = vec!["Lb.cloud.example".to_owned()];
    let mut dns = service("kube-system", "kube-dns", &["10.96.0.10", "fd00:10:96::a"], &[("dns", Udp, 53)]);
    dns.external_ips = vec!["198.51.100.53".parse().unwrap()];
    let peers = slice(
        "shop",
        "peers-1",
        "peers",
        &[("db", Tcp, 5432)],
        vec![
            endpoint("10.244.5.1", "one", true),
            endpoint("10.244.5.2", "two", true),
            endpoint("10.244.5.3", "late", false),
        ],
    );
    vec![
        Object::Service(shop),
        Object::Service(cloud),
        Object::Service(dns),
        Object::Service(service("shop", "peers", &[], &[("db", Tcp, 5432)])),
        Object::EndpointSlice(peers),
    ]
}

#[test]
fn d42_services_have_their_external_addresses_in_zones_of_their_own() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let corefile = format!(
            ". {{\nkubernetes cluster.local\nk8s_external out.example 100.51.198.in-addr.arpa {{\nttl 9\nfallthrough \
             in-addr.arpa\n}}\nforward . {}\n}}",
            upstream.address
        );
        let tiers = served_with(&corefile, outside(), "127.0.0.1:0").await;
        let front = ["front.shop.out.example. 9 IN A 198.51.100.1", "front.shop.out.example. 9 IN A 203.0.113.1"];
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("front.shop.out.example AAAA", NoError, &["front.shop.out.example. 9 IN AAAA 2001:db8:1::1"]),
            ("FRONT.shop.Out.example AAAA", NoError, &["FRONT.shop.Out.example. 9 IN AAAA 2001:db8:1::1"]),
            (
                "_dns._udp.front.shop.out.example SRV",
                NoError,
                &["_dns._udp.front.shop.out.example. 9 IN SRV 0 33 53 front.shop.out.example."],
            ),
            (
                "front.shop.out.example SRV",
                NoError,
                &[
                    "front.shop.out.example. 9 IN SRV 0 16 53 front.shop.out.example.",
                    "front.shop.out.example. 9 IN SRV 0 16 80 front.shop.out.example.",
                ],
            ),
            ("_no._udp.front.shop.out.example SRV", NXDomain, &[]),
            ("any.front.shop.out.example AAAA", NoError, &["any.front.shop.out.example. 9 IN AAAA 2001:db8:1::1"]),
            ("front.shop.out.example TXT", NoError, &[]),
            ("shop.out.example A", NoError, &[]),
            ("nowhere.out.example A", NXDomain, &[]),
            ("web.shop.out.example A", NXDomain, &[]),
            ("peers.shop.out.example A", NXDomain, &[]),
            ("a.b.front.shop.out.example A", NXDomain, &[]),
            (
                "cloud.shop.out.example A",
                NoError,
                &["cloud.shop.out.example. 9 IN CNAME lb.cloud.example.", "lb.cloud.example. 60 IN A 192.0.2.7"],
            ),
            (
                "_https._tcp.cloud.shop.out.example SRV",
                NoError,
                &["_https._tcp.cloud.shop.out.example. 9 IN SRV 0 100 443 lb.cloud.example."],
            ),
            (
                "1.100.51.198.in-addr.arpa PTR",
                NoError,
                &["1.100.51.198.in-addr.arpa. 9 IN PTR front.shop.out.example."],
            ),
            ("9.100.51.198.in-addr.arpa A", NoError, &["9.100.51.198.in-addr.arpa. 60 IN A 192.0.2.7"]),
            ("out.example A", NoError, &[]),
            ("out.example NS", NoError, &["out.example. 9 IN NS ns1.dns.out.example."]),
            ("ns1.dns.out.example A", NoError, &["ns1.dns.out.example. 9 IN A 198.51.100.53"]),
            ("ns1.dns.out.example AAAA", NoError, &[]),
            ("dns.out.example A", NoError, &[]),
            ("ns2.dns.out.example A", NXDomain, &[]),
            ("www.example A", NoError, &["www.example. 60 IN A 192.0.2.7"]),
            ("web4.shop.svc.cluster.local A", NoError, &["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"]),
        ];
        says(&tiers, cases).await;
        let said = async |question| Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
        let mut found = lines(&said("front.shop.out.example A").await.answers);
        found.sort();
        assert_eq!(found, front);
        let srv = said("_dns._udp.front.shop.out.example SRV").await;
        assert_eq!(lines(&srv.additionals).len(), 3, "the addresses of the target: {srv}");
        let ns = said("out.example NS").await;
        assert_eq!(lines(&ns.additionals), ["ns1.dns.out.example. 9 IN A 198.51.100.53"]);
        let denied = said("nowhere.out.example A").await;
        let [Record { data: RData::SOA(soa), .. }] = &denied.authorities[..] else { panic!("{denied}") };
        assert_eq!((soa.mname.to_string().as_str(), soa.minimum), ("ns1.dns.out.example.", 9));
        assert!(denied.metadata.authoritative);
    });
}

#[test]
fn d42_endpoints_of_headless_services_are_there_where_that_is_said() {
    run(async {
        let corefile = ". {\nkubernetes cluster.local\nk8s_external out.example {\nheadless\napex ns\n}\n}";
        let tiers = served_with(corefile, outside(), "127.0.0.1:0").await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("one.peers.shop.out.example A", NoError, &["one.peers.shop.out.example. 5 IN A 10.244.5.1"]),
            ("late.peers.shop.out.example A", NXDomain, &[]),
            ("any.peers.shop.out.example A", NXDomain, &[]),
            (
                "_db._tcp.peers.shop.out.example SRV",
                NoError,
                &[
                    "_db._tcp.peers.shop.out.example. 5 IN SRV 0 50 5432 one.peers.shop.out.example.",
                    "_db._tcp.peers.shop.out.example. 5 IN SRV 0 50 5432 two.peers.shop.out.example.",
                ],
            ),
            ("out.example NS", NoError, &["out.example. 5 IN NS ns1.ns.out.example."]),
        ];
        says(&tiers, cases).await;
        let peers = Message::from_vec(&tiers.ask(&query("peers.shop.out.example A"), false).await).unwrap();
        assert_eq!(peers.answers.len(), 2);
    });
}

#[test]
fn d42_d20_before_the_first_sync_nothing_is_denied() {
    run(async {
        let corefile = ". {\nkubernetes cluster.local\nk8s_external out.example\ntransfer {\nto *\n}\n}";
        let tiers = served(corefile).await;
        let empty = fairlead_dns::Zone::new(crate::fixture::origin(), 5).unwrap();
        *tiers.responder.zone.write().unwrap() = empty;
        for question in ["front.shop.out.example A", "out.example SOA", "out.example AXFR", "cluster.local AXFR"] {
            let said = Message::from_vec(&tiers.tcp(&query(question)).await).unwrap();
            assert_eq!(said.metadata.response_code, ServFail, "{question}");
        }
    });
}

/// Everything that comes of a zone, and how many messages it takes.
async fn whole(tiers: &Tiers, question: &Message) -> (Vec<Record>, usize) {
    let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
    write(&mut stream, &question.to_vec().unwrap()).await;
    let mut records = Vec::new();
    let mut messages = 0;
    loop {
        let message = Message::from_vec(&read(&mut stream).await).unwrap();
        assert_eq!((message.metadata.id, message.metadata.response_code), (question.metadata.id, NoError));
        assert!(message.metadata.authoritative && !message.metadata.truncation);
        assert_eq!(message.queries, question.queries);
        records.extend(message.answers);
        messages += 1;
        let ends = records.len() > 1 && records.last().is_some_and(|last| last.record_type() == RecordType::SOA);
        let [first, ..] = &records[..] else { panic!("a zone begins with its SOA") };
        assert_eq!(first.record_type(), RecordType::SOA);
        if ends || question.queries[0].query_type() == RecordType::IXFR && records.len() == 1 {
            // The connection goes on.
            write(&mut stream, &query("web4.shop.svc.cluster.local A")).await;
            let next = Message::from_vec(&read(&mut stream).await).unwrap();
            assert_eq!(next.answers.len(), 1, "nothing more of the zone comes: {next}");
            return (records, messages);
        }
    }
}

const BOTH: &str = ". {\nkubernetes cluster.local\nk8s_external out.example {\nheadless\n}\n\
                    transfer cluster.local out.example {\nto 192.0.2.1 127.0.0.1\n}\n}";

#[test]
fn d43_a_whole_zone_is_what_its_names_answer() {
    run(async {
        let tiers = served_with(BOTH, outside(), "127.0.0.1:0").await;
        let (records, messages) = whole(&tiers, &message("cluster.local AXFR")).await;
        assert!((2..6).contains(&messages), "{messages}");
        let all = lines(&records);
        assert_eq!(records.first(), records.last());
        for wanted in [
            "cluster.local. 5 IN NS kube-dns.kube-system.svc.cluster.local.",
            "kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00:10:96::a",
            "web.shop.svc.cluster.local. 5 IN A 10.96.0.1",
            "web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1",
            "web4.shop.svc.cluster.local. 5 IN SRV 0 100 80 web4.shop.svc.cluster.local.",
            "_http._tcp.web6.shop.svc.cluster.local. 5 IN SRV 0 100 80 web6.shop.svc.cluster.local.",
            "pets.shop.svc.cluster.local. 5 IN A 10.244.1.10",
            "pets-0.pets.shop.svc.cluster.local. 5 IN A 10.244.1.10",
            "_db._tcp.pets.shop.svc.cluster.local. 5 IN SRV 0 33 5432 pets-0.pets.shop.svc.cluster.local.",
            "outside.shop.svc.cluster.local. 5 IN CNAME www.example.org.",
        ] {
            assert_eq!(all.iter().filter(|line| *line == wanted).count(), 1, "{wanted}: {all:#?}");
        }
        for unwanted in ["_http._tcp.web.shop.svc.cluster.local. 5 IN A ", "backend.web.", "dns-version.", "address."] {
            assert!(!all.iter().any(|line| line.starts_with(unwanted)), "{unwanted}");
        }
        // Every record is what a question for it is answered with.
        let mut seen = std::collections::BTreeSet::new();
        for record in records.iter().filter(|record| record.record_type() != RecordType::CNAME) {
            let name = record.name.to_string();
            if !seen.insert((name.clone(), record.record_type())) {
                continue;
            }
            let question = format!("{} {}", name.trim_end_matches('.'), record.record_type());
            let said = Message::from_vec(&tiers.tcp(&query(&question)).await).unwrap();
            let of_zone: Vec<_> = records
                .iter()
                .filter(|other| other.name == record.name && other.record_type() == record.record_type())
                .collect();
            for other in of_zone {
                assert!(said.answers.contains(other), "{other} is not in {said}");
            }
        }
    });
}

#[test]
fn d43_zones_of_external_addresses_go_too() {
    run(async {
        let tiers = served_with(BOTH, outside(), "127.0.0.1:0").await;
        let (records, _) = whole(&tiers, &message("Out.example AXFR")).await;
        let all = lines(&records);
        for wanted in [
            "Out.example. 5 IN NS ns1.dns.Out.example.",
            "ns1.dns.Out.example. 5 IN A 198.51.100.53",
            "front.shop.Out.example. 5 IN AAAA 2001:db8:1::1",
            "_http._tcp.front.shop.Out.example. 5 IN SRV 0 33 80 front.shop.Out.example.",
            "cloud.shop.Out.example. 5 IN CNAME lb.cloud.example.",
            "one.peers.shop.Out.example. 5 IN A 10.244.5.1",
        ] {
            assert_eq!(all.iter().filter(|line| *line == wanted).count(), 1, "{wanted}: {all:#?}");
        }
    });
}

#[test]
fn d43_one_who_has_the_zone_gets_its_soa_only() {
    run(async {
        let tiers = served_with(BOTH, outside(), "127.0.0.1:0").await;
        for zone in ["cluster.local", "out.example"] {
            let soa = Message::from_vec(&tiers.tcp(&query(&format!("{zone} SOA"))).await).unwrap().answers.remove(0);
            let mut question = message(&format!("{zone} TYPE251"));
            question.authorities = vec![soa.clone()];
            assert_eq!(whole(&tiers, &question).await, (vec![soa.clone()], 1), "{zone}");
            let RData::SOA(mut data) = soa.data.clone() else { panic!("{soa}") };
            // Another server of the zone was faster.
            data.serial = data.serial.wrapping_add(1);
            question.authorities[0].data = RData::SOA(data.clone());
            assert_eq!(whole(&tiers, &question).await, (vec![soa], 1), "{zone}");
            data.serial = data.serial.wrapping_sub(2);
            question.authorities[0].data = RData::SOA(data);
            assert!(whole(&tiers, &question).await.0.len() > 10, "{zone}");
            question.authorities.clear();
            let said = Message::from_vec(&tiers.tcp(&question.to_vec().unwrap()).await).unwrap();
            assert_eq!(said.metadata.response_code, ResponseCode::FormErr, "{zone}");
        }
    });
}

#[test]
fn d43_d18_nobody_else_has_a_zone() {
    run(async {
        let tiers = served_with(BOTH, outside(), "127.0.0.1:0").await;
        let refused = |bytes: Vec<u8>| Message::from_vec(&bytes).unwrap().metadata.response_code == Refused;
        assert!(refused(tiers.udp(&query("cluster.local AXFR")).await), "over UDP");
        assert!(refused(tiers.tcp(&query("shop.svc.cluster.local AXFR")).await), "what is no zone");
        assert!(refused(tiers.tcp(&query("www.example AXFR")).await), "another zone");
        for (client, may) in [("192.0.2.1", true), ("::ffff:192.0.2.1", true), ("192.0.2.2", false), ("::1", false)] {
            let outcome =
                tiers.responder.respond_to(&query("cluster.local AXFR"), Transport::Tcp, client.parse().unwrap());
            assert_eq!(matches!(outcome, Outcome::Transfer(_)), may, "{client}");
        }
        let tiers = served("cluster.local {\nkubernetes\nacl {\nblock net 127.0.0.1\n}\ntransfer {\nto *\n}\n}").await;
        assert!(refused(tiers.tcp(&query("cluster.local AXFR")).await), "whom acl blocks");
        let renamed = ". {\nkubernetes cluster.local\nrewrite name cluster.local other.example\n\
                       acl cluster.local {\nblock\n}\ntransfer {\nto *\n}\n}";
        let tiers = served(renamed).await;
        assert!(refused(tiers.tcp(&query("cluster.local AXFR")).await), "whom acl blocks, under a name of its own");
        let tiers = served(". {\nkubernetes cluster.local\n}").await;
        assert!(refused(tiers.tcp(&query("cluster.local AXFR")).await), "without transfer");
    });
}

/// What is left of a zone on its way.
fn rest(messages: impl Iterator<Item = Result<Response, TransferError>>) -> Vec<Record> {
    messages.flat_map(|message| Message::from_vec(&message.unwrap().encode()).unwrap().answers).collect()
}

#[test]
fn d43_a_zone_on_its_way_is_the_one_that_was_asked_for() {
    run(async {
        for zone in ["cluster.local", "out.example"] {
            let responder = answering(BOTH, outside(), Transfers::default()).await;
            let asked = query(&format!("{zone} AXFR"));
            let ask = || match responder.respond_to(&asked, Transport::Tcp, [192, 0, 2, 1].into()) {
                Outcome::Transfer(transfer) => transfer,
                _ => panic!("{zone} is a zone"),
            };
            let whole = rest(ask());
            let mut on_its_way = ask();
            let first = rest(on_its_way.next().into_iter());
            // Everything goes while the client reads.
            {
                let mut changing = responder.zone.write().unwrap();
                let names = changing.names().map(|(name, _)| name.clone());
                let removed = names.filter(|name| name.to_string().contains(".svc.")).collect();
                let outside = changing.outsides().all(true).map(|(name, _)| name.clone()).collect();
                let outside = OutsideDelta { removed: outside, ..OutsideDelta::default() };
                changing.update(Delta { removed, outside, ..Delta::default() });
            }
            assert_eq!([first, rest(on_its_way)].concat(), whole, "{zone}");
            assert!(rest(ask()).len() < whole.len(), "{zone}");
        }
    });
}

#[test]
fn d43_a_zone_that_is_not_taken_in_time_ends_the_connection() {
    run(async {
        let responder = answering(BOTH, outside(), Transfers::within(Duration::ZERO)).await;
        let tiers = Tiers::start(responder).await;
        let mut stream = TcpStream::connect(tiers.server.tcp_addresses()[0]).await.unwrap();
        write(&mut stream, &query("cluster.local AXFR")).await;
        let first = Message::from_vec(&read(&mut stream).await).unwrap();
        assert_eq!(first.answers[0].record_type(), RecordType::SOA);
        assert_ne!(first.answers.last(), first.answers.first(), "not all of it");
        let ended = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an end");
        assert!(ended.is_err(), "and nothing more");
    });
}
