//! What CoreDNS' own tests say about its plugins, as cases of ours: hosts, rewrite, template, cache and forward. Those of
//! kubernetes are in `answers`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::client::{query, run};
use crate::elsewhere::{Upstream, response};
use crate::sites::{says, served, wrong};

use ResponseCode::{NXDomain, NoError, Refused, ServFail};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn soa(zone: &str, ttl: u32) -> Record {
    Record::from_rdata(name(zone), ttl, RData::SOA(SOA::new(name(zone), name(zone), 1, 60, 60, 60, ttl)))
}

#[test]
fn d36_hosts_answer_as_the_table_of_coredns_has_it() {
    run(async {
        let tiers = served(
            ". {\nkubernetes cluster.local\nhosts none {\n127.0.0.1 localhost localhost.domain\n::1 localhost localhost.domain\n10.0.0.1 example.org\n\
             ::FFFF:10.0.0.2 example.com\n10.0.0.3 fallthrough.org\nfe80::1%lo0 link.example\nfallthrough fallthrough.org\n}\n}",
        )
        .await;
        let one = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa";
        let loopback = [format!("{one}. 3600 IN PTR localhost."), format!("{one}. 3600 IN PTR localhost.domain.")];
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("example.org A", NoError, &["example.org. 3600 IN A 10.0.0.1"]),
            ("Example.ORG A", NoError, &["Example.ORG. 3600 IN A 10.0.0.1"]),
            // IPv4, as IPv6 writes it.
            ("example.com A", NoError, &["example.com. 3600 IN A 10.0.0.2"]),
            ("example.com AAAA", NoError, &[]),
            ("localhost A", NoError, &["localhost. 3600 IN A 127.0.0.1"]),
            ("localhost AAAA", NoError, &["localhost. 3600 IN AAAA ::1"]),
            ("link.example AAAA", NoError, &["link.example. 3600 IN AAAA fe80::1"]),
            ("1.0.0.10.in-addr.arpa PTR", NoError, &["1.0.0.10.in-addr.arpa. 3600 IN PTR example.org."]),
            ("2.0.0.10.in-addr.arpa PTR", NoError, &["2.0.0.10.in-addr.arpa. 3600 IN PTR example.com."]),
            ("3.0.0.10.in-addr.arpa PTR", NoError, &["3.0.0.10.in-addr.arpa. 3600 IN PTR fallthrough.org."]),
            (
                "1.0.0.127.in-addr.arpa PTR",
                NoError,
                &[
                    "1.0.0.127.in-addr.arpa. 3600 IN PTR localhost.",
                    "1.0.0.127.in-addr.arpa. 3600 IN PTR localhost.domain.",
                ],
            ),
            (&format!("{one} PTR"), NoError, &[&loopback[0], &loopback[1]]),
            ("example.org AAAA", NoError, &[]),
            ("example.org MX", NoError, &[]),
            ("fallthrough.org MX", NoError, &[]),
            ("other.org A", ServFail, &[]),
            // These go on, and there is nobody.
            ("x.fallthrough.org A", Refused, &[]),
            ("9.0.0.10.in-addr.arpa PTR", Refused, &[]),
            ("example.org PTR", Refused, &[]),
        ];
        says(&tiers, cases).await;
    });
}

/// A world in which the name that is asked for is in the answer: as the target of an alias with an address, or of a port.
fn echo(question: &Message, _: bool) -> Vec<Vec<u8>> {
    let query = &question.queries[0];
    let mut message = response(question);
    let asked = query.name().to_lowercase();
    let target = name("at.").append_domain(&asked).unwrap();
    let (first, second) = match query.query_type() {
        RecordType::SRV => (RData::SRV(SRV::new(0, 1, 80, target.clone())), None),
        _ => (RData::CNAME(CNAME(target.clone())), Some(RData::A(A::new(192, 0, 2, 7)))),
    };
    message.answers.push(Record::from_rdata(query.name().clone(), 60, first));
    message.answers.extend(second.map(|data| Record::from_rdata(target, 60, data)));
    vec![message.to_vec().unwrap()]
}

#[test]
fn d33_rewrites_change_and_change_back_as_the_tables_of_coredns_have_it() {
    // The rule, the question, and the answer.
    type Row<'r> = (&'r str, &'r str, &'r [&'r str]);
    let rows: &[Row<'_>] = &[
        (
            "name core.dns.rocks dns.core.rocks",
            "core.dns.rocks A",
            &["core.dns.rocks. 60 IN CNAME at.dns.core.rocks.", "at.dns.core.rocks. 60 IN A 192.0.2.7"],
        ),
        (
            "name regex (core)\\.(dns)\\.(rocks) {2}.{1}.{3} answer name (dns)\\.(core)\\.(rocks) {2}.{1}.{3}",
            "core.dns.rocks A",
            &["core.dns.rocks. 60 IN CNAME at.dns.core.rocks.", "core.dns.rocks. 60 IN A 192.0.2.7"],
        ),
        (
            "name regex (core)\\.(dns)\\.(rocks) {2}.{1}.{3} answer name (dns)\\.(core)\\.(rocks) {2}.{1}.{3} answer value (.*)\\.(dns)\\.(core)\\.(rocks) {1}.{3}.{2}.{4}",
            "core.dns.rocks SRV",
            &["core.dns.rocks. 60 IN SRV 0 1 80 at.core.dns.rocks."],
        ),
        (
            "name suffix .core.dns .dns.core answer auto",
            "a.core.dns SRV",
            &["a.core.dns. 60 IN SRV 0 1 80 at.a.core.dns."],
        ),
        (
            "name prefix core dns answer auto",
            "core.rocks A",
            &["core.rocks. 60 IN CNAME at.dns.rocks.", "at.dns.rocks. 60 IN A 192.0.2.7"],
        ),
        (
            "name substring service.consul service.example",
            "web.service.consul A",
            &["web.service.consul. 60 IN CNAME at.web.service.example.", "at.web.service.example. 60 IN A 192.0.2.7"],
        ),
        ("type HTTPS SRV", "a.example HTTPS", &["a.example. 60 IN SRV 0 1 80 at.a.example."]),
        ("ttl core.dns.rocks 10", "core.dns.rocks SRV", &["core.dns.rocks. 10 IN SRV 0 1 80 at.core.dns.rocks."]),
        ("ttl suffix rocks 1-5", "core.dns.rocks SRV", &["core.dns.rocks. 5 IN SRV 0 1 80 at.core.dns.rocks."]),
        ("ttl prefix core 70-", "core.dns.rocks SRV", &["core.dns.rocks. 70 IN SRV 0 1 80 at.core.dns.rocks."]),
        ("ttl regex (.*)\\.rocks -30", "core.dns.rocks SRV", &["core.dns.rocks. 30 IN SRV 0 1 80 at.core.dns.rocks."]),
        ("ttl substring dns 15", "core.rocks SRV", &["core.rocks. 60 IN SRV 0 1 80 at.core.rocks."]),
        // The first rule that is for it ends it.
        ("stop name a.b c.d\nrewrite name c.d e.f", "a.b SRV", &["a.b. 60 IN SRV 0 1 80 at.c.d."]),
        ("continue name a.b c.d\nrewrite name c.d e.f", "a.b SRV", &["a.b. 60 IN SRV 0 1 80 at.e.f."]),
    ];
    run(async {
        let upstream = Upstream::start(echo).await;
        for (rule, question, answers) in rows {
            let tiers =
                served(&format!(". {{\nkubernetes cluster.local\nrewrite {rule}\nforward . {}\n}}", upstream.address))
                    .await;
            says(&tiers, &[(question, NoError, answers)]).await;
        }
    });
}

#[test]
fn d33_rules_that_are_none_are_refused_as_in_the_table_of_coredns() {
    for rule in [
        "",
        "name",
        "name a.com",
        "name regex (a b answer name c d extra",
        "name suffix a b answer",
        "name regex a b answer name c",
        "type A",
        "type A NOTYPE",
        "type ANY-THING A",
        "ttl a.com",
        "ttl a.com many",
        "ttl a.com 5-1",
        "ttl a.com -",
        "ttl nowhere a.com 5",
        "verse a b",
    ] {
        let error = wrong(&format!(". {{\nkubernetes cluster.local\nrewrite {rule}\n}}"));
        assert!(error.contains("Corefile:3"), "{rule}: {error}");
    }
}

#[test]
fn d34_templates_answer_as_the_table_of_coredns_has_it() {
    run(async {
        let part = "match \"(^|[.])ip-10-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$\"";
        let address = "{{ .Name }} 60 IN A 10.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}";
        let tiers = served(&format!(
            ". {{\nkubernetes cluster.local\ntemplate IN A example {{\n{part}\nanswer \"{address}\"\nfallthrough\n}}\n\
             template IN MX example {{\n{part}\nanswer \"{{{{ .Name }}}} 60 MX 10 {{{{ .Name }}}}\"\nadditional \"{address}\"\nfallthrough\n}}\n\
             template IN TXT example {{\nanswer \"{{{{ .Zone }}}} 60 IN TXT {{{{ .Type }}}} {{{{ .Class }}}}\"\n}}\n\
             template ANY ANY invalid {{\nrcode NXDOMAIN\n\
             authority \"invalid. 60 {{{{ .Class }}}} SOA ns.invalid. hostmaster.invalid. (1 60 60 60 60)\"\n}}\n\
             template IN A refused.test {{\nrcode REFUSED\n}}\n}}"
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("ip-10-95-12-8.example A", NoError, &["ip-10-95-12-8.example. 60 IN A 10.95.12.8"]),
            ("my.ip-10-95-12-8.example A", NoError, &["my.ip-10-95-12-8.example. 60 IN A 10.95.12.8"]),
            ("ip-10-95-12-8.example MX", NoError, &["ip-10-95-12-8.example. 60 IN MX 10 ip-10-95-12-8.example."]),
            ("a.example TXT", NoError, &["example. 60 IN TXT TXTIN"]),
            // An address that is none.
            ("ip-10-300-12-8.example A", ServFail, &[]),
            // Nothing is like it, and it goes on to nobody.
            ("ip-11-95-12-8.example A", Refused, &[]),
            ("ip-10-95-12-8.example AAAA", Refused, &[]),
            ("test.invalid MX", NXDomain, &[]),
            ("invalid A", NXDomain, &[]),
            ("a.refused.test A", Refused, &[]),
        ];
        for (question, code, answers) in cases {
            let message = Message::from_vec(&tiers.tcp(&query(question)).await).unwrap();
            let found: Vec<String> = message.answers.iter().map(ToString::to_string).collect();
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!((message.metadata.response_code, &found[..]), (*code, *answers), "{question}");
        }
        let with_more = Message::from_vec(&tiers.tcp(&query("ip-10-95-12-8.example MX")).await).unwrap();
        assert_eq!(with_more.additionals[0].to_string(), "ip-10-95-12-8.example. 60 IN A 10.95.12.8");
        let denied = Message::from_vec(&tiers.tcp(&query("test.invalid MX")).await).unwrap();
        assert_eq!(
            denied.authorities[0].to_string(),
            "invalid. 60 IN SOA ns.invalid. hostmaster.invalid. 1 60 60 60 60"
        );
    });
}

/// A world in which the first label says what kind of answer there is.
fn kinds(question: &Message, over_tcp: bool) -> Vec<Vec<u8>> {
    let query = &question.queries[0];
    let label = query.name().iter().next().map(|label| String::from_utf8_lossy(label).to_lowercase()).unwrap();
    let mut message = response(question);
    let address = |ttl| Record::from_rdata(query.name().clone(), ttl, RData::A(A::new(192, 0, 2, 7)));
    match label.as_str() {
        "long" => message.answers.push(address(86_400)),
        "short" => message.answers.push(address(3)),
        "zero" => message.answers.push(address(0)),
        "gone" => {
            message.metadata.response_code = NXDomain;
            message.authorities.push(soa("example.", 3600));
        }
        "nodata" => message.authorities.push(soa("example.", 3600)),
        "gone-alone" => message.metadata.response_code = NXDomain,
        "cut" => {
            message.answers.push(address(60));
            // Over TCP there is nothing either.
            message.metadata.truncation = !over_tcp;
            if over_tcp {
                return Vec::new();
            }
        }
        "failed" => message.metadata.response_code = ServFail,
        _ => {}
    }
    vec![message.to_vec().unwrap()]
}

#[test]
fn d31_what_is_kept_and_for_how_long_is_as_in_the_tables_of_coredns() {
    run(async {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let upstream = Upstream::start(move |question, over_tcp| {
            counted.fetch_add(1, Ordering::Relaxed);
            kinds(question, over_tcp)
        })
        .await;
        let kept_ttl = |options: &'static str| {
            let (count, address) = (Arc::clone(&count), upstream.address);
            async move {
                let tiers =
                    served(&format!(". {{\nkubernetes cluster.local\ncache {options}\nforward . {address}\n}}")).await;
                let mut found: BTreeMap<&str, Option<u32>> = BTreeMap::new();
                for label in ["long", "short", "zero", "gone", "nodata", "gone-alone", "cut", "failed", "empty"] {
                    let asked = query(&format!("{label}.example A"));
                    let first = Message::from_vec(&tiers.udp(&asked).await).unwrap();
                    let before = count.load(Ordering::Relaxed);
                    let again = Message::from_vec(&tiers.udp(&asked).await).unwrap();
                    let is_kept = count.load(Ordering::Relaxed) == before;
                    assert_eq!(first.metadata.response_code, again.metadata.response_code, "{label}");
                    let ttl = again.answers.iter().chain(&again.authorities).map(|record| record.ttl).min();
                    found.insert(label, is_kept.then_some(ttl.unwrap_or(0)));
                }
                found
            }
        };
        let table = |long, short, gone, nodata| {
            let kept = [("long", long), ("short", short), ("gone", gone), ("nodata", nodata), ("failed", 0)];
            let kept = kept.map(|(label, ttl)| (label, Some(ttl)));
            let not = ["zero", "gone-alone", "cut", "empty"].map(|label| (label, None));
            kept.into_iter().chain(not).collect::<BTreeMap<_, _>>()
        };
        // A second may pass between question and question.
        let near = |found: &BTreeMap<&str, Option<u32>>, wanted: &BTreeMap<&str, Option<u32>>| {
            found.iter().zip(wanted).all(|((label, found), (also, wanted))| {
                let close = |found: u32, wanted: u32| found <= wanted && found + 2 >= wanted;
                label == also
                    && match (found, wanted) {
                        (Some(found), Some(wanted)) => close(*found, *wanted),
                        (found, wanted) => found == wanted,
                    }
            })
        };
        for (options, wanted) in [
            ("30", table(30, 3, 30, 30)),
            ("", table(3600, 3, 1800, 1800)),
            ("{\nsuccess 1000 20\ndenial 1000 7\n}", table(20, 3, 7, 7)),
        ] {
            // Where the machine is busy, what lives for three seconds may be gone when it is asked for again.
            let mut found = kept_ttl(options).await;
            for _ in 0..3 {
                if near(&found, &wanted) {
                    break;
                }
                found = kept_ttl(options).await;
            }
            assert!(near(&found, &wanted), "cache {options}: {found:?} instead of {wanted:?}");
        }
    });
}

#[test]
fn d31_servers_to_forward_to_are_read_as_in_the_table_of_coredns() {
    for right in [
        "forward . 127.0.0.1",
        "forward . 127.0.0.1 {\nhealth_check 0.5s\n}",
        "forward . 127.0.0.1 {\nexcept miek.nl\n}",
        "forward . 127.0.0.1 {\nmax_fails 3\n}",
        "forward . 127.0.0.1 {\nforce_tcp\n}",
        "forward . 127.0.0.1 {\nprefer_udp\n}",
        "forward . 127.0.0.1:53",
        "forward . 127.0.0.1:8080 [::1]:53",
        "forward . ::1",
        "forward . dns://127.0.0.1",
        "forward . tls://127.0.0.1 {\ntls_servername dns\n}",
        "forward . tls://127.0.0.1 127.0.0.2",
        "forward . 127.0.0.1 {\npolicy round_robin\nexpire 20s\nmax_concurrent 1000\n}",
        "forward 10.9.3.0/24 127.0.0.1",
        "forward com ::1\nforward net ::1",
    ] {
        run(async { drop(served(&format!(". {{\nkubernetes cluster.local\n{right}\n}}")).await) });
    }
    for refused in [
        "forward",
        "forward .",
        "forward . a27.0.0.1",
        "forward . 127.0.0.1 {\nblaatl\n}",
        "forward . 127.0.0.1 {\npolicy best\n}",
        "forward . 127.0.0.1 {\nmax_concurrent many\n}",
        "forward . 127.0.0.1 {\nmax_concurrent -4\n}",
        "forward . 127.0.0.1 {\nexpire soon\n}",
        "forward . 127.0.0.1 {\nforce_tcp now\n}",
        "forward . grpc://127.0.0.1",
    ] {
        let error = wrong(&format!(". {{\nkubernetes cluster.local\n{refused}\n}}"));
        assert!(error.contains("Corefile:3") || error.contains("Corefile:4"), "{refused}: {error}");
    }
}
