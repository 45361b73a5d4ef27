//! Many connections at the same time to one address and port.

use std::thread;
use std::time::Duration;

use fairlead_tests::{Drive, Drops, Ending, Hold, Lab, Pod, Probes};

use crate::world::{PORT, assert_clean, dropped, outside};

/// Of each of four pods; together nearly what the last tenth of the ports leaves them.
const EACH: u32 = 14_400;

/// Of a pod with few.
const FEW: u32 = 500;

/// More than half of the ports there are, in two parts: a thread of the lab may not have many more files.
const FLOOD: [u32; 2] = [16_700; 2];

/// A cluster of one node with pods that have as many source ports of their own as they want.
fn world(pods: &[&str]) -> (Lab, Vec<Pod>) {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let start = |key: &&str| {
        let pod = node.pod(key).start();
        pod.must_run(&["sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535"]);
        pod
    };
    let pods = pods.iter().map(start).collect();
    (lab, pods)
}

#[test]
fn s49_nearly_all_ports_at_the_same_time_and_a_pod_with_few() {
    let (lab, pods) = world(&["many/one", "many/two", "many/three", "many/four", "many/few"]);
    let _sink = lab.client().sink(PORT);
    let [to, _] = outside();
    let (few, many) = pods.split_last().expect("there are five");
    let mut held: Vec<_> = thread::scope(|scope| {
        let hold = Hold { to, count: EACH };
        let each: Vec<_> = many.iter().map(|pod| scope.spawn(move || pod.hold(&hold))).collect();
        each.into_iter().map(|each| each.join().expect("it opens them")).collect()
    });
    held.push(few.hold(&Hold { to, count: FEW }));
    for (pod, held) in pods.iter().zip(&held) {
        assert_clean(&lab, held.opened(), &format!("{} opens its connections", pod.key()));
    }
    // All are open now: each is used.
    thread::scope(|scope| {
        let each: Vec<_> = held.into_iter().map(|held| scope.spawn(|| held.exchange())).collect();
        for (pod, each) in pods.iter().zip(each) {
            assert_clean(&lab, &each.join().expect("it exchanges"), &format!("{} uses its connections", pod.key()));
        }
    });
}

#[test]
fn s49_a_pod_that_takes_all_it_can_get_leaves_others_theirs() {
    let (lab, pods) = world(&["flood/flooder", "flood/other"]);
    let _sink = lab.client().sink(PORT);
    let [to, _] = outside();
    let [flooder, other] = &pods[..] else { unreachable!("there are two") };
    let beside = Drive { to, ending: Ending::ServerCloses, rate: 100, during: Duration::from_secs(3) };
    let (held, driven) = thread::scope(|scope| {
        let flood = FLOOD.map(|count| scope.spawn(move || flooder.hold(&Hold { to, count })));
        let driven = other.drive(&beside);
        (flood.map(|part| part.join().expect("it floods")), driven)
    });
    assert_clean(&lab, &driven, "beside a flood");
    let opened = held.each_ref().map(|part| part.opened().failed.clone());
    let refused: u64 = opened.iter().filter_map(|failed| failed.get("connect: no answer")).sum();
    assert!(refused > 0, "the flooder gets {FLOOD:?} connections but for {opened:?}\n{}", dropped(&lab));
    assert!(Drops::of(lab.node("node-1")).count("port_share") >= refused, "{}", dropped(&lab));
    for ending in Ending::ALL {
        let driven = other.drive(&Drive { ending, rate: 500, during: Duration::from_secs(1), ..beside });
        assert_clean(&lab, &driven, &format!("after a flood, {ending}"));
    }
    for part in held {
        assert_clean(&lab, &part.exchange(), "what the flooder has");
    }
}
