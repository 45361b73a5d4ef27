//! What pods with a limit send and receive in a second, with real TCP and UDP.

use std::net::IpAddr;
use std::thread;

use fairlead_tests::{Bulk, Drops, Lab, Pod, Probes, Vantage};

const EGRESS: &str = "kubernetes.io/egress-bandwidth";
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";

/// The limit of every pod that has one, in bits a second.
const LIMIT: f64 = 20e6;

/// What may arrive of that: TCP does not use all of it, and a burst of a quarter of a second may fall into the second and a half
/// that are counted.
const ALLOWED: std::ops::RangeInclusive<f64> = 0.6 * LIMIT..=1.2 * LIMIT;

/// What no limit is in the way of, on a machine that is busy with other tests.
const FREE: f64 = 3.0 * LIMIT;

/// A transfer: from where, to where, and by which address.
struct Case<'a>(&'a str, &'a Vantage, &'a Vantage, IpAddr, bool);

/// Measures them at once.
fn measure(cases: &[Case<'_>]) -> Vec<(String, f64)> {
    thread::scope(|scope| {
        let one = |(port, Case(name, from, at, ip, udp)): (u16, &Case<'_>)| {
            let bulk = if *udp { Bulk::udp(*ip, port) } else { Bulk::tcp(*ip, port) };
            (format!("{name} {ip}"), bulk.measure(*from, *at))
        };
        let running: Vec<_> = (6000..).zip(cases).map(|case| scope.spawn(move || one(case))).collect();
        running.into_iter().map(|each| each.join().expect("it says why itself")).collect()
    })
}

/// Measures until all are as they should be, a few times at most: what a limit lets through is always about the same, and a
/// machine that is busy with other tests is not.
#[track_caller]
fn assert_rates(cases: &[Case<'_>], as_wanted: impl Fn(&[f64]) -> bool) {
    let mut seen = Vec::new();
    for _ in 0..6 {
        let results = measure(cases);
        let rates: Vec<f64> = results.iter().map(|(_, rate)| *rate).collect();
        if as_wanted(&rates) {
            return;
        }
        seen.push(results);
    }
    panic!("{seen:#?}");
}

#[test]
fn c42_pods_send_and_receive_what_their_annotations_say() {
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1");
    let limited = |name: &str, key: &str| node.pod(&format!("rate/{name}")).annotation(key, "20M").start();
    let mut senders = ["a", "b", "c", "d"].map(|name| limited(name, EGRESS));
    let receivers = ["e", "f", "g"].map(|name| limited(name, INGRESS));
    let (free, near) = (node.pod("rate/free").start(), node.pod("rate/near").start());
    let far = lab.node("node-2").pod("rate/far").start();
    let status = || node.fairlead(&["status"]).stdout;
    assert!(status().contains("egress 20Mbit/s (the excess is dropped: no fq at the uplink)"), "{}", status());
    assert!(status().contains("ingress 20Mbit/s (the excess is dropped)"), "{}", status());

    let outside = [lab.client(), lab.far_client()];
    let of = |pod: &Pod, family: usize| pod.ips()[family];
    let [a, b, c, d] = &senders;
    let [e, f, g] = &receivers;
    let limited = [
        Case("to a pod beside", a.vantage(), near.vantage(), of(&near, 0), false),
        Case("to a pod elsewhere", b.vantage(), far.vantage(), of(&far, 1), false),
        Case("to the outside", c.vantage(), outside[0], [172, 18, 0, 100].into(), false),
        Case("to a pod beside, UDP", d.vantage(), near.vantage(), of(&near, 1), true),
        Case("from a pod beside", free.vantage(), e.vantage(), of(e, 1), false),
        Case("from the node", node.vantage(), f.vantage(), of(f, 0), false),
        Case("from a pod elsewhere", far.vantage(), g.vantage(), of(g, 0), false),
    ];
    assert_rates(&limited, |rates| rates.iter().all(|rate| ALLOWED.contains(rate)));
    assert!(Drops::of(node).count("bandwidth") > 0);

    // The other direction has no limit, nor have others, while that one is in use.
    let beside = [
        Case("limited", a.vantage(), near.vantage(), of(&near, 0), false),
        Case("to who sends with a limit", free.vantage(), b.vantage(), of(b, 0), false),
        Case("beside it", free.vantage(), near.vantage(), of(&near, 1), false),
    ];
    let are_free = |rates: &[f64]| rates.iter().all(|rate| *rate > FREE);
    assert_rates(&beside, |rates| ALLOWED.contains(&rates[0]) && are_free(&rates[1..]));

    // A change, the end of a limit, and one that can't be read.
    for (sender, value) in senders.iter_mut().zip([Some("40M"), None, Some("a lot")]) {
        sender.annotate(EGRESS, value);
    }
    lab.wait_until("the changes are in force", || {
        let text = status();
        let done = text.contains("egress 40Mbit/s") && text.matches("egress 20Mbit/s").count() == 1;
        if done { Ok(()) } else { Err(text) }
    });
    assert!(status().contains("kubernetes.io/egress-bandwidth]: \"a lot\" is not a bandwidth"), "{}", status());
    let [a, b, c, _] = &senders;
    let changed = [
        Case("changed", a.vantage(), near.vantage(), of(&near, 0), false),
        Case("ended", b.vantage(), near.vantage(), of(&near, 1), false),
        Case("unreadable", c.vantage(), near.vantage(), of(&near, 0), false),
    ];
    assert_rates(&changed, |rates| ALLOWED.contains(&(rates[0] / 2.0)) && are_free(&rates[1..]));
}
