//! Refusals are counted: by reason, and to the pod that they are of.

use std::collections::BTreeMap;

use fairlead_tests::frames::flags::{ACK, PSH};
use fairlead_tests::frames::{Segment, Wire, datagram, segment};
use fairlead_tests::{Drops, Pod, Probe, Probes};
use serde_json::json;

use crate::world::{MARK, SILENCE, policy, wait_until_silent, world};

/// Packets of each kind and family.
const EACH: u64 = 5;

#[test]
fn s69_what_is_refused_is_counted_to_the_pod_that_sent_it_or_whose_policy_it_was() {
    let lab = world();
    let node = lab.node("node-1");
    let attacker = node.pod("counted/attacker").start();
    let quiet = node.pod("counted/quiet").start();
    policy(lab, "counted", "closed", &json!({"policyTypes": ["Ingress"]}));
    let closed = node.pod("counted/closed").label("role", "closed").udp(53).tcp(80).start();
    wait_until_silent(lab, &attacker, &closed, 80);
    let count = |pod: &str, reason: &str| Drops::of(node).of_pod(pod).get(reason).copied().unwrap_or_default();
    let denied = || count(closed.key(), "ingress_policy");
    let before = denied();
    let mut wire = Wire::of(&attacker);
    for ((own, stolen), to) in attacker.ips().into_iter().zip(quiet.ips()).zip(closed.ips()) {
        for _ in 0..EACH {
            let (kind, packet) = datagram(stolen, to, (45_001, 53), MARK);
            wire.send(kind, &packet);
            let (kind, packet) = datagram(own, to, (45_002, 53), MARK);
            wire.send(kind, &packet);
        }
    }
    lab.wait_until("all are counted", || match (count(attacker.key(), "source_address"), denied() - before) {
        (spoofed, denied) if spoofed == 2 * EACH && denied >= 2 * EACH => Ok(()),
        other => Err(other),
    });
    let of = |pod: &str| Drops::of(node).of_pod(pod);
    assert_eq!(
        of(attacker.key()),
        BTreeMap::from([("source_address".to_owned(), 2 * EACH)]),
        "that was all of its own"
    );
    assert_eq!(of(quiet.key()), BTreeMap::new(), "whose address was stolen has sent nothing");
    // What comes from another node, or from outside, is of the pod that it was for.
    let far = lab.node("node-2").pod("counted/far").start();
    for (number, ip) in (1..).zip(closed.ips()) {
        let before = denied();
        let probe = Probe::udp(ip, 53).timeout(SILENCE);
        assert!(far.probe(&probe).is_err() && lab.client().probe(&probe).is_err());
        assert!(denied() >= before + 2, "{number}: {:?}", of(closed.key()));
    }
    answers_are_of_whose_policy_it_is(&attacker);
    let key = attacker.key().to_owned();
    attacker.delete();
    assert_eq!(of(&key), BTreeMap::new(), "a pod that is gone has no counts");
}

/// What a pod still says in a connection that its ingress policy has come to deny is its own, and not of who is at the other end.
#[track_caller]
fn answers_are_of_whose_policy_it_is(client: &Pod) {
    let lab = world();
    let node = lab.node("node-1");
    let later = node.pod("counted/later").label("role", "later").tcp(80).start();
    let open = later.ips().map(|ip| client.connect(&Probe::tcp(ip, 80)).unwrap());
    policy(lab, "counted", "later", &json!({"policyTypes": ["Ingress"]}));
    wait_until_silent(lab, &lab.node("node-2").pod("counted/asks").start(), &later, 80);
    let denied = |pod: &Pod| Drops::of(node).of_pod(pod.key()).get("ingress_policy").copied().unwrap_or_default();
    let before = [denied(client), denied(&later)];
    let mut wire = Wire::of(&later);
    for ((own, to), open) in later.ips().into_iter().zip(client.ips()).zip(&open) {
        let says = Segment { ack: 1, payload: MARK, ..Segment::new(ACK | PSH) };
        let (kind, packet) = segment(own, to, (80, open.greeting().local.port()), &says);
        (0..EACH).for_each(|_| wire.send(kind, &packet));
    }
    lab.wait_until("all are counted to whose policy it is", || match denied(&later) - before[1] {
        count if count >= 2 * EACH => Ok(()),
        other => Err(other),
    });
    assert_eq!(denied(client), before[0]);
}
