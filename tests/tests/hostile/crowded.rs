//! What is a table or a seat of the agent's: session affinity, and its sockets. One takes all that he can get; others keep
//! theirs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fairlead_tests::frames::{Wire, datagram};
use fairlead_tests::{Ended, Lab, Node, Pod, Probe, Probes, ServiceManifest, binary};
use serde_json::{Value, json};

use crate::world::MARK;

/// Ports of the Service that the flooder uses: as many service ports.
const PORTS: u16 = 300;
/// The first of its NodePorts.
const FIRST: u16 = 31_000;
/// Who has a backend, and is to keep it.
const CLIENTS: usize = 12;

#[test]
fn s68_one_network_with_ever_new_clients_makes_nobody_else_change_the_backend() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let backends: Vec<Pod> = (0..2).map(|n| node.pod(&format!("sticky/backend-{n}")).udp(53).start()).collect();
    let both = [&backends[0], &backends[1]];
    let sticky = |key: &str| ServiceManifest::new(key).spec("sessionAffinity", json!("ClientIP"));
    lab.apply(&sticky("sticky/quiet").ips(&["10.96.81.1"]).udp("dns", 53, 53).endpoints(&both).yaml());
    let mut crowded = sticky("sticky/crowded").ips(&["10.96.81.2"]);
    for number in 0..PORTS {
        crowded = crowded.udp(&format!("p{number}"), 1000 + number, 53);
    }
    let node_ports: Vec<u16> = (FIRST..FIRST + PORTS).collect();
    lab.apply(&crowded.node_ports(&node_ports).endpoints(&both).yaml());
    let clients: Vec<Pod> = (0..CLIENTS).map(|n| node.pod(&format!("sticky/client-{n}")).start()).collect();
    let at = Probe::udp("10.96.81.1".parse::<IpAddr>().unwrap(), 53);
    lab.wait_until("the service answers", || clients[0].probe(&at));
    let last = FIRST + PORTS - 1;
    lab.wait_until("the other does", || lab.client().probe(&Probe::udp(node.v4(), last)));
    let backend = |client: &Pod| client.probe(&at).unwrap().server.pod;
    let before: Vec<String> = clients.iter().map(backend).collect();

    let mut wire = Wire::to_uplink(lab.client(), node);
    for client in 0..=u8::MAX {
        let from = IpAddr::from(Ipv4Addr::new(198, 51, 100, client));
        for port in &node_ports {
            let (kind, packet) = datagram(from, node.v4().into(), (45_003, *port), MARK);
            wire.send(kind, &packet);
        }
    }
    // It has passed: from what is in the table.
    let used = || {
        let status: Value = serde_json::from_str(&node.fairlead(&["status", "-o", "json"]).stdout).unwrap();
        let maps = status["maps"].as_array().unwrap();
        maps.iter().find(|map| map["name"] == "AFFINITY").and_then(|map| map["used"].as_u64()).unwrap()
    };
    lab.wait_until("it has all places of its own", || match used() {
        used if used >= 64 => Ok(()),
        other => Err(other),
    });
    assert!(used() < 2 * 64 + 4 * CLIENTS as u64, "{} places are in use", used());
    let after: Vec<String> = clients.iter().map(backend).collect();
    assert_eq!(before, after);
}

const ADMIN: &str = "/run/fairlead/agent.sock";
const CNI: &str = "/run/fairlead/cni.sock";

/// Connections of a socket that are open at the agent's end.
fn open(node: &Node, socket: &str) -> usize {
    let shown = node.must_run(&["ss", "-xH"]);
    shown.lines().filter(|line| line.contains("ESTAB") && line.contains(socket)).count()
}

#[test]
fn connections_to_the_sockets_of_the_agent_are_bounded_and_keep_nobody_out() {
    const FOLLOW: &str = "{\"ask\":\"drops\",\"follow\":true}\n";
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let program = binary("fairlead-lab").unwrap();
    let program = program.to_str().unwrap();
    let idle = |name: &str, socket: &str, count: usize, text: &str| {
        let count = count.to_string();
        let argv = [program, "idle", socket, &count, "--text", text];
        let process = node.spawn(name, &argv, &[]);
        let said = format!("{count} connections");
        lab.wait_until(&said, || if process.log().contains(&said) { Ok(()) } else { Err(process.log()) });
        process
    };
    let silent = [idle("idle-admin", ADMIN, 500, ""), idle("idle-cni", CNI, 600, "")];
    for (socket, most) in [(ADMIN, 64), (CNI, 256)] {
        lab.wait_until("the oldest have gone", || match open(node, socket) {
            open if open <= most => Ok(()),
            other => Err((socket, other)),
        });
    }
    for number in 0..3 {
        let asked = node.fairlead(&["status"]);
        assert!(asked.ok(), "{asked:?}");
        node.pod(&format!("crowd/pod-{number}")).start().delete();
    }
    // Half a question is none.
    let half = idle("half", ADMIN, 200, "{\"ask\":");
    assert!(node.fairlead(&["status"]).ok());
    half.kill(libc::SIGKILL);
    // Who has asked keeps the connection, and the next is told why it has none.
    let mut asking = vec![idle("asking", ADMIN, 64, FOLLOW)];
    let mut refused: Ended = node.fairlead(&["status"]);
    // One whose question was not read before the next came has lost its place to that.
    for number in 0..40 {
        if !refused.ok() {
            break;
        }
        asking.push(idle(&format!("asking-{number}"), ADMIN, 8, FOLLOW));
        refused = node.fairlead(&["status"]);
    }
    assert!(refused.stderr.contains("64 connections to the admin socket are open"), "{refused:?}");
    asking.iter().for_each(|process| process.kill(libc::SIGKILL));
    lab.wait_within(Duration::from_secs(60), "there is room again", || {
        let asked = node.fairlead(&["status"]);
        if asked.ok() { Ok(()) } else { Err(asked) }
    });
    silent.iter().for_each(|process| process.kill(libc::SIGKILL));
}
