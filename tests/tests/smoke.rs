//! The whole path once: agents on manifests, pods added by the plugin, packets through the programs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use fairlead_tests::{Lab, ProbeError, Probes, ServiceManifest, Via};

/// Pods on one node and on two reach each other and their services, and the commands say so.
#[test]
fn a_cluster_works() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
    let client = lab.node("node-1").pod("smoke/client").start();
    let near = lab.node("node-1").pod("smoke/near").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("smoke/far").tcp(80).udp(53).start();
    for server in [&near, &far] {
        for ip in server.ips() {
            for reply in [client.tcp(ip, 80), client.udp(ip, 53)] {
                let drops = || lab.nodes().iter().map(|node| node.fairlead(&["drops"]).stdout).collect::<String>();
                let reply = reply.unwrap_or_else(|error| panic!("{ip}: {error:?}\n{}", drops()));
                assert_eq!(reply.server.pod, server.key(), "{ip}");
            }
        }
    }

    let service = ServiceManifest::new("smoke/shop").ips(&["10.96.7.7", "fd00:10:96::77"]);
    lab.objects().apply(&service.tcp("http", 8080, 80).udp("ask", 5300, 53).endpoints(&[&near, &far]).yaml());
    let node = lab.node("node-1");
    let explain = |address: &str| node.fairlead(&["service", "explain", address]).stdout;
    let ips = ["10.96.7.7", "fd00:10:96::77"].map(|ip| ip.parse::<IpAddr>().unwrap());
    lab.wait_in_force(node, ips.iter().flat_map(|ip| [8080, 5300].map(|port| SocketAddr::new(*ip, port))));
    for ip in ips {
        for via in Via::BOTH {
            let from = client.via(via);
            let reached: BTreeSet<_> = (0..40).map(|_| from.tcp(ip, 8080).unwrap().server.pod).collect();
            assert_eq!(reached.len(), 2, "{ip} {via:?}: {reached:?}");
            from.udp(ip, 5300).unwrap();
        }
    }
    let list = node.fairlead(&["service", "list"]).stdout;
    assert!(list.contains("smoke/shop") && list.contains("[fd00:10:96::77]:8080"), "{list}");
    assert!(explain("10.96.7.7:8080").contains(&near.v4().to_string()), "{}", explain("10.96.7.7:8080"));
    assert!(node.fairlead(&["service", "explain", "10.96.7.7:81"]).stderr.contains("8080/TCP"));

    lab.objects().apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: smoke, name: closed}, \
          spec: {podSelector: {}, policyTypes: [Ingress]}}",
    );
    lab.wait_until("the policy is in force", || match client.tcp(near.v4(), 80) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // That of the other node is in force when its agent has it in force.
    lab.wait_until("the policy is in force on the other node", || match client.tcp(far.v6(), 80) {
        Err(ProbeError::TimedOut) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let why = node.fairlead(&["policy", "explain", "--from", "smoke/client", "--to", "smoke/near:80"]).stdout;
    assert!(why.starts_with("dropped") && why.contains("smoke/closed"), "{why}");
    lab.wait_until("the drop is told", || match node.fairlead(&["drops"]).stdout {
        drops if drops.contains("ingress_policy") && drops.contains(&near.v4().to_string()) => Ok(()),
        drops => Err(drops),
    });
    lab.objects().delete("NetworkPolicy", "smoke/closed");
    lab.wait_until("the policy is gone", || client.tcp(near.v4(), 80));

    let status = lab.node("node-1").fairlead(&["status"]);
    assert!(status.ok(), "{status:?}");
    let status = status.stdout;
    for word in ["ready", "smoke/client", "smoke/near", "10.244.", "free", "pods 1500"] {
        assert!(status.contains(word), "{word} is missing:\n{status}");
    }
    assert!(status.starts_with("FIELD") && status.lines().nth(1).unwrap().starts_with("node "), "{status}");
    assert!(!status.contains("from_pod"), "programs are for those who ask:\n{status}");
    assert!(node.fairlead(&["status", "--verbose"]).stdout.contains("from_pod"));
    let by_name = node.fairlead(&["service", "explain", "smoke/shop:http"]).stdout;
    assert!(
        by_name.contains("10.96.7.7:8080/TCP is service smoke/shop") && by_name.contains("[fd00:10:96::77]:8080"),
        "{by_name}"
    );
    let yaml = node.fairlead(&["service", "list", "-o", "yaml"]).stdout;
    assert!(yaml.contains("api_version: fairlead/v1") && yaml.contains("service: smoke/shop"), "{yaml}");
    let version = node.fairlead(&["version"]).stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")) && version.contains("running agent"), "{version}");
    near.delete();
    assert!(!node.fairlead(&["status"]).stdout.contains("smoke/near"));
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
    let links = node.must_run(&["ls", "/sys/fs/bpf/fairlead/links"]);
    for link in ["tcx_in_eth0", "tcx_out_eth0", "cgroup_connect4", "cgroup_getpeername6"] {
        assert!(links.contains(link), "{link} is missing: {links}");
    }
}

/// Nothing of Fairlead is left on a node where it was uninstalled.
#[test]
fn uninstalling_leaves_the_node_as_it_was() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).start();
    let node = lab.node("node-1");
    let _pod = node.pod("smoke/pod").start();
    let refused = node.fairlead(&["uninstall"]);
    assert!(!refused.ok() && refused.stderr.contains("stop it first"), "{refused:?}");
    let dry = node.fairlead(&["uninstall", "--dry-run", "-o", "json"]);
    assert!(dry.ok(), "{dry:?}");
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["api_version"], &dry["kind"]), (&"fairlead/v1".into(), &"Steps".into()));
    let links = dry["items"].as_array().unwrap().iter().find(|step| step["what"] == "pod interfaces").unwrap();
    assert!(links["done"].as_str().unwrap().starts_with("would remove 1 link"), "{links}");
    node.agent().stop();
    // Nothing has been changed.
    assert!(node.must_run(&["ip", "route"]).contains("10.244."));
    let done = node.fairlead(&["uninstall"]);
    assert!(done.ok(), "{done:?}");
    for path in ["/sys/fs/bpf/fairlead", "/run/fairlead"] {
        assert!(!node.run(&["ls", path]).ok(), "{path} is left");
    }
    for family in ["-4", "-6"] {
        let routes = node.must_run(&["ip", family, "route"]);
        assert!(!routes.contains("10.244.") && !routes.contains("fd00:10:244:"), "{routes}");
    }
    assert!(!node.must_run(&["ip", "link"]).contains(" fl"), "a pod's link is left");
    assert!(node.fairlead(&["uninstall"]).ok(), "once more is no error");
}
