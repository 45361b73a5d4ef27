//! What is a frontend and what is not.

use fairlead_tests::{Probe, ProbeError, Probes, ServiceManifest, Via};
use serde_json::{Value, json};

use crate::world::{edited, ips, service, world};

#[test]
fn s3_a_port_that_no_service_has_is_refused() {
    let world = world();
    world.lab.apply(&service("s3", 3).endpoints(&[&world.near]).yaml());
    world.reaches(&ips(3), &[&world.near]);
    for ip in ips(3) {
        for probe in [Probe::tcp(ip, 81), Probe::udp(ip, 54)] {
            for via in Via::BOTH {
                for from in [world.client.via(via), world.lab.node("node-1").via(via)] {
                    world.lab.wait_until(&format!("{probe:?} is refused"), || match from.probe(&probe) {
                        Err(ProbeError::Refused) => Ok(()),
                        other => Err(format!("{other:?}")),
                    });
                }
            }
        }
    }
}

#[test]
fn s14_headless_services_and_external_names_are_not_proxied() {
    let world = world();
    let headless = ServiceManifest::new("shop/s14-headless").tcp("http", 80, 8080).endpoints(&[&world.near]);
    world.lab.apply(&headless.yaml());
    // A service that works becomes one that is not proxied, and comes back. An address may be left in its object.
    let live = service("s14", 14).endpoints(&[&world.near, &world.far]);
    let clears = [
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"type": "ExternalName", "externalName": "shop.example.org"}),
    ];
    for change in clears {
        world.lab.apply(&live.yaml());
        world.reaches(&ips(14), &[&world.near, &world.far]);
        let changed = edited(&live, |objects| {
            for (key, value) in change.as_object().unwrap() {
                objects[0]["spec"][key] = value.clone();
            }
        });
        world.lab.apply(&changed);
        world.nobody_answers(&ips(14));
    }
    let listed = world.lab.node("node-1").fairlead(&["service", "list", "-o", "json"]).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let listed =
        listed["items"].as_array().unwrap().iter().filter(|row| row["service"].as_str().unwrap().contains("s14"));
    let listed: Vec<_> = listed.collect();
    // The headless one has endpoints and no address; an external name has neither, and is none of ours.
    let [row] = listed.as_slice() else { panic!("{listed:?}") };
    assert_eq!((&row["service"], &row["headless"]), (&json!("shop/s14-headless"), &json!(true)), "{row}");
    assert_eq!((&row["addresses"], &row["endpoints"]), (&json!([]), &json!(1)), "{row}");
    // The pods behind them are reached as ever.
    assert_eq!(world.client.tcp(world.near.v4(), 8080).unwrap().server.pod, world.near.key());
}

#[test]
fn s15_services_of_another_proxy_are_left_alone() {
    let world = world();
    let ours = service("s15", 15).endpoints(&[&world.near, &world.far]);
    let theirs = edited(&ours, |objects| {
        objects[0]["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
    });
    world.lab.apply(&theirs);
    world.nobody_answers(&ips(15));
    for _ in 0..2 {
        world.lab.apply(&ours.yaml());
        world.reaches(&ips(15), &[&world.near, &world.far]);
        world.lab.apply(&theirs);
        world.nobody_answers(&ips(15));
    }
}

#[test]
fn s16_families_are_independent() {
    let world = world();
    let [v4, v6] = ips(16);
    let split = edited(&service("s16", 16).endpoints(&[&world.near, &world.far]), |objects| {
        for (slice, drop) in objects[1..].iter_mut().zip([1, 0]) {
            slice["endpoints"].as_array_mut().unwrap().remove(drop);
        }
    });
    world.lab.apply(&split);
    world.reaches(&[v4], &[&world.near]);
    world.reaches(&[v6], &[&world.far]);
    world.lab.delete("EndpointSlice", "shop/s16-ipv4");
    world.refuses(&[v4]);
    world.reaches(&[v6], &[&world.far]);
    // A service may have one family only, whatever its slices hold.
    let single = service("s16", 16).endpoints(&[&world.near]);
    world.lab.apply(&single.clone().ips(&[v4]).yaml());
    world.reaches(&[v4], &[&world.near]);
    world.nobody_answers(&[v6]);
    world.lab.apply(&single.clone().ips(&[v6]).yaml());
    world.reaches(&[v6], &[&world.near]);
    world.nobody_answers(&[v4]);
}
