//! `externalTrafficPolicy`, and NetworkPolicy of what comes from outside.

use fairlead_tests::{Probes, ServiceManifest, Via};
use serde_json::json;

use crate::world::{balancer, everywhere, probes, service, world};

fn local(name: &str, number: u8, ports: [u16; 2]) -> ServiceManifest {
    everywhere(service(name, number), number, ports).spec("externalTrafficPolicy", json!("Local"))
}

#[test]
fn s27_s34_s35_policy_local_keeps_the_client_and_drops_where_nobody_is() {
    let world = world();
    let [here, there] = ["node-1", "node-2"].map(|name| world.lab.node(name));
    let service = local("s27", 27, [30_027, 30_028]);
    world.lab.apply(&service.clone().endpoint(&world.near).yaml());
    for reply in world.reaches(world.lab.client(), &probes(balancer(27), 80, 53), &[world.near.key()]) {
        assert_eq!(reply.server.peer, reply.local, "neither address nor port is changed");
    }
    world.reaches(world.lab.far_client(), &probes(here.ips(), 30_027, 30_028), &[world.near.key()]);
    world.silent(world.lab.client(), &probes(there.ips(), 30_027, 30_028));
    let text = there.fairlead(&["service", "explain", &format!("{}:30027", there.v4())]).stdout;
    assert!(text.contains("from outside is dropped") && text.contains("policy Local"), "{text}");
    // The other way round.
    world.lab.apply(&service.clone().endpoint(&world.far).yaml());
    world.reaches(world.lab.client(), &probes(there.ips(), 30_027, 30_028), &[world.far.key()]);
    world.silent(world.lab.client(), &probes(balancer(27), 80, 53));
    // With no endpoint anywhere it is refused (S33).
    world.lab.apply(&service.yaml());
    world.refused(world.lab.client(), &probes(there.ips(), 30_027, 30_028));
    world.refused(world.lab.client(), &probes(balancer(27), 80, 53));
}

#[test]
fn s28_inside_policy_local_is_as_if_it_were_cluster() {
    let world = world();
    world.lab.apply(&local("s28", 28, [30_128, 30_129]).endpoint(&world.far).yaml());
    let to = [probes(balancer(28), 80, 53), probes(world.lab.node("node-1").ips(), 30_128, 30_129)].concat();
    for via in Via::BOTH {
        world.reaches(&world.client.via(via), &to, &[world.far.key()]);
    }
    world.reaches(world.lab.node("node-1").as_ref(), &to, &[world.far.key()]);
}

#[test]
fn s23_s24_each_policy_falls_back_to_what_terminates_by_itself() {
    let world = world();
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let service = local("s23", 23, [30_023, 30_024]);
    let service = service.endpoint_with(&world.near, &ending).endpoint(&world.far);
    world.lab.apply(&service.yaml());
    // Outside there is only what ends here; inside another is ready.
    world.reaches(world.lab.client(), &probes(balancer(23), 80, 53), &[world.near.key()]);
    for via in Via::BOTH {
        world.reaches(&world.client.via(via), &probes(balancer(23), 80, 53), &[world.far.key()]);
    }
}

#[test]
fn p29_ingress_policy_judges_the_client_where_the_pod_sees_the_node() {
    let world = world();
    let node = world.lab.node("node-1");
    let server = node.pod("p29/server").tcp(8080).udp(5300).start();
    world.lab.apply(&service("p29", 29).node_ports(&[30_129, 30_130]).endpoint(&server).yaml());
    let to = probes(node.ips(), 30_129, 30_130);
    let mut clients = world.reaches(world.lab.client(), &to, &[server.key()]);
    for reply in &clients {
        assert_eq!(reply.server.peer.ip(), reply.peer.ip(), "the pod sees the node");
    }
    world.reaches(world.lab.far_client(), &to, &[server.key()]);

    clients.dedup_by_key(|reply| reply.local.ip());
    let blocks: Vec<_> = clients
        .iter()
        .map(|reply| json!({"ipBlock": {"cidr": format!("{}/{}", reply.local.ip(), if reply.local.is_ipv4() { 32 } else { 128 })}}))
        .collect();
    let policy = |peers: &serde_json::Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "p29", "name": "clients"},
            "spec": {"podSelector": {}, "ingress": [{"from": peers}]},
        })
    };
    world.lab.apply(&policy(&json!(blocks)).to_string());
    world.silent(world.lab.far_client(), &to);
    world.reaches(world.lab.client(), &to, &[server.key()]);
    // To allow the node's own addresses lets nobody in.
    let nodes =
        node.ips().map(|ip| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}}));
    world.lab.apply(&policy(&json!(nodes)).to_string());
    world.silent(world.lab.client(), &to);
    world.lab.delete("NetworkPolicy", "p29/clients");
    world.reaches(world.lab.client(), &to, &[server.key()]);
}
