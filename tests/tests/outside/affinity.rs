//! Session affinity.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use fairlead_tests::{Probe, ProbeError, Probes, Via};
use serde_json::{Value, json};

use crate::world::{cluster, probes, service, world};

fn sticky(seconds: u32) -> Value {
    json!({"clientIP": {"timeoutSeconds": seconds}})
}

/// Who answers so many new flows.
fn answered(from: &impl Probes, probe: &Probe, count: usize) -> Result<Vec<String>, ProbeError> {
    Ok(from.spread(probe, count)?.into_keys().collect())
}

#[test]
fn s38_s39_a_client_stays_with_a_backend_while_that_may_be_chosen() {
    let world = world();
    let plain = service("s38", 38).node_ports(&[30_038, 30_039]);
    let service = plain.clone().spec("sessionAffinity", json!("ClientIP")).spec("sessionAffinityConfig", sticky(60));
    let both = [&world.near, &world.far];
    world.lab.apply(&service.clone().endpoints(&both).yaml());
    let node = world.lab.node("node-1");
    let (own, port) = (probes(cluster(38), 80, 53), probes(node.ips(), 30_038, 30_039));
    let in_force = |name: &str, places: usize| {
        world.lab.wait_until(name, || match answered(world.lab.client(), &port[0], 30) {
            Ok(names) if names.len() == places => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    in_force("the client stays", 1);
    // By whichever address and way; the service ports, and the families, are each their own.
    for (at, other) in own.iter().zip(&port) {
        let mut names = Vec::new();
        for via in Via::BOTH {
            names.extend(answered(&world.client.via(via), at, 15).unwrap());
            names.extend(answered(&world.client.via(via), other, 15).unwrap());
        }
        assert!(names.windows(2).all(|pair| pair[0] == pair[1]), "{at:?} {names:?}");
        assert_eq!(answered(node.as_ref(), at, 15).unwrap(), answered(node.as_ref(), other, 15).unwrap());
        assert_eq!(answered(world.lab.client(), other, 15).unwrap().len(), 1);
    }
    // Its backend is taken away, and comes back: it stays with the other.
    let names = answered(world.lab.client(), &port[0], 1).unwrap();
    let left = if names[0] == world.near.key() { &world.far } else { &world.near };
    world.lab.apply(&service.clone().endpoint(left).yaml());
    world.reaches(world.lab.client(), &port, &[left.key()]);
    world.lab.apply(&service.endpoints(&both).yaml());
    // Clients that were never seen before meet both as soon as both are in force.
    let strangers = "198.18.0.0/15";
    world.lab.client().must_run(&["ip", "route", "add", "local", strangers, "dev", "lo"]);
    node.must_run(&["ip", "route", "add", strangers, "via", "172.18.0.100"]);
    let mut addresses =
        (1_u16..).map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::from(number)));
    world.lab.wait_until("a client that is new meets the other", || {
        let stranger = port[0].clone().source_ip(addresses.next().expect("there are many"));
        match world.lab.client().probe(&stranger) {
            Ok(reply) if reply.server.pod != left.key() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(answered(world.lab.client(), &port[0], 30).unwrap(), [left.key()]);
    // And without affinity it is balanced again.
    world.lab.apply(&plain.endpoints(&both).yaml());
    in_force("the client is balanced", 2);
}

#[test]
fn s38_a_client_that_was_away_is_balanced_anew() {
    let world = world();
    let service = service("s38-short", 39).spec("sessionAffinity", json!("ClientIP"));
    let service = service.spec("sessionAffinityConfig", sticky(1)).endpoints(&[&world.near, &world.far]);
    world.lab.apply(&service.yaml());
    let at = probes(cluster(39), 80, 53).remove(0);
    world.lab.wait_until("it answers", || world.client.probe(&at));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..12 {
        names.extend(answered(&world.client, &at, 3).unwrap());
        // Longer than it is remembered, which is what is tested.
        thread::sleep(Duration::from_millis(2100));
        if names.len() == 2 {
            return;
        }
    }
    panic!("it never moved: {names:?}");
}
