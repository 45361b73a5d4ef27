//! The agent goes away and comes back, in order or by a crash, while traffic flows.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use fairlead_tests::{Lab, Load, Probe, ProbeError, Probes, ServiceManifest};

const V4: &str = "10.96.5.4";
const V6: &str = "fd00:10:96::5:4";

fn addresses() -> [IpAddr; 2] {
    [V4, V6].map(|ip| ip.parse().expect("it is an address"))
}

/// Maps and links are pinned: a crash, a stop and a start in the middle of traffic lose nothing.
#[test]
fn traffic_flows_while_agents_crash_stop_and_start() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
    let client = lab.node("node-1").pod("restart/client").start();
    let near = lab.node("node-1").pod("restart/near").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("restart/far").tcp(80).udp(53).start();
    let web = ServiceManifest::new("restart/web").ips(&[V4, V6]).tcp("http", 80, 80).udp("ask", 53, 53);
    lab.apply(&web.endpoints(&[&near, &far]).yaml());
    for ip in addresses() {
        lab.wait_until("the service answers", || client.tcp(ip, 80).and_then(|_| client.udp(ip, 53)).map_err(Box::new));
    }

    let [v4, v6] = addresses();
    let during = Duration::from_secs(7);
    let loads = [(v4, v6), (v6, v4)].map(|(one, other)| {
        Load::during(during)
            .short_connections(Probe::tcp(one, 80), 50)
            .long_connections(Probe::tcp(other, 80), 4, Duration::from_millis(50))
            .udp(Probe::udp(one, 53), 50)
    });
    let reports = thread::scope(|scope| {
        let loading: Vec<_> = loads.iter().map(|load| scope.spawn(|| client.load(load))).collect();
        for (node, crash) in [("node-1", true), ("node-2", true), ("node-1", false)] {
            thread::sleep(Duration::from_millis(500));
            let agent = lab.node(node).agent();
            if crash {
                agent.kill9();
            } else {
                agent.stop();
            }
            thread::sleep(Duration::from_millis(500));
            lab.node(node).start_agent();
        }
        loading.into_iter().map(|each| each.join().expect("the lab works")).collect::<Vec<_>>()
    });
    for report in reports {
        assert!(report.short.attempted > 0 && report.long.attempted > 0 && report.udp.attempted > 0, "{report:?}");
        assert_eq!(report.failures(), 0, "{report:?}");
    }
}

/// What was in force stays so while the agent is away; what changed meanwhile comes into force with the next one, and
/// only then: nothing is taken out before all objects are known.
#[test]
fn s54_changes_made_while_the_agent_was_away_come_into_force() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let client = node.pod("restart/client").label("app", "client").start();
    let old = node.pod("restart/old").tcp(80).start();
    let new = node.pod("restart/new").tcp(80).start();
    let web = ServiceManifest::new("restart/web").ips(&[V4, V6]).tcp("http", 80, 80);
    lab.apply(&web.clone().endpoints(&[&old]).yaml());
    let served_by = |ip: IpAddr, key: &str| match client.tcp(ip, 80) {
        Ok(reply) if reply.server.pod == key => Ok(()),
        other => Err(format!("{other:?}")),
    };
    for ip in addresses() {
        lab.wait_until("the service leads to the old pod", || served_by(ip, "restart/old"));
    }

    node.agent().kill9();
    lab.apply(&web.endpoints(&[&new]).yaml());
    lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: restart, name: closed}, \
          spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: \
          {app: client}}}], ports: [{port: 80}]}]}}",
    );
    thread::sleep(Duration::from_millis(200));
    for ip in addresses() {
        served_by(ip, "restart/old").expect("what was in force stays so");
    }
    assert_eq!(client.tcp(new.v4(), 81), Err(ProbeError::Refused));

    node.start_agent();
    for ip in addresses() {
        lab.wait_until("the service leads to the new pod", || served_by(ip, "restart/new"));
    }
    lab.wait_until("the policy is in force", || match client.tcp(new.v4(), 81) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The client is no server: nobody may reach it, and it still reaches both.
    client.tcp(old.v4(), 80).expect("the policy lets the client through");
}

/// Pods that were deleted while the agent was away are gone for the next one, and their addresses are free again.
#[test]
fn a_pod_deleted_while_the_agent_is_away_is_gone() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let stays = node.pod("restart/stays").tcp(80).start();
    let goes = node.pod("restart/goes").tcp(80).start();
    stays.tcp(goes.v4(), 80).expect("pods reach each other");
    node.agent().kill9();
    goes.delete();
    node.start_agent();
    lab.wait_until("the agent knows one pod only", || {
        let status = node.fairlead(&["status"]).stdout;
        if status.contains("restart/stays") && !status.contains("restart/goes") { Ok(()) } else { Err(status) }
    });
    let next = node.pod("restart/next").tcp(80).start();
    next.tcp(stays.v4(), 80).expect("pods reach each other");
    stays.tcp(next.v6(), 80).expect("pods reach each other");
}
