//! The whole path once: agents on manifests, pods added by the plugin, packets through the programs.

use fairlead_tests::{Lab, Probes, Via};

/// Pods on one node and on two reach each other and their services, and the commands say so.
#[test]
fn a_cluster_works() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
    let client = lab.node("node-1").pod("smoke/client").start();
    let near = lab.node("node-1").pod("smoke/near").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("smoke/far").tcp(80).udp(53).start();
    for server in [&near, &far] {
        for ip in server.ips() {
            assert_eq!(client.tcp(ip, 80).unwrap().server.pod, server.key(), "{ip}");
            assert_eq!(client.udp(ip, 53).unwrap().server.pod, server.key(), "{ip}");
        }
    }

    let status = lab.node("node-1").fairlead(&["status"]);
    assert!(status.ok(), "{status:?}");
    println!("{}", status.stdout);
    for word in ["ready", "smoke/client", "smoke/near", "from_pod"] {
        assert!(status.stdout.contains(word), "{word} is missing:\n{}", status.stdout);
    }
}

/// What is pinned serves while no agent runs, and the next agent adopts it.
#[test]
fn packets_flow_while_the_agent_is_away() {
    let lab = Lab::builder().zones(&["zone-a"]).start();
    let node = lab.node("node-1");
    let client = node.pod("smoke/client").start();
    let server = node.pod("smoke/server").tcp(80).start();
    client.tcp(server.v4(), 80).unwrap();
    node.agent().kill9();
    for via in Via::BOTH {
        client.via(via).tcp(server.v4(), 80).unwrap();
    }
    assert!(!node.fairlead(&["status"]).ok());
    node.start_agent();
    client.tcp(server.v6(), 80).unwrap();
    let status = node.fairlead(&["status", "-o", "json"]);
    assert!(status.stdout.contains("\"adopted\": true"), "{}", status.stdout);
}
