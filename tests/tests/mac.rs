//! Pods whose MAC address is not the one that ADD gave them: row C44.

use std::time::{Duration, Instant};

use fairlead_tests::{Lab, Probes, assert_reaches, probes};

const MACS: [&str; 2] = ["02:11:22:33:44:55", "02:11:22:33:44:66"];

#[test]
fn c44_a_pod_with_another_mac_address_is_reached_by_everybody() {
    let lab = Lab::builder().nodes(2).start();
    let node = lab.node("node-1");
    node.serve("host/node-1", &[80], &[53]);
    lab.client().serve("outside/server", &[80], &[53]);
    let tuned = node.pod("net/tuned").tcp(80).udp(53).tuned(MACS[0]).start();
    let near = node.pod("net/near").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("net/far").tcp(80).udp(53).start();
    for mac in MACS {
        // The first it has from the chain, the second it gives itself.
        if mac != MACS[0] {
            tuned.tune(mac);
        }
        // The node asks first: nothing that the pod sends tells of the change.
        for to in tuned.ips() {
            for probe in probes(to) {
                let ask = || node.probe(&probe.clone().timeout(Duration::from_millis(200)));
                assert_eq!(lab.wait_until("the node reaches the pod", ask).server.pod, "net/tuned");
            }
        }
        for outside in ["172.18.0.100", "fd00:172:18::100"] {
            for probe in probes(outside.parse().unwrap()) {
                assert_eq!(tuned.probe(&probe).unwrap().server.pod, "outside/server", "the answer comes by the stack");
            }
        }
        for (client, server) in [(&near, &tuned), (&far, &tuned), (&tuned, &near), (&tuned, &far)] {
            assert_reaches(client, server);
        }
        for to in node.ips() {
            for probe in probes(to) {
                assert_eq!(tuned.probe(&probe).unwrap().server.pod, "host/node-1");
            }
        }
    }
    // While the link stays up, again and again: who only looks every ten seconds takes half a minute for the last three.
    let begun = Instant::now();
    for last in 1..=4 {
        tuned.must_run(&["ip", "link", "set", "eth0", "address", &format!("02:11:22:33:55:0{last}")]);
        for to in tuned.ips() {
            for probe in probes(to) {
                let ask = || node.probe(&probe.clone().timeout(Duration::from_millis(200)));
                assert_eq!(lab.wait_until("the node reaches the pod", ask).server.pod, "net/tuned");
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?} for four changes", begun.elapsed());
    // That is for a pod to do: nobody undid anything, and what others do undo is not lost among it.
    let status = node.fairlead(&["status"]).stdout;
    assert!(!status.contains("02:11:22:33:"), "{status}");
    let log = node.agent().log();
    assert!(!log.contains("changed outside Fairlead"), "{log}");
}

#[test]
fn c44_a_pod_that_changes_its_mac_address_all_the_time_hides_nothing_that_others_undo() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let pod = node.pod("net/restless").tcp(80).start();
    let restless =
        "for n in $(seq 10 99) $(seq 10 99) $(seq 10 99); do ip link set eth0 address 02:77:00:00:00:$n; done";
    pod.must_run(&["sh", "-c", restless]);
    let route = format!("{}/32", pod.v4());
    node.must_run(&["ip", "route", "del", &route]);
    let repaired = format!("the route to {}", pod.v4());
    let is_said = || match node.fairlead(&["status"]).stdout {
        status if status.contains(&repaired) => Ok(()),
        status => Err(status),
    };
    lab.wait_until("the repair is said", is_said);
    pod.must_run(&["sh", "-c", restless]);
    is_said().unwrap();
    let reached = || node.probe(&probes(pod.v4().into())[0].clone().timeout(Duration::from_millis(200)));
    assert_eq!(lab.wait_until("the node reaches the pod", reached).server.pod, "net/restless");
    let log = node.agent().log();
    assert_eq!(log.matches("changed outside Fairlead").count(), 1, "{log}");
}
