//! S80: what the node itself sends to services where no socket hook sees the socket, of processes in other cgroups and of the
//! kernel. The device for it, and the routes to that.

use std::net::IpAddr;
use std::time::Duration;

use fairlead_tests::{Lab, Node, Ping, Pod, Probe, ProbeError, Probes, ServiceManifest, Vantage, Via};

use crate::world::{ips, service, world};

const DEVICE: &str = "fairlead.svc";

/// The processes of a node that no hook sees.
fn unseen(node: &Node) -> Vantage {
    node.via(Via::Packet)
}

/// Ways to ask a service, with small and with large messages both ways.
fn probes(ip: IpAddr) -> Vec<(Probe, u16)> {
    let each = [(Probe::tcp(ip, 80), 80), (Probe::udp(ip, 53), 53), (Probe::udp(ip, 53).unconnected(), 53)];
    let large = |probe: Probe| probe.payload(20_000).answer_payload(20_000);
    each.into_iter().flat_map(|(probe, port)| [(probe.clone(), port), (large(probe), port)]).collect()
}

fn own(node: &Node, ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { node.v4().into() } else { node.v6().into() }
}

/// Waits until a service answers from its own address, by this server, which sees this client.
#[track_caller]
fn answers(lab: &Lab, from: &impl Probes, ip: IpAddr, server: &str, client: IpAddr) {
    for (probe, port) in probes(ip) {
        let reply = lab.wait_until(&format!("{probe:?} is answered by {server}"), || match from.probe(&probe) {
            Ok(reply) if reply.server.pod == server => Ok(reply),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(reply.peer, (ip, port).into(), "it talks to the service as far as it knows: {probe:?}");
        assert_eq!(reply.server.peer.ip(), client, "whom the server sees: {probe:?}");
    }
}

#[track_caller]
fn refused(lab: &Lab, from: &impl Probes, probe: &Probe) {
    lab.wait_until(&format!("{probe:?} is refused"), || match from.probe(probe) {
        Err(ProbeError::Refused) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn s80_processes_that_no_hook_sees_reach_services() {
    let world = world();
    let node = world.lab.node("node-1");
    let from = unseen(node);
    for (number, pod) in [(180, &world.near), (181, &world.far)] {
        world.lab.apply(&service(&format!("unseen-{number}"), number).endpoint(pod).yaml());
        for ip in ips(number) {
            answers(&world.lab, &from, ip, pod.key(), own(node, ip));
            // Another port of it is nobody's, whoever asks.
            for place in [&from, node.vantage()] {
                refused(&world.lab, place, &Probe::tcp(ip, 81));
                refused(&world.lab, place, &Probe::udp(ip, 54));
            }
            let mut open = from.connect(&Probe::tcp(ip, 80)).unwrap();
            for size in [100, 100_000, 1_000_000] {
                assert_eq!(open.exchange(size, size).unwrap().server.got, size);
            }
        }
    }
    // Both, in turn.
    world.lab.apply(&service("unseen-182", 182).endpoints(&[&world.near, &world.far]).yaml());
    for ip in ips(182) {
        for probe in [Probe::tcp(ip, 80), Probe::udp(ip, 53)] {
            world.lab.wait_until("both answer", || match from.spread(&probe, 30) {
                Ok(pods) if pods.len() == 2 => Ok(()),
                other => Err(format!("{probe:?}: {other:?}")),
            });
        }
    }
}

#[test]
fn s80_processes_of_nodes_as_backends_of_what_no_hook_sees() {
    const PORT: u16 = 9180;
    let world = world();
    let [one, two] = ["node-1", "node-2"].map(|name| world.lab.node(name));
    for node in [one, two] {
        node.serve(&format!("host/{}", node.name()), &[PORT], &[PORT]);
    }
    for (number, backend) in [(183, one), (184, two)] {
        let name = format!("shop/unseen-{number}");
        let service = ServiceManifest::new(&name).ips(&ips(number)).tcp("http", 80, PORT).udp("ask", 53, PORT);
        world.lab.apply(&service.host_endpoint(backend).yaml());
        for ip in ips(number) {
            // To its own process a node shows the service, or the answers would not come back.
            let client = if backend.name() == one.name() { ip } else { own(one, ip) };
            answers(&world.lab, &unseen(one), ip, &format!("host/{}", backend.name()), client);
        }
    }
    // Nothing listens there.
    for (number, node) in [(185, one), (186, two)] {
        let service = ServiceManifest::new(&format!("shop/unseen-{number}")).ips(&ips(number)).udp("ask", 53, 9181);
        world.lab.apply(&service.host_endpoint(node).yaml());
        world.lab.wait_in_force(one, ips(number).map(|ip| (ip, 53).into()));
        for ip in ips(number) {
            refused(&world.lab, &unseen(one), &Probe::udp(ip, 53));
        }
    }
}

#[test]
fn s80_what_nobody_serves_is_refused_to_what_no_hook_sees() {
    let world = world();
    let from = unseen(world.lab.node("node-1"));
    let service = service("unseen-187", 187);
    world.lab.apply(&service.yaml());
    for ip in ips(187) {
        refused(&world.lab, &from, &Probe::tcp(ip, 80));
        refused(&world.lab, &from, &Probe::udp(ip, 53));
    }
    // A pod that does not listen refuses in the name of the service.
    for (number, pod) in [(188, &world.near), (189, &world.far)] {
        let closed = ServiceManifest::new(&format!("shop/unseen-{number}")).ips(&ips(number));
        world.lab.apply(&closed.tcp("http", 80, 5999).udp("ask", 53, 5999).endpoint(pod).yaml());
        for ip in ips(number) {
            refused(&world.lab, &from, &Probe::tcp(ip, 80));
            refused(&world.lab, &from, &Probe::udp(ip, 53));
        }
    }
}

#[test]
fn s80_policy_lets_what_no_hook_sees_reach_the_nodes_pods_as_any_process() {
    let world = world();
    let node = world.lab.node("node-1");
    let closed = node.pod("unseen/closed").tcp(8080).udp(5300).start();
    world.lab.apply(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: nobody, namespace: unseen}, \
         spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}",
    );
    let service = ServiceManifest::new("unseen/closed").ips(&ips(190)).tcp("http", 80, 8080).udp("ask", 53, 5300);
    world.lab.apply(&service.endpoint(&closed).yaml());
    for ip in ips(190) {
        for (probe, _) in probes(ip) {
            world.lab.wait_until(&format!("the node reaches its pod: {probe:?}"), || unseen(node).probe(&probe));
            let probe = probe.timeout(Duration::from_millis(300));
            world.lab.wait_until("a pod is not let in", || match world.client.probe(&probe) {
                Err(ProbeError::TimedOut) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
}

/// One of a device that the Node object does not name, as where an API server listens on another network than kubelet.
#[test]
fn s80_any_address_of_the_node_may_be_a_backend() {
    const PORT: u16 = 9199;
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let own: [IpAddr; 2] = ["198.18.99.1", "fd00:198:18:99::1"].map(|ip| ip.parse().unwrap());
    node.must_run(&["ip", "link", "add", "own", "type", "veth", "peer", "name", "other"]);
    for ip in own {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        node.must_run(&["ip", "addr", "add", &format!("{ip}/{length}"), "dev", "own"]);
    }
    node.must_run(&["ip", "link", "set", "own", "up"]);
    node.serve("host/own", &[PORT], &[PORT]);
    let service = ServiceManifest::new("shop/unseen-199").ips(&ips(199)).tcp("http", 80, PORT).udp("ask", 53, PORT);
    lab.apply(&service.endpoint_outside(own).yaml());
    let pod = node.pod("shop/client").start();
    for ip in ips(199) {
        answers(&lab, &unseen(node), ip, "host/own", ip);
        for probe in [Probe::tcp(ip, 80), Probe::udp(ip, 53)] {
            lab.wait_until(&format!("a pod is answered too: {probe:?}"), || pod.via(Via::Packet).probe(&probe));
        }
    }
}

/// The kernel sends what it may cut in pieces of the size of the device, which knows nothing of the way behind it.
#[test]
fn s80_datagrams_that_are_larger_than_the_way_takes_arrive_at_the_next_try() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let guest = node.guest("narrow");
    node.must_run(&[
        "ip", "link", "add", "narrow", "mtu", "1420", "type", "veth", "peer", "name", "eth0", "netns", "narrow",
    ]);
    guest.must_run(&["ip", "link", "set", "eth0", "mtu", "1420"]);
    let theirs: [IpAddr; 2] = ["198.18.98.2", "fd00:198:18:98::2"].map(|ip| ip.parse().unwrap());
    for (ip, own) in theirs.iter().zip(["198.18.98.1", "fd00:198:18:98::1"]) {
        let length = if ip.is_ipv4() { 24 } else { 64 };
        let nodad: &[&str] = if ip.is_ipv4() { &[] } else { &["nodad"] };
        for (place, address, device) in [(node.vantage(), own.to_owned(), "narrow"), (&guest, ip.to_string(), "eth0")] {
            let address = format!("{address}/{length}");
            place.must_run(&[&["ip", "addr", "add", &address, "dev", device], nodad].concat());
            place.must_run(&["ip", "link", "set", device, "up"]);
        }
        let way = if ip.is_ipv4() {
            ["route", "add", "172.18.0.0/16", "via", own]
        } else {
            ["route", "add", "fd00:172:18::/48", "via", own]
        };
        guest.must_run(&["ip"].into_iter().chain(way).collect::<Vec<_>>());
    }
    guest.serve("narrow", &[], &[5300]);
    let service = ServiceManifest::new("shop/unseen-200").ips(&ips(200)).udp("ask", 53, 5300);
    lab.apply(&service.endpoint_outside(theirs).yaml());
    for ip in ips(200) {
        // The largest first: what the kernel learns of the way holds for the others.
        for size in [3_000, 1_440, 100] {
            let probe = Probe::udp(ip, 53).payload(size).timeout(Duration::from_millis(500));
            lab.wait_until(&format!("{size} bytes arrive"), || unseen(node).probe(&probe));
        }
    }
}

/// A VXLAN device of somebody else's sends by a socket of the kernel. Its other end is in a pod, behind a service.
#[test]
fn s80_sockets_of_the_kernel_reach_services() {
    const PORT: u16 = 4800;
    let world = world();
    let node = world.lab.node("node-1");
    for (number, pod) in [(191_u8, &world.near), (192, &world.far)] {
        let service = ServiceManifest::new(&format!("shop/unseen-{number}")).ips(&ips(number));
        world.lab.apply(&service.udp("vxlan", PORT, PORT).endpoint(pod).yaml());
        for (ip, back) in ips(number).into_iter().zip(node.ips()) {
            let id = if ip.is_ipv4() { number } else { number + 10 };
            let join = |place: &Vantage, remote: IpAddr, host: u8| {
                for line in [
                    format!("link add vx{id} type vxlan id {id} remote {remote} dstport {PORT}"),
                    format!("addr add 192.168.{id}.{host}/24 dev vx{id}"),
                    format!("link set vx{id} up"),
                ] {
                    place.must_run(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
                }
            };
            join(node.vantage(), ip, 1);
            join(pod.vantage(), back, 2);
            let other = Ping::new(IpAddr::from([192, 168, id, 2])).timeout(Duration::from_secs(1));
            world.lab.wait_until(&format!("the other end is reached by {ip}"), || node.ping(&other));
            node.must_run(&["ip", "link", "del", &format!("vx{id}")]);
        }
    }
}

#[test]
fn s80_nodes_without_a_default_route_that_check_return_paths_and_reach_others_by_the_tunnel() {
    let lab = Lab::builder().nodes(3).subnets(&[0, 0, 1]).checks_sources().start();
    let node = lab.node("node-1");
    let server = |name: &str| lab.node(name).pod(&format!("shop/{name}")).tcp(8080).udp(5300).start();
    let pods: Vec<Pod> = ["node-1", "node-2", "node-3"].map(server).into();
    node.must_run(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]);
    for (family, gateway, other) in
        [("-4", "172.18.0.1", "172.18.1.0/24"), ("-6", "fd00:172:18::1", "fd00:172:18:1::/64")]
    {
        node.must_run(&["ip", family, "route", "add", other, "via", gateway]);
        node.must_run(&["ip", family, "route", "del", "default"]);
    }
    for (number, pod) in (193..).zip(&pods) {
        lab.apply(&service(&format!("unseen-{number}"), number).endpoint(pod).yaml());
        for ip in ips(number) {
            answers(&lab, &unseen(node), ip, pod.key(), own(node, ip));
        }
    }
}

#[test]
fn s80_the_device_outlives_the_agent_is_repaired_and_goes_with_it() {
    let lab = Lab::builder().nodes(1).start();
    let node = lab.node("node-1");
    let server = node.pod("shop/server").tcp(8080).udp(5300).start();
    lab.apply(&service("unseen-196", 196).endpoint(&server).yaml());
    let from = unseen(node);
    let all_answer = || ips(196).into_iter().for_each(|ip| answers(&lab, &from, ip, server.key(), own(node, ip)));
    all_answer();
    let mut open = ips(196).map(|ip| from.connect(&Probe::tcp(ip, 80)).unwrap());
    node.agent().kill9();
    for ip in ips(196) {
        for (probe, _) in probes(ip) {
            from.probe(&probe).unwrap();
        }
    }
    node.start_agent();
    open.iter_mut().for_each(|each| drop(each.exchange(1000, 1000).unwrap()));
    all_answer();
    for undo in [
        format!("link del {DEVICE}"),
        format!("link set {DEVICE} down"),
        "link set fairlead.peer down".to_owned(),
        format!("link set {DEVICE} address 02:00:00:00:00:09"),
        format!("route flush dev {DEVICE}"),
    ] {
        node.must_run(&["ip"].into_iter().chain(undo.split(' ')).collect::<Vec<_>>());
        all_answer();
    }
    // What hardens a node takes the device out of forwarding.
    for family in ["ipv4", "ipv6"] {
        let key = format!("net/{family}/conf/{DEVICE}/forwarding");
        node.must_run(&["sysctl", "-qw", &format!("{key}=0")]);
        lab.wait_until(&format!("{key} is 1 again"), || match node.must_run(&["sysctl", "-n", &key]).trim() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        });
        all_answer();
    }
    // Somebody takes the program off: nothing goes astray, and it comes back.
    node.run(&["tc", "qdisc", "del", "dev", DEVICE, "clsact"]);
    all_answer();
    // Connections outlive their Service, and what begins now is refused.
    lab.delete("Service", "shop/unseen-196");
    for ip in ips(196) {
        refused(&lab, &from, &Probe::tcp(ip, 80));
    }
    open.iter_mut().for_each(|each| drop(each.exchange(1000, 1000).unwrap()));
    drop(open);
    node.agent().stop();
    server.delete();
    let ended = node.fairlead(&["uninstall"]);
    assert!(ended.ok(), "{ended:?}");
    for device in [DEVICE, "fairlead.peer"] {
        let left = node.run(&["ip", "link", "show", "dev", device]);
        assert!(!left.ok(), "{left:?}");
    }
}

#[test]
fn s80_ranges_that_are_named_are_routed_as_a_whole() {
    let ranges = ["10.96.0.0/16", "fd00:10:96::/64"];
    let lab = Lab::builder().nodes(1).agent(&["--service-ranges", &ranges.join(",")]).start();
    let node = lab.node("node-1");
    let server = node.pod("shop/server").tcp(8080).udp(5300).start();
    lab.apply(&service("unseen-197", 197).endpoint(&server).yaml());
    for ip in ips(197) {
        answers(&lab, &unseen(node), ip, server.key(), own(node, ip));
    }
    let routes = node.must_run(&["sh", "-c", "ip -4 route; ip -6 route"]);
    let lines: Vec<_> = routes.lines().filter(|line| line.contains(DEVICE)).collect();
    assert_eq!(lines.len(), 2, "{routes}");
    assert!(lines.iter().zip(ranges).all(|(line, range)| line.starts_with(range)), "{routes}");
    // What no Service has is refused, to whomever.
    for ip in ips(198) {
        for place in [&unseen(node), node.vantage()] {
            refused(&lab, place, &Probe::tcp(ip, 80));
        }
    }
}
