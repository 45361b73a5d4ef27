//! Agents that come back.

use std::fs;

use fairlead_tests::{Lab, Probe, Probes, Via};
use serde_json::Value;

use crate::world::{ips, service};

#[test]
fn s54_nothing_is_removed_before_the_objects_are_known() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("shop/client").start();
    let server = node.pod("shop/server").tcp(8080).udp(5300).start();
    lab.apply(&service("s54", 54).endpoint(&server).yaml());
    let probes = || {
        let ways = ips(54).map(|ip| {
            Via::BOTH.map(|via| client.via(via).tcp(ip, 80).and(client.via(via).udp(ip, 53)).and(node.tcp(ip, 80)))
        });
        ways.into_iter().flatten().try_for_each(|reply| reply.map(drop))
    };
    lab.wait_until("the service answers", probes);
    let mut open = Via::BOTH.map(|via| client.via(via).connect(&Probe::tcp(ips(54)[0], 80)).unwrap());

    // The next agent finds no objects: not that there are none, which would be an answer.
    node.agent().kill9();
    let (here, aside) = (lab.objects().directory().to_owned(), lab.objects().directory().with_extension("aside"));
    fs::rename(&here, &aside).unwrap();
    node.launch_agent();
    let status = || serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap_or(Value::Null);
    lab.wait_until("it has taken over", || match status() {
        status if status["adopted"] == true => Ok(()),
        status => Err(status),
    });
    for _ in 0..100 {
        probes().unwrap();
        open.iter_mut().for_each(|each| drop(each.exchange(10, 10).unwrap()));
    }
    assert_eq!(status()["health"], "starting", "it does not claim to be ready");
    fs::rename(&aside, &here).unwrap();
    node.agent().wait_ready();
    probes().unwrap();
    open.iter_mut().for_each(|each| drop(each.exchange(10, 10).unwrap()));
    // What went meanwhile is removed once they are known.
    lab.delete("Service", "shop/s54");
    lab.wait_until("the service is gone", || match client.tcp(ips(54)[0], 80) {
        Err(_) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
