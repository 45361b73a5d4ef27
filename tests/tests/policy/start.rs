//! A pod's first moments: P40.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fairlead_tests::{Lab, Pod, Probe, Probes};

/// How many addresses after the last one are hammered: the next pod's is among them.
const NEXT: u8 = 4;

/// What a pod's own kernel has received: TCP segments and UDP datagrams of both families, of no matter which port.
fn received(pod: &Pod) -> u64 {
    let v4 = pod.must_run(&["cat", "/proc/net/snmp"]);
    let mut count = 0;
    for (protocol, fields) in [("Tcp:", &["InSegs"][..]), ("Udp:", &["InDatagrams", "NoPorts"])] {
        let mut lines = v4.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        for (name, value) in names.split(' ').zip(values.split(' ')) {
            if fields.contains(&name) {
                count += value.parse::<u64>().unwrap();
            }
        }
    }
    for line in pod.must_run(&["cat", "/proc/net/snmp6"]).lines() {
        let mut words = line.split_whitespace();
        if let (Some("Udp6InDatagrams" | "Udp6NoPorts"), Some(value)) = (words.next(), words.next()) {
            count += value.parse::<u64>().unwrap();
        }
    }
    count
}

#[test]
fn p40_a_new_pod_gets_no_packet_before_its_policy_is_in_force() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
    lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: x, name: closed}, \
         spec: {podSelector: {matchLabels: {closed: 'yes'}}, policyTypes: [Ingress, Egress]}}",
    );
    let node = lab.node("node-1");
    let (near, far) = (node.pod("x/near").start(), lab.node("node-2").pod("x/far").start());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let candidates: Vec<IpAddr> = (1..=NEXT)
        .flat_map(|step| {
            let v4 = Ipv4Addr::from(u32::from(near.v4()) + u32::from(step));
            let v6 = Ipv6Addr::from(u128::from(near.v6()) + u128::from(step));
            [IpAddr::from(v4), v6.into()]
        })
        .collect();
    thread::scope(|scope| {
        for from in [near.vantage(), far.vantage()] {
            for ip in &candidates {
                let (stop, sent) = (&stop, &sent);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        for probe in [Probe::udp(*ip, 80), Probe::tcp(*ip, 80)] {
                            _ = from.probe(&probe.timeout(Duration::from_millis(1)));
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        }
        let hammered = || sent.load(Ordering::Relaxed);
        let check = || {
            lab.wait_until("the clients send", || if hammered() > 50 { Ok(()) } else { Err(hammered()) });
            for number in 0..2 {
                let pod = node.pod(&format!("x/closed-{number}")).label("closed", "yes").tcp(80).udp(80).start();
                assert!(pod.ips().iter().all(|ip| candidates.contains(ip)), "{:?} is not hammered", pod.ips());
                let before = hammered();
                lab.wait_until("the clients go on", || if hammered() > before + 50 { Ok(()) } else { Err(hammered()) });
                assert_eq!(received(&pod), 0, "a packet reached a pod whose policy lets none pass");
            }
            // The same clients reach a pod that no policy selects: what was counted can be counted.
            let open = node.pod("x/open").tcp(80).udp(80).start();
            assert!(open.ips().iter().all(|ip| candidates.contains(ip)), "{:?} is not hammered", open.ips());
            lab.wait_until("packets are counted", || if received(&open) > 0 { Ok(()) } else { Err(hammered()) });
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        stop.store(true, Ordering::Relaxed);
        if let Err(reason) = outcome {
            std::panic::resume_unwind(reason);
        }
    });
}
