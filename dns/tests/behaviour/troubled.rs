//! The process while its upstream servers lead back to it, or don't answer: what it says about that, and where.

use std::cell::Cell;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;

use crate::operated::{OWN, Served};
use crate::process::{free_address, get, udp, wait_for};

const OTHER: &str = "www.example.org A";

/// What `/ready` says.
fn ready(served: &Served) -> String {
    let (status, text) = get(&served.places.0[1], "/ready").expect("an answer");
    assert_eq!(status, 200, "{text}");
    text
}

/// Queries that had to be asked elsewhere.
fn forwarded(served: &Served) -> u32 {
    let said = served.metric("fairlead_dns_answers_total");
    said.iter().find_map(|line| line.strip_prefix("{way=\"forward\"} ")).unwrap().parse().unwrap()
}

#[test]
fn d31_a_loop_of_two_servers_is_found_at_start_said_and_left_out() {
    let addresses = [free_address(), free_address()];
    let to = |address| format!("nameserver {address}");
    let one = Served::at(addresses[0], "loop-one", &to(addresses[1]));
    // What it asks comes back to it by way of the first.
    let other = Served::at(addresses[1], "loop-other", &to(addresses[0]));
    let loops = format!("{{to=\"{}\"}} 1", addresses[0]);
    wait_for("the loop is found", || other.metric("fairlead_dns_upstream_loop").contains(&loops));
    assert_eq!(
        ready(&other),
        format!("OK\nloop: the upstream server {} leads back here and is not asked", addresses[0])
    );
    wait_for("it is said", || other.log().contains("loop detected"));
    let log = other.log();
    assert!(log.contains("WARN") && log.contains("a probe that was sent to it"), "{log}");

    for served in [&one, &other] {
        assert_eq!(udp(served.address, OTHER).unwrap().metadata.response_code, ResponseCode::ServFail);
        assert!(udp(served.address, OWN).is_some_and(|said| !said.answers.is_empty()), "other names are answered");
    }
    // One question of each client, and a few probes: nothing goes round.
    let all = [forwarded(&one), forwarded(&other)];
    assert!(all.iter().sum::<u32>() <= 12, "{all:?}");
}

#[test]
fn d31_an_upstream_that_becomes_the_dns_service_is_left_out_until_it_is_none() {
    const SERVER: &str = "192.0.2.1:53";
    let served = Served::at(free_address(), "loop-service", &format!("nameserver {SERVER}"));
    assert_eq!(ready(&served), "OK");
    let manifest = served.directory.0.join("objects/dns.yaml");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system}, \
        spec: {clusterIP: 192.0.2.1, clusterIPs: [192.0.2.1], ports: [{name: dns, port: 53, protocol: UDP}]}}";
    std::fs::write(&manifest, service).unwrap();
    wait_for("the loop is found", || ready(&served).contains(&format!("loop: the upstream server {SERVER}")));
    wait_for("it is said", || served.log().contains("it is an address of this server or of the cluster's DNS Service"));
    // Sooner than when it is waited for. What failed before is known, so each name is new.
    let number = Cell::new(0);
    wait_for("other names fail at once", || {
        number.set(number.get() + 1);
        let begin = Instant::now();
        let said = udp(served.address, format!("name-{}.example.org A", number.get()).leak()).expect("an answer");
        assert_eq!(said.metadata.response_code, ResponseCode::ServFail);
        begin.elapsed() < Duration::from_secs(2)
    });
    std::fs::remove_file(&manifest).unwrap();
    wait_for("it is used again", || ready(&served) == "OK");
    wait_for("that is said", || served.log().contains("no longer loops back here"));
}

#[test]
fn d31_what_is_wrong_with_upstream_servers_is_said_and_a_failure_now_and_then() {
    let address = free_address();
    let nobody = free_address();
    let servers = format!("nameserver dns.example\nnameserver {address}\nnameserver {nobody}");
    let begin = Instant::now();
    const QUERIES: usize = 50;
    let served = Served::at(address, "failing", &servers);
    for number in 0..QUERIES {
        let said = udp(address, format!("name-{number}.example.org A").leak()).expect("an answer");
        assert_eq!(said.metadata.response_code, ResponseCode::ServFail);
    }
    // Nobody waits long for one that says that it isn't there, and each failure counts as one.
    assert!(begin.elapsed() < Duration::from_secs(100), "{:?}", begin.elapsed());
    let metrics = |name: &str| served.metric(name);
    let failed = format!("{{reason=\"upstream\"}} {QUERIES}");
    assert!(metrics("fairlead_dns_failures_total").contains(&failed), "{:?}", metrics("fairlead_dns_failures_total"));
    assert!(metrics("coredns_cache_served_stale_total")[0].ends_with(" 0"));
    let log = served.log();
    for wanted in ["line ignored: it has no valid server", "dns.example", "upstream server ignored: it is this server"]
    {
        assert!(log.contains(wanted), "{wanted}: {log}");
    }
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains("does not answer")).collect();
    let most = 1 + begin.elapsed().as_secs() / Duration::from_secs(10).as_secs();
    assert!((1..=most).contains(&(complaints.len() as u64)), "{log}");
    for wanted in ["WARN", "connection refused", &nobody.to_string(), "check that it runs"] {
        assert!(complaints[0].contains(wanted), "{wanted}: {complaints:?}");
    }
}
