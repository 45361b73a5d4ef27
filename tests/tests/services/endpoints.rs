//! Which endpoints a service has, and how they are chosen from.

use std::time::Duration;

use fairlead_tests::{Pod, Probe, Probes};
use serde_json::{Value, json};

use crate::world::{edited, ips, service, ways, world};

#[test]
fn s1_every_endpoint_is_chosen_equally_often() {
    let world = world();
    world.lab.apply(&service("s1", 1).endpoints(&[&world.near, &world.far, &world.third]).yaml());
    world.reaches(&ips(1), &[&world.near, &world.far, &world.third]);
    for way in ways(&world.client, &ips(1)) {
        let spread = way.from.spread(&way.probe, 150).unwrap();
        assert_eq!(spread.len(), 3, "{}: {spread:?}", way.name());
        // Fifty each, and more than five standard deviations to either side.
        assert!(spread.values().all(|count| (20..=80).contains(count)), "{}: {spread:?}", way.name());
    }
}

#[test]
fn s18_conditions_say_who_is_used() {
    let world = world();
    let service = service("s18", 18)
        .endpoint_with(&world.near, &json!({}))
        .endpoint_with(&world.far, &json!({"ready": false, "serving": false, "terminating": false}))
        .endpoint_with(&world.third, &json!({"ready": true}));
    world.lab.apply(&service.yaml());
    world.reaches(&ips(18), &[&world.near, &world.third]);
    // No conditions at all say the same as no word about each.
    let bare = edited(&service, |objects| {
        for slice in &mut objects[1..] {
            slice["endpoints"][2].as_object_mut().unwrap().remove("conditions");
            slice["endpoints"][0]["conditions"] = json!({"ready": false});
        }
    });
    world.lab.apply(&bare);
    world.reaches(&ips(18), &[&world.third]);
}

#[test]
fn s19_ports_match_by_name_and_protocol() {
    let world = world();
    let service = service("s19", 19).endpoints(&[&world.near]);
    let yaml = edited(&service, |objects| {
        for slice in &mut objects[1..] {
            // Another name, another protocol, no name and no number: none of these is a port of the service.
            slice["ports"] = json!([
                {"name": "metrics", "protocol": "TCP", "port": 1},
                {"name": "http", "protocol": "UDP", "port": 2},
                {"protocol": "TCP", "port": 3},
                {"name": "http", "protocol": "TCP"},
                {"name": "http", "protocol": "TCP", "port": 8080},
                {"name": "ask", "protocol": "TCP", "port": 4},
                {"name": "ask", "protocol": "UDP", "port": 5300},
            ]);
        }
    });
    world.lab.apply(&yaml);
    // A second slice has other numbers under the same names, as pods do whose named ports differ.
    world.lab.apply(&second_slices(&service, "b", |slice| {
        slice["endpoints"] = json!([endpoint(slice, world.far.ips().map(|ip| ip.to_string()))]);
        slice["ports"] = json!([
            {"name": "http", "protocol": "TCP", "port": 8081},
            {"name": "ask", "protocol": "UDP", "port": 5301},
        ]);
    }));
    world.reaches(&ips(19), &[&world.near, &world.far]);
    for way in ways(&world.client, &ips(19)) {
        for _ in 0..20 {
            let server = way.try_it().unwrap().server;
            let [near, far] = if way.udp { [5300, 5301] } else { [8080, 8081] };
            let wanted = if server.pod == world.near.key() { near } else { far };
            assert_eq!(server.local.port(), wanted, "{}: {server:?}", way.name());
        }
    }
}

#[test]
fn s20_endpoints_are_the_union_of_all_slices() {
    let world = world();
    let first = service("s20", 20).endpoints(&[&world.near]);
    let second = |addresses: Option<[String; 2]>| {
        second_slices(&first, "b", |slice| {
            slice["endpoints"] =
                json!(addresses.clone().map(|ips| endpoint(slice, ips)).into_iter().collect::<Vec<_>>());
        })
    };
    let text = |pod: &Pod| pod.ips().map(|ip| ip.to_string());
    world.lab.apply(&first.yaml());
    world.lab.apply(&second(Some(text(&world.far))));
    world.reaches(&ips(20), &[&world.near, &world.far]);
    // One moves from the second slice to the first: it is in both for a moment, then in one.
    world.lab.apply(&service("s20", 20).endpoints(&[&world.near, &world.far]).yaml());
    world.reaches(&ips(20), &[&world.near, &world.far]);
    world.lab.apply(&second(Some(text(&world.third))));
    world.reaches(&ips(20), &[&world.near, &world.far, &world.third]);
    world.lab.apply(&first.yaml());
    world.reaches(&ips(20), &[&world.near, &world.third]);
    for family in ["ipv4", "ipv6"] {
        world.lab.delete("EndpointSlice", &format!("shop/s20-{family}"));
    }
    world.reaches(&ips(20), &[&world.third]);
    world.lab.apply(&second(None));
    world.refuses(&ips(20));
}

#[test]
fn s20_only_the_first_address_of_an_endpoint_is_used() {
    let world = world();
    let yaml = edited(&service("s20-first", 120).endpoints(&[&world.near]), |objects| {
        for (slice, ip) in objects[1..].iter_mut().zip(world.far.ips()) {
            slice["endpoints"][0]["addresses"].as_array_mut().unwrap().push(json!(ip));
        }
    });
    world.lab.apply(&yaml);
    world.reaches(&ips(120), &[&world.near]);
}

#[test]
fn s21_an_endpoint_that_is_listed_twice_counts_once() {
    let world = world();
    let service = service("s21", 21).endpoints(&[&world.near, &world.far, &world.near, &world.near]);
    world.lab.apply(&service.yaml());
    for name in ["b", "c", "d", "e"] {
        world.lab.apply(&second_slices(&service, name, |slice| {
            let near = slice["endpoints"][0].clone();
            slice["endpoints"] = json!([near]);
        }));
    }
    world.reaches(&ips(21), &[&world.near, &world.far]);
    for way in ways(&world.client, &ips(21)) {
        let spread = way.from.spread(&way.probe, 150).unwrap();
        // Half of them; seven in eight if each mention counted.
        assert!((45..=105).contains(&spread[world.near.key()]), "{}: {spread:?}", way.name());
    }
}

#[test]
fn s22_with_none_ready_those_that_still_serve_are_used() {
    let world = world();
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let ended = json!({"ready": false, "serving": false, "terminating": true});
    let unready = json!({"ready": false, "serving": false, "terminating": false});
    let apply = |conditions: [&Value; 3]| {
        let pods = [&world.near, &world.far, &world.third];
        let service = service("s22", 22);
        let service = pods.iter().zip(conditions).fold(service, |all, (pod, each)| all.endpoint_with(pod, each));
        world.lab.apply(&service.yaml());
    };
    apply([&terminating, &json!({"ready": true}), &ended]);
    world.reaches(&ips(22), &[&world.far]);
    apply([&terminating, &unready, &ended]);
    world.reaches(&ips(22), &[&world.near]);
    apply([&terminating, &terminating, &ended]);
    world.reaches(&ips(22), &[&world.near, &world.far]);
    // Who terminates and serves no more is never used.
    apply([&ended, &unready, &ended]);
    world.refuses(&ips(22));
    apply([&ended, &unready, &json!({"ready": true})]);
    world.reaches(&ips(22), &[&world.third]);
}

/// A new socket often gets the port of one before, and its flow; a conversation that lasts ends with its server.
#[test]
fn s40_what_is_asked_anew_goes_past_an_endpoint_that_ends() {
    let world = world();
    let service = || service("s40", 40);
    let ends = json!({"ready": false, "serving": true, "terminating": true});
    for (number, ip) in ips(40).into_iter().enumerate() {
        world.lab.apply(&service().endpoint(&world.near).yaml());
        let port = 41_050 + number as u16 * 2;
        let [once, lasts] = [port, port + 1].map(|port| Probe::udp(ip, 53).source_port(port));
        let answers = |probe: &Probe, from: &Pod| match world.client.probe(probe) {
            Ok(reply) if reply.server.pod == from.key() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        world.lab.wait_until("it is served", || answers(&lasts, &world.near));
        // Longer than what makes a stream, in both directions.
        std::thread::sleep(Duration::from_secs(4));
        answers(&lasts, &world.near).unwrap();
        answers(&once, &world.near).unwrap();
        world.lab.apply(&service().endpoint_with(&world.near, &ends).endpoint(&world.far).yaml());
        world.reaches(&[ip], &[&world.far]);
        for _ in 0..5 {
            answers(&once, &world.far).unwrap();
            answers(&lasts, &world.near).unwrap();
        }
    }
}

#[test]
fn s26_what_is_published_as_ready_is_used_though_it_terminates() {
    let world = world();
    // What the control plane writes under publishNotReadyAddresses for a pod that is unready, and one that terminates.
    let yaml = edited(
        &service("s26", 26)
            .endpoint_with(&world.near, &json!({"ready": true, "serving": false, "terminating": false}))
            .endpoint_with(&world.far, &json!({"ready": true, "serving": false, "terminating": true})),
        |objects| objects[0]["spec"]["publishNotReadyAddresses"] = json!(true),
    );
    world.lab.apply(&yaml);
    world.reaches(&ips(26), &[&world.near, &world.far]);
}

/// More slices of a service, one for each family, made of its own by a change.
fn second_slices(service: &fairlead_tests::ServiceManifest, suffix: &str, change: impl Fn(&mut Value)) -> String {
    edited(service, |objects| {
        for slice in &mut objects[1..] {
            change(slice);
            let name = format!("{}-{suffix}", slice["metadata"]["name"].as_str().unwrap());
            slice["metadata"]["name"] = json!(name);
        }
        objects[0] = Value::Null;
    })
}

/// A ready endpoint with the address that a slice's family wants.
fn endpoint(slice: &Value, ips: [String; 2]) -> Value {
    let [v4, v6] = ips;
    json!({"addresses": [if slice["addressType"] == "IPv4" { v4 } else { v6 }], "conditions": {"ready": true}})
}
