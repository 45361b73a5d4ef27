//! What the kernel says in the server's place, held against what the server says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_datapath::dns::{DnsAnswer, DnsName};
use fairlead_datapath::testing::Node;
use fairlead_dns::manner::Manner;
use fairlead_dns::mirror::{self, Mirror};
use fairlead_dns::wire::RecordType;
use fairlead_dns::zone::{Delta, Facts};
use fairlead_dns::{WireName, Zone, fast};
use fairlead_objects::Event;
use fairlead_objects::zone::{Holds, Line, Name, SOCKET};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::client::query;
use crate::fixture::{MANNER, builder, origin, responder, zone, zone_of};
use crate::properties::{any_damaged_query, any_event, any_query};
use crate::sites::site;

#[path = "../../fuzz/fuzz_targets/query/kernel.rs"]
mod said;

use said::{kernel_says, node};

/// Whatever the kernel says, the server says the same.
fn agree(node: &mut Node, zone: &Zone, manner: Manner, query: &[u8]) -> Result<Option<Vec<u8>>, TestCaseError> {
    let mut server = Vec::new();
    let answered = fast::respond(zone, manner, query, &mut server);
    let mut said = None;
    for (v6, partial) in [(false, true), (true, false)] {
        said = kernel_says(node, query, v6, partial);
        if let Some(said) = &said {
            prop_assert!(answered, "the server leaves it to the long way: {:?}", said);
            prop_assert_eq!(said, &server);
        }
    }
    Ok(said)
}

fn built(events: &[Event]) -> Zone {
    let mut zone = zone_of(events.iter().cloned());
    zone.set_synced();
    zone
}

thread_local! {
    static CLUSTER: (Zone, std::cell::RefCell<Node>) = {
        let zone = zone();
        let node = node(&zone, MANNER);
        (zone, node.into())
    };
}

proptest! {
    #[test]
    fn d49_the_kernel_says_what_the_server_says(bytes in any_query()) {
        CLUSTER.with(|(zone, node)| agree(&mut node.borrow_mut(), zone, MANNER, &bytes))?;
    }

    #[test]
    fn the_kernel_says_what_the_server_says_to_damaged_queries(bytes in any_damaged_query()) {
        CLUSTER.with(|(zone, node)| agree(&mut node.borrow_mut(), zone, MANNER, &bytes))?;
    }

    #[test]
    fn the_kernel_says_what_the_server_says_to_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        CLUSTER.with(|(zone, node)| agree(&mut node.borrow_mut(), zone, MANNER, &bytes))?;
    }

    #[test]
    fn the_kernel_says_what_the_server_says_of_any_cluster(
        events in vec(any_event(), 0..30), queries in vec(any_query(), 0..20), recursion in any::<bool>(),
    ) {
        let (zone, manner) = (built(&events), Manner { recursion, ..MANNER });
        let mut node = node(&zone, manner);
        for (name, _) in zone.names() {
            for kind in ["A", "AAAA"] {
                for text in [name.to_string(), format!("x.{name}"), name.to_string().to_ascii_uppercase()] {
                    agree(&mut node, &zone, manner, &query(&format!("{} {kind}", text.trim_end_matches('.'))))?;
                }
            }
        }
        for query in queries {
            agree(&mut node, &zone, manner, &query)?;
        }
    }

    /// What has changed is told as names that are there and names that are gone, the former first, and at no moment does the kernel
    /// deny what is there before and afterwards.
    #[test]
    fn d50_no_change_denies_what_exists(before in vec(any_event(), 0..20), more in vec(any_event(), 1..10)) {
        let mut builder = builder();
        let mut zone = zone_of([]);
        zone.set_synced();
        let mut take = |zone: &mut Zone, events: Vec<Event>| {
            events.into_iter().for_each(|event| builder.apply(event));
            builder.settle().into_iter().for_each(|delta| zone.update(delta));
        };
        take(&mut zone, before);
        let mut node = node(&zone, MANNER);
        let known: Vec<WireName> = zone.names().map(|(name, _)| name.clone()).collect();
        let changes = zone.follow();
        drop(changes);
        take(&mut zone, more);
        let changed = zone.take_changed(usize::MAX);
        prop_assert!(!zone.has_changed());
        let after = self::node(&zone, MANNER);
        let stays = |name: &&WireName| zone.facts(name.as_wire()).is_some();
        let set = changed.iter().filter(stays).filter_map(|name| DnsName::of(name.as_wire()));
        let gone = changed.iter().filter(|name| !stays(name)).filter_map(|name| DnsName::of(name.as_wire()));
        let steps = set.map(|key| (key, Some(after.host.names[&key]))).chain(gone.map(|key| (key, None)));
        for (key, facts) in steps.collect::<Vec<_>>() {
            match facts {
                Some(facts) => drop(node.host.names.insert(key, facts)),
                None => drop(node.host.names.remove(&key)),
            }
            for name in known.iter().filter(stays) {
                let query = query(&format!("{} A", name.to_string().trim_end_matches('.')));
                if let Some(said) = kernel_says(&mut node, &query, false, false) {
                    prop_assert_eq!(said[3] & 15, 0, "{} is denied", name);
                }
            }
        }
        prop_assert_eq!(&node.host.names, &after.host.names, "what was told is what is there");
    }
}

#[test]
fn d49_the_kernel_answers_what_it_is_meant_to() {
    let zone = zone();
    let mut node = node(&zone, MANNER);
    for (question, answer) in [
        ("web.shop.svc.cluster.local A", Some(DnsAnswer::A)),
        ("web.shop.svc.cluster.local AAAA", Some(DnsAnswer::Aaaa)),
        ("web4.shop.svc.cluster.local AAAA", Some(DnsAnswer::NoAaaa)),
        ("web6.shop.svc.cluster.local A", Some(DnsAnswer::NoA)),
        ("_http._tcp.web.shop.svc.cluster.local A", Some(DnsAnswer::A)),
        ("_tcp.web.shop.svc.cluster.local A", Some(DnsAnswer::NoA)),
        ("pets-0.pets.shop.svc.cluster.local A", Some(DnsAnswer::A)),
        ("four.shop.svc.cluster.local A", Some(DnsAnswer::A)),
        ("shop.svc.cluster.local A", Some(DnsAnswer::NoA)),
        ("cluster.local A", Some(DnsAnswer::NoA)),
        ("empty.pod.cluster.local AAAA", Some(DnsAnswer::NoAaaa)),
        ("lonely.shop.svc.cluster.local A", Some(DnsAnswer::NoNameForA)),
        ("www.example.org.shop.svc.cluster.local AAAA", Some(DnsAnswer::NoNameForAaaa)),
        ("www.example.org.svc.cluster.local A", Some(DnsAnswer::NoNameForA)),
        ("www.example.org.cluster.local A", Some(DnsAnswer::NoNameForA)),
        // The server's.
        ("www.example.org A", None),
        ("pets.shop.svc.cluster.local A", None),
        ("outside.shop.svc.cluster.local A", None),
        ("web.shop.svc.cluster.local SRV", None),
        ("web.shop.svc.cluster.local HTTPS", None),
        ("10-0-0-1.shop.pod.cluster.local A", None),
        ("x.pod.cluster.local A", None),
        ("ns.dns.cluster.local A", None),
        ("dns.cluster.local A", None),
    ] {
        let counts = |node: &Node| DnsAnswer::ALL.map(|answer| node.host.answers(answer));
        let before = counts(&node);
        let said = agree(&mut node, &zone, MANNER, &query(question)).unwrap();
        assert_eq!(said.is_some(), answer.is_some(), "{question}");
        let expected = DnsAnswer::ALL.map(|each| if Some(each) == answer { 2 } else { 0 });
        let counted = counts(&node);
        assert_eq!(std::array::from_fn(|at| counted[at] - before[at]), expected, "{question}");
    }
}

/// A Corefile with these lines besides what kubeadm's has for the cluster, and these blocks behind it.
fn corefile(cluster: &str, more: &str, blocks: &str) -> String {
    format!(
        ".:53 {{\n kubernetes cluster.local in-addr.arpa ip6.arpa {{\n{cluster}\n }}\n{more}\n forward . 192.0.2.53\n}}\n{blocks}"
    )
}

#[tokio::test]
async fn d50_what_a_configuration_does_with_names_of_the_zone_is_the_servers() {
    const FALLS: &str = "fallthrough in-addr.arpa ip6.arpa";
    const ANSWER: &str = "{\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n }";
    let (elsewhere, inside) =
        (format!("template IN A example.org {ANSWER}"), format!("template IN A svc.cluster.local {ANSWER}"));
    for (cluster, more, blocks, says) in [
        (FALLS, "", "", None),
        (FALLS, "cache 30\nloop\nreload\nloadbalance\nerrors\nprometheus :9153", "", None),
        (FALLS, "hosts {\n 192.0.2.1 a.example\n fallthrough\n }", "", None),
        (FALLS, &elsewhere, "", None),
        (FALLS, "", "example.org:53 {\n forward . 192.0.2.54\n log\n}\n", None),
        ("fallthrough", "", "", Some("fallthrough")),
        (FALLS, "hosts {\n 192.0.2.1 a.svc.cluster.local\n fallthrough\n }", "", Some("hosts")),
        (FALLS, "hosts {\n 192.0.2.1 a.example\n }", "", Some("hosts")),
        (FALLS, &inside, "", Some("template")),
        (FALLS, "log", "", Some("query log")),
        (FALLS, "rewrite name a.svc.cluster.local b.svc.cluster.local", "", Some("rewrite")),
        (FALLS, "acl {\n block net 192.0.2.0/24\n }", "", Some("acl")),
        (FALLS, "dns64", "", Some("dns64")),
        (FALLS, "", "shop.svc.cluster.local:53 {\n forward . 192.0.2.54\n}\n", Some("server block")),
    ] {
        let site = site(&corefile(cluster, more, blocks));
        let besides = site.besides(&origin());
        assert_eq!(besides.is_some(), says.is_some(), "{more} {blocks}: {besides:?}");
        assert!(besides.is_none_or(|besides| says.is_some_and(|says| besides.contains(says))), "{more}: {besides:?}");
        if besides.is_none() {
            for name in ["cluster.local", "a.svc.cluster.local", "x.shop.svc.cluster.local"] {
                for (client, kind) in [([10, 244, 0, 1], RecordType::A), ([192, 0, 2, 1], RecordType::AAAA)] {
                    let name = WireName::parse(name).unwrap();
                    assert!(site.is_short(name.as_wire(), kind, client.into()), "{more} {blocks}");
                }
            }
        }
    }
}

/// What an agent has been told.
#[derive(Default)]
struct Agent {
    begun: usize,
    names: BTreeMap<String, Name>,
    gone: usize,
}

impl Agent {
    /// Reads until all of it holds, or the server says that it is silent.
    async fn read(&mut self, lines: &mut Lines<BufReader<UnixStream>>) -> Result<Holds, String> {
        loop {
            let line = timeout(Duration::from_secs(20), lines.next_line()).await.unwrap().unwrap().unwrap();
            match Line::decode(line.as_bytes()).unwrap() {
                Line::Begin(_) => {
                    self.names.clear();
                    self.begun += 1;
                }
                Line::Names(names) => {
                    self.names.extend(names.into_iter().map(|name| (name.name.clone(), name)));
                }
                Line::Gone(names) => {
                    names.iter().for_each(|name| drop(self.names.remove(name)));
                    self.gone += names.len();
                }
                Line::Holds(holds) => return Ok(holds),
                Line::Silent(why) => return Err(why),
            }
        }
    }
}

#[tokio::test]
async fn d50_the_agent_is_told_what_there_is_and_what_changes_and_nothing_while_that_may_be_old() {
    let directory = std::env::temp_dir().join(format!("fairlead-mirror-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let socket = directory.join(SOCKET);
    drop(std::fs::remove_file(&socket));
    let listener = UnixListener::bind(&socket).unwrap();
    let responder = responder(zone(), None);
    let old = Arc::new(AtomicBool::new(false));
    let is_old = Arc::clone(&old);
    let server = mirror::Server {
        directory: directory.clone(),
        listen: vec!["10.244.0.9:5353".parse().unwrap()],
        obstacle: Box::new(move || is_old.load(Ordering::Relaxed).then(|| "it may be old".to_owned())),
    };
    let keeping = tokio::spawn(Mirror::new(Arc::clone(&responder), server).keep());
    let (stream, _) = listener.accept().await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut agent = Agent::default();
    let all = |zone: &Zone| -> BTreeMap<String, Name> {
        zone.names().filter_map(|(name, _)| mirror::told(zone, name)).map(|name| (name.name.clone(), name)).collect()
    };
    let holds = agent.read(&mut lines).await.unwrap();
    assert!(holds.complete && holds.at > 0);
    assert_eq!((agent.begun, agent.gone), (1, 0));
    {
        let zone = responder.zone.read().unwrap();
        assert_eq!((agent.names.clone(), holds.serial), (all(&zone), zone.serial()));
        assert!(agent.names.len() > 300, "it takes several lines");
    }
    // One name has another address, one comes and one goes.
    let name = |text: &str| WireName::parse(text).unwrap();
    let facts = |last| Facts { v4: [[10, 96, 0, last].into()].into(), ..Facts::default() };
    let set = vec![
        (name("web.shop.svc.cluster.local"), facts(77).into()),
        (name("new.shop.svc.cluster.local"), facts(78).into()),
    ];
    let removed = vec![name("web4.shop.svc.cluster.local")];
    responder.zone.write().unwrap().update(Delta { set, removed, ..Delta::default() });
    while agent.gone == 0 {
        agent.read(&mut lines).await.unwrap();
    }
    assert_eq!((agent.begun, agent.gone), (1, 1));
    assert_eq!(agent.names, all(&responder.zone.read().unwrap()));
    old.store(true, Ordering::Relaxed);
    let why = loop {
        if let Err(why) = agent.read(&mut lines).await {
            break why;
        }
    };
    assert_eq!(why, "it may be old");
    old.store(false, Ordering::Relaxed);
    while agent.read(&mut lines).await.is_err() {}
    assert_eq!(agent.begun, 2, "what was told before is told again");
    assert_eq!(agent.names, all(&responder.zone.read().unwrap()));
    // Another TTL is another beginning.
    responder.zone.write().unwrap().configure(77, Default::default());
    while agent.begun == 2 {
        agent.read(&mut lines).await.unwrap();
    }
    keeping.abort();
    std::fs::remove_dir_all(&directory).unwrap();
}
