//! What comes before and behind the cluster's zone: server blocks and their rules, in every tier.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fairlead_dns::corefile::{Corefile, translate};
use fairlead_dns::feed::{Make, feed};
use fairlead_dns::files::Files;
use fairlead_dns::full::{Outcome, Responder, Short, Transfers};
use fairlead_dns::manner::Transport;
use fairlead_dns::meter::Maker;
use fairlead_dns::plan::{Makers, Own, Plan};
use fairlead_dns::site::Site;
use fairlead_dns::stats::Stats;
use fairlead_dns::{Builder, Zone};
use fairlead_objects::{Event, Object, ObjectKey, Phase, Pod};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use tokio::sync::{mpsc, watch};

use crate::client::{Tiers, query, run, without_ttls};
use crate::elsewhere::Upstream;
use crate::fixture::{cluster, of_site};

/// Files in memory.
struct Memory(BTreeMap<&'static str, String>);

impl Files for Memory {
    fn text(&self, path: &Path) -> io::Result<String> {
        let known = path.to_str().and_then(|path| self.0.get(path));
        known.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

fn files(corefile: &str) -> Memory {
    Memory(BTreeMap::from([("Corefile", corefile.to_owned()), ("hosts", "192.0.2.50 fixed.example\n".to_owned())]))
}

fn plan(corefile: &str) -> Plan {
    let corefile = Corefile::read(Path::new("Corefile"), &files(corefile)).unwrap();
    translate(&corefile, 100).unwrap()
}

/// Why a Corefile is refused.
pub(crate) fn wrong(corefile: &str) -> String {
    let plan = Corefile::read(Path::new("Corefile"), &files(corefile)).and_then(|read| translate(&read, 100));
    plan.expect_err("it is wrong").to_string()
}

/// What a Corefile says, where nothing is of a cluster yet.
pub(crate) fn site(corefile: &str) -> Site {
    Makers::default().make(&plan(corefile), &files(corefile), &Own::default()).unwrap()
}

/// A responder with the small cluster, and a pod in it, that does as a Corefile says.
pub(crate) async fn served(corefile: &str) -> Tiers {
    served_with(corefile, Vec::new(), "127.0.0.1:0").await
}

/// The same with more objects, at an address.
pub(crate) async fn served_with(corefile: &str, more: Vec<Object>, address: &str) -> Tiers {
    Tiers::listen(answering(corefile, more, Transfers::default()).await, address).await
}

/// What answers as a Corefile says.
pub(crate) async fn answering(corefile: &str, more: Vec<Object>, transfers: Transfers) -> Arc<Responder> {
    let plan = plan(corefile);
    let site = site(corefile);
    let zone = Zone::new(plan.origin.clone(), plan.ttl).unwrap();
    let mut responder = of_site(zone, site);
    Arc::get_mut(&mut responder).unwrap().transfers = transfers;
    fill(&responder, &plan, more).await;
    responder
}

/// Feeds a responder with the cluster's objects.
async fn fill(responder: &Arc<Responder>, plan: &Plan, more: Vec<Object>) {
    let pod = Pod {
        created: None,
        static_uid: None,
        bandwidth: fairlead_objects::Bandwidth::default(),
        key: ObjectKey::new("shop", "one"),
        uid: String::new(),
        labels: Default::default(),
        node_name: None,
        ips: vec!["10.244.1.10".parse().unwrap()],
        host_network: false,
        phase: Phase::Running,
        terminating: false,
        container_ports: vec![],
    };
    let mut objects = cluster();
    objects.extend(more);
    for object in &mut objects {
        if let Object::EndpointSlice(slice) = object
            && slice.key.name == "four-1"
        {
            slice.endpoints[0].pod = Some(ObjectKey::new("shop", "pod-of-four"));
        }
    }
    objects.push(Object::Pod(pod));
    let kinds = Builder::KINDS.into_iter().chain([fairlead_objects::Kind::Pod]);
    let events: Vec<Event> = objects.into_iter().map(Event::Applied).chain(kinds.map(Event::Synced)).collect();
    let (send, receive) = mpsc::channel(events.len());
    for event in events {
        send.send(event).await.unwrap();
    }
    drop(send);
    let (_make, made) = watch::channel(Make { options: plan.options.clone(), ttl: plan.ttl });
    feed(receive, Builder::new(&plan.origin).unwrap(), Arc::clone(responder), made).await;
}

/// What every tier says: the code, and the answer's records.
async fn said(tiers: &Tiers, question: &str) -> (ResponseCode, Vec<String>) {
    let message = Message::from_vec(&tiers.ask(&query(question), false).await).unwrap();
    let asked = Message::from_vec(&query(question)).unwrap();
    assert_eq!(message.queries, asked.queries, "the question is the client's");
    (message.metadata.response_code, message.answers.iter().map(ToString::to_string).collect())
}

pub(crate) async fn says(tiers: &Tiers, cases: &[(&str, ResponseCode, &[&str])]) {
    for (question, code, answers) in cases {
        let found = said(tiers, question).await;
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        assert_eq!(found, (*code, answers), "{question}");
    }
}

use ResponseCode::{NXDomain, NoError, Refused, ServFail};

#[test]
fn d33_questions_are_answered_as_others_and_keep_their_names() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let tiers = served(&format!(
            ". {{\nkubernetes cluster.local\nrewrite name api.example web4.shop.svc.cluster.local\n\
             rewrite continue name suffix .old.example .new.example answer auto\nrewrite ttl suffix .new.example 9\n\
             rewrite name nothing.example nothing.shop.svc.cluster.local\nrewrite type TXT A\nforward . {}\n}}",
            upstream.address
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("API.example A", NoError, &["API.example. 5 IN A 10.96.0.4"]),
            ("api.example AAAA", NoError, &[]),
            ("nothing.example A", NXDomain, &[]),
            ("x.Old.example A", NoError, &["x.Old.example. 9 IN A 192.0.2.7"]),
            ("web4.shop.svc.cluster.local A", NoError, &["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"]),
            ("www.example A", NoError, &["www.example. 60 IN A 192.0.2.7"]),
            ("www.example TXT", NoError, &["www.example. 60 IN A 192.0.2.7"]),
        ];
        says(&tiers, cases).await;
    });
}

#[test]
fn d34_templates_block_types_and_make_wildcards() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let tiers = served(&format!(
            ". {{\nkubernetes cluster.local\ntemplate IN AAAA example {{\nrcode NOERROR\n}}\n\
             template IN A apps.test {{\nanswer \"{{{{ .Name }}}} 30 IN A 192.0.2.9\"\n}}\n\
             template ANY ANY gone.test {{\nrcode NXDOMAIN\nauthority \"gone.test 60 IN SOA ns.gone.test host.gone.test 1 60 60 60 60\"\n}}\nforward . {}\n}}",
            upstream.address
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("www.example AAAA", NoError, &[]),
            ("www.example A", NoError, &["www.example. 60 IN A 192.0.2.7"]),
            ("Any.apps.test A", NoError, &["Any.apps.test. 30 IN A 192.0.2.9"]),
            ("a.gone.test MX", NXDomain, &[]),
            ("web4.shop.svc.cluster.local AAAA", NoError, &[]),
        ];
        says(&tiers, cases).await;
        let gone = Message::from_vec(&tiers.tcp(&query("a.gone.test A")).await).unwrap();
        assert!(gone.metadata.authoritative && gone.authorities.len() == 1, "{gone:?}");
    });
}

#[test]
fn d35_the_longest_zone_that_a_name_is_in_decides() {
    run(async {
        let [all, corp, deep] =
            [Upstream::of("192.0.2.1").await, Upstream::of("192.0.2.2").await, Upstream::of("192.0.2.3").await];
        let tiers = served(&format!(
            ". {{\nforward . {}\n}}\ncluster.local {{\nkubernetes\n}}\ncorp.example b.example {{\n\
             forward deep.corp.example {}\nforward corp.example {} {{\nexcept no.corp.example\n}}\n}}",
            all.address, deep.address, corp.address
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("www.example A", NoError, &["www.example. 60 IN A 192.0.2.1"]),
            ("www.corp.example A", NoError, &["www.corp.example. 60 IN A 192.0.2.2"]),
            ("x.deep.corp.example A", NoError, &["x.deep.corp.example. 60 IN A 192.0.2.3"]),
            ("no.corp.example A", Refused, &[]),
            ("b.example A", Refused, &[]),
            ("web4.shop.svc.cluster.local A", NoError, &["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"]),
            ("no.shop.svc.cluster.local A", NXDomain, &[]),
        ];
        says(&tiers, cases).await;
        let tiers = served("cluster.local {\nkubernetes\n}").await;
        says(&tiers, &[("www.example A", Refused, &[]), ("4.0.96.10.in-addr.arpa PTR", Refused, &[])]).await;
    });
}

#[test]
fn d36_fixed_addresses_of_a_corefile_come_first() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let hosts = "hosts hosts {\n192.0.2.51 web4.shop.svc.cluster.local two.example\nttl 77\n";
        let tiers = served(&format!(
            ". {{\nkubernetes cluster.local\n{hosts}fallthrough\n}}\nforward . {}\n}}",
            upstream.address
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("fixed.example A", NoError, &["fixed.example. 77 IN A 192.0.2.50"]),
            ("fixed.example AAAA", NoError, &[]),
            ("web4.shop.svc.cluster.local A", NoError, &["web4.shop.svc.cluster.local. 77 IN A 192.0.2.51"]),
            (
                "51.2.0.192.in-addr.arpa PTR",
                NoError,
                &[
                    "51.2.0.192.in-addr.arpa. 77 IN PTR web4.shop.svc.cluster.local.",
                    "51.2.0.192.in-addr.arpa. 77 IN PTR two.example.",
                ],
            ),
            ("web.shop.svc.cluster.local AAAA", NoError, &["web.shop.svc.cluster.local. 5 IN AAAA fd00:10:96::1"]),
            ("www.example A", NoError, &["www.example. 60 IN A 192.0.2.7"]),
        ];
        says(&tiers, cases).await;
        // Without fallthrough there is nothing else.
        let tiers = served(&format!(
            ". {{\nkubernetes cluster.local\n{hosts}no_reverse\n}}\nforward . {}\n}}",
            upstream.address
        ))
        .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("two.example A", NoError, &["two.example. 77 IN A 192.0.2.51"]),
            ("www.example A", ServFail, &[]),
            ("web.shop.svc.cluster.local A", ServFail, &[]),
            ("51.2.0.192.in-addr.arpa PTR", NoError, &["51.2.0.192.in-addr.arpa. 60 IN A 192.0.2.7"]),
        ];
        says(&tiers, cases).await;
    });
}

#[test]
fn d37_clients_are_refused_filtered_and_dropped() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let with = |rules: &str| {
            format!(". {{\nkubernetes cluster.local\nacl {{\n{rules}\n}}\nforward . {}\n}}", upstream.address)
        };
        let tiers = served(&with("filter type AAAA\nallow net 10.0.0.0/8 127.0.0.0/8\nblock")).await;
        // Over the wire the client is on the loopback; whoever is nobody is not.
        for (question, code, answers) in [
            ("web.shop.svc.cluster.local A", NoError, 1),
            ("web.shop.svc.cluster.local AAAA", NoError, 0),
            ("www.example AAAA", NoError, 0),
            ("www.example A", NoError, 1),
        ] {
            let message = Message::from_vec(&tiers.udp(&query(question)).await).unwrap();
            assert_eq!((message.metadata.response_code, message.answers.len()), (code, answers), "{question}");
        }
        let tiers = served(&with("block net 127.0.0.1")).await;
        for question in ["web.shop.svc.cluster.local A", "www.example A"] {
            for message in [tiers.udp(&query(question)).await, tiers.tcp(&query(question)).await] {
                assert_eq!(Message::from_vec(&message).unwrap().metadata.response_code, Refused, "{question}");
            }
        }
        let tiers = served(&with("drop type A")).await;
        let outcome = tiers.responder.respond(&query("www.example A"), Transport::Udp);
        assert!(matches!(outcome, Outcome::Silence));
    });
}

#[test]
fn d38_options_of_the_clusters_zone_are_those_of_coredns() {
    run(async {
        let served = async |options: &str, zones: &str| {
            served(&format!(". {{\nkubernetes cluster.local {zones} {{\n{options}\n}}\n}}")).await
        };
        let reverse = "in-addr.arpa ip6.arpa";
        let pod = "10-244-1-10.shop.pod.cluster.local A";
        let stranger = "10-244-9-9.shop.pod.cluster.local A";
        for (mode, [here, nowhere]) in [
            ("pods insecure", [NoError, NoError]),
            ("pods verified", [NoError, NXDomain]),
            ("pods disabled", [NXDomain, NXDomain]),
            ("", [NXDomain, NXDomain]),
        ] {
            let tiers = served(mode, reverse).await;
            assert_eq!([said(&tiers, pod).await.0, said(&tiers, stranger).await.0], [here, nowhere], "{mode}");
            assert_eq!(
                said(&tiers, "10-244-1-10.empty.pod.cluster.local A").await.0,
                if mode == "pods insecure" { NoError } else { NXDomain }
            );
        }
        let tiers = served("namespaces kube-system", reverse).await;
        for (question, code) in [
            ("web.shop.svc.cluster.local A", NXDomain),
            ("shop.svc.cluster.local A", NXDomain),
            ("kube-dns.kube-system.svc.cluster.local A", NoError),
            ("1.0.96.10.in-addr.arpa PTR", NXDomain),
            ("10.0.96.10.in-addr.arpa PTR", NoError),
        ] {
            assert_eq!(said(&tiers, question).await.0, code, "{question}");
        }
        let tiers = served("noendpoints", reverse).await;
        assert_eq!(said(&tiers, "pets.shop.svc.cluster.local A").await.0, NXDomain);
        assert_eq!(said(&tiers, "web.shop.svc.cluster.local A").await.0, NoError);
        let tiers = served("ignore empty_service", reverse).await;
        assert_eq!(said(&tiers, "web4.shop.svc.cluster.local A").await.0, NXDomain);
        assert_eq!(said(&tiers, "web.shop.svc.cluster.local A").await.0, NoError);
        let tiers = served("endpoint_pod_names", reverse).await;
        assert_eq!(said(&tiers, "pod-of-four.four.shop.svc.cluster.local A").await.1.len(), 1);
        assert_eq!(said(&tiers, "10-244-1-30.four.shop.svc.cluster.local A").await.0, NXDomain);
        assert_eq!(said(&tiers, "pets-0.pets.shop.svc.cluster.local A").await.1.len(), 1);
        // Reverse zones without fallthrough are answered here, to the end.
        let tiers = served("", "10.0.0.0/8").await;
        let denied = Message::from_vec(&tiers.ask(&query("9.9.9.10.in-addr.arpa PTR"), false).await).unwrap();
        assert_eq!(denied.metadata.response_code, NXDomain);
        assert_eq!(denied.authorities[0].name.to_string(), "10.in-addr.arpa.");
        assert_eq!(said(&tiers, "9.9.9.11.in-addr.arpa PTR").await.0, Refused);
        assert_eq!(said(&tiers, "1.0.96.10.in-addr.arpa PTR").await.1.len(), 1);
        let tiers = served("", "").await;
        assert_eq!(said(&tiers, "1.0.96.10.in-addr.arpa PTR").await.0, Refused);
    });
}

#[test]
fn d38_names_that_do_not_exist_fall_through() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let tiers =
            served(&format!(". {{\nkubernetes cluster.local {{\nfallthrough\n}}\nforward . {}\n}}", upstream.address))
                .await;
        let cases: &[(&str, ResponseCode, &[&str])] = &[
            ("no.shop.svc.cluster.local A", NoError, &["no.shop.svc.cluster.local. 60 IN A 192.0.2.7"]),
            ("web4.shop.svc.cluster.local A", NoError, &["web4.shop.svc.cluster.local. 5 IN A 10.96.0.4"]),
            ("web4.shop.svc.cluster.local AAAA", NoError, &[]),
        ];
        says(&tiers, cases).await;
    });
}

#[test]
fn d31_a_site_without_rules_keeps_its_servers_when_it_changes() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let text = |ttl: u32| {
            format!(". {{\nkubernetes cluster.local {{\nttl {ttl}\n}}\ncache 60\nforward . {}\n}}", upstream.address)
        };
        let mut makers = Makers::default();
        let mut make = |text: &str| makers.make(&plan(text), &files(text), &Own::default()).unwrap();
        let (one, two) = (make(&text(5)), make(&text(6)));
        assert!(Arc::ptr_eq(&one.forwarders()[0], &two.forwarders()[0]), "what is kept stays");
        let other = make(&text(6).replace("cache 60", "cache 50"));
        assert!(!Arc::ptr_eq(&one.forwarders()[0], &other.forwarders()[0]));
    });
}

#[test]
fn d31_certificate_authorities_are_read_again_when_their_file_changes() {
    let authority = |name: &str| {
        let certified = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        certified.cert.pem()
    };
    run(async {
        let text =
            ". {\nkubernetes cluster.local\nforward . tls://192.0.2.7 {\ntls ca.pem\ntls_servername dns.example\n}\n}";
        let with = |pem: &str| {
            let mut files = files(text);
            files.0.insert("ca.pem", pem.to_owned());
            files
        };
        let mut makers = Makers::default();
        let mut make = |pem: &str| makers.make(&plan(text), &with(pem), &Own::default());
        let (one, other) = (authority("one"), authority("other"));
        let first = make(&one).unwrap();
        let same = make(&one).unwrap();
        assert!(Arc::ptr_eq(&first.forwarders()[0], &same.forwarders()[0]), "what is kept stays");
        assert!(make("").is_err(), "a file without certificates is a mistake, and the last good one stays");
        let next = make(&other).unwrap();
        assert!(!Arc::ptr_eq(&first.forwarders()[0], &next.forwarders()[0]), "new connections trust the new ones");
    });
}

#[test]
fn d15_the_dns_service_is_the_one_with_this_server_behind_it() {
    use crate::fixture::{endpoint, service, slice, zone_of};
    use fairlead_objects::Protocol;
    let dns = &[("dns", Protocol::Udp, 53)];
    let objects = [
        Object::Service(service("dns", "resolver", &["10.96.0.53"], dns)),
        Object::Service(service("dns", "numbers", &["10.96.0.54"], &[("metrics", Protocol::Tcp, 9153)])),
        Object::EndpointSlice(slice("dns", "resolver-1", "resolver", dns, vec![endpoint("10.244.8.1", "", true)])),
        Object::EndpointSlice(slice(
            "dns",
            "numbers-1",
            "numbers",
            &[("metrics", Protocol::Tcp, 9153)],
            vec![endpoint("10.244.8.1", "", true)],
        )),
    ];
    let objects = cluster().into_iter().chain(objects).map(Event::Applied).chain(Builder::KINDS.map(Event::Synced));
    run(async {
        let mut zone = zone_of(objects);
        let own = |text: &str| [text.parse().unwrap(), "127.0.0.1".parse().unwrap()];
        zone.set_own(own("10.244.8.1"));
        assert!(
            zone.is_dns_service("10.96.0.53".parse().unwrap()) && zone.is_dns_service("10.244.8.1".parse().unwrap())
        );
        assert!(!zone.is_dns_service("10.96.0.54".parse().unwrap()));
        let tiers = Tiers::start(crate::fixture::responder(zone, None)).await;
        let message = Message::from_vec(&tiers.ask(&query("cluster.local NS"), false).await).unwrap();
        let lines = |records: &[hickory_proto::rr::Record]| records.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(lines(&message.answers), ["cluster.local. 5 IN NS resolver.dns.svc.cluster.local."]);
        assert_eq!(lines(&message.additionals), ["resolver.dns.svc.cluster.local. 5 IN A 10.96.0.53"]);
        // Without any DNS Service it is this server.
        let mut zone = zone_of(Builder::KINDS.map(Event::Synced));
        zone.set_own(own("10.244.8.1"));
        let tiers = Tiers::start(crate::fixture::responder(zone, None)).await;
        let message = Message::from_vec(&tiers.ask(&query("cluster.local NS"), false).await).unwrap();
        assert_eq!(lines(&message.answers), ["cluster.local. 5 IN NS ns.dns.cluster.local."]);
        assert_eq!(lines(&message.additionals), ["ns.dns.cluster.local. 5 IN A 10.244.8.1"]);
    });
}

#[test]
fn d31_what_is_kept_is_given_without_a_task() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let tiers =
            served(&format!(". {{\nkubernetes cluster.local\ncache 60\nforward . {}\n}}", upstream.address)).await;
        tiers.udp(&query("www.example A")).await;
        let with = |code: u16| {
            let mut message = crate::client::message("www.example A");
            let mut edns = Edns::new();
            edns.options_mut().insert(EdnsOption::Unknown(code, vec![7; 8]));
            message.edns = Some(edns);
            message.to_vec().unwrap()
        };
        // With a cookie, as clients that have them send it: on the short way.
        let (responder, mut out) = (&tiers.responder, Vec::new());
        let local = std::net::Ipv4Addr::LOCALHOST.into();
        let said = {
            let zone = responder.zone.read().unwrap();
            responder.respond_shortly(&zone, &responder.site(), &with(10), Transport::Udp, local, &mut out)
        };
        assert!(matches!(said, Short::Written(Maker::Cache)));
        assert_eq!(Message::from_vec(&out).unwrap().answers.len(), 1);
        // With an option that nobody knows: on the long way, at once.
        let Outcome::Reply(response) = responder.respond(&with(65001), Transport::Udp) else { panic!("it is kept") };
        // A second may pass in between.
        assert_eq!(without_ttls(&response.encode()), without_ttls(&out));
        let Stats { cached, forwarded, .. } = &responder.stats;
        assert_eq!((cached.get(), forwarded.get()), (1, 1));
    });
}

#[test]
fn d31_equal_routes_of_different_server_blocks_stay_apart_when_the_configuration_is_read_again() {
    run(async {
        let first = Upstream::start(|question, _| vec![crate::upstreams::fails(question, NXDomain)]).await;
        let (second, third) = (Upstream::of("192.0.2.2").await, Upstream::of("192.0.2.3").await);
        let (a, b, c) = (first.address, second.address, third.address);
        let corefile = format!(
            "corp.example:53 {{\nforward . {a} {{\nnext NXDOMAIN\n}}\nforward . {b}\n}}\n\
             .:53 {{\nkubernetes cluster.local\nforward . {a} {{\nnext NXDOMAIN\n}}\nforward . {c}\n}}\n"
        );
        let (plan, mut makers) = (plan(&corefile), Makers::default());
        let mut make = || makers.make(&plan, &files(&corefile), &Own::default()).unwrap();
        let before = make();
        let kept = before.forwarders();
        let tiers = Tiers::start(of_site(crate::fixture::zone(), before)).await;
        let questions = ["www.corp.example A", "www.example.org A"];
        let says = async |question: &str| crate::upstreams::address(&crate::upstreams::udp(&tiers, question).await);
        let mut said = vec![];
        for _ in 0..3 {
            for question in questions {
                said.push(says(question).await);
            }
            tiers.responder.set_site(make());
        }
        assert_eq!(said, ["192.0.2.2", "192.0.2.3"].repeat(3));
        let now = tiers.responder.site().forwarders();
        let same = kept.iter().zip(&now).all(|(one, other)| Arc::ptr_eq(one, other));
        assert!(same && kept.len() == 4 && now.len() == 4, "what is known about servers is kept");
    });
}
