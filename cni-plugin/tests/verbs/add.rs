//! ADD

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use fairlead_agent::cni::{Health, KnownPod};
use fairlead_cni::ready;
use fairlead_objects::ObjectKey;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use crate::harness::{Attaching, Container, NODE_V4, NODE_V6, Node, ips};
use crate::netns::Netns;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What the node has for pods, for "nothing is left behind".
fn traces(node: &Node) -> String {
    node.host_links().iter().map(ToString::to_string).collect::<String>()
        + &node.netns.command("ip route show proto 241")
        + &node.netns.command("ip -6 route show proto 241")
        + &node.netns.command("ip neigh show nud permanent")
}

/// One byte each way over TCP.
fn tcp_works(from: &Netns, to: &Netns, address: &str, seen_as: &str) {
    let address: IpAddr = address.parse().unwrap();
    let (ready, port) = std::sync::mpsc::channel();
    let server = to.run(move || {
        std::thread::spawn(move || {
            let listener = TcpListener::bind(SocketAddr::new(address, 0)).unwrap();
            ready.send(listener.local_addr().unwrap().port()).unwrap();
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"x").unwrap();
            peer.ip()
        })
    });
    let target = SocketAddr::new(address, port.recv_timeout(Duration::from_secs(30)).expect("can't bind"));
    from.run(move || {
        let mut stream =
            TcpStream::connect_timeout(&target, Duration::from_secs(20)).unwrap_or_else(|e| panic!("{target}: {e}"));
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    assert_eq!(server.join().unwrap(), seen_as.parse::<IpAddr>().unwrap());
}

/// As hardening guides have it, where somebody has IPv6 for pods all the same.
#[test]
fn c1_add_gives_ipv6_on_a_node_that_switches_it_off_for_new_interfaces() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.netns.command("sysctl -w net.ipv6.conf.default.disable_ipv6=1");
    let result = node.add(&pod);
    assert_eq!(ips(&result), ["10.244.1.2", "fd00:10:244:1::2"]);
    let routes = node.netns.command("ip -6 route show proto 241");
    assert!(routes.contains("fd00:10:244:1::2"), "{routes}");
}

/// As some runtimes have it. What the pod's namespace has for interfaces of others stays.
#[test]
fn c1_add_gives_ipv6_to_a_pod_whose_namespace_has_it_off_for_new_interfaces() {
    const OFF: &str = "net.ipv6.conf.default.disable_ipv6";
    let (node, pod) = (Node::new(), Container::new("web-0"));
    pod.netns.command(&format!("sysctl -w {OFF}=1"));
    assert_eq!(ips(&node.add(&pod)), ["10.244.1.2", "fd00:10:244:1::2"]);
    assert!(pod.netns.command("ip -6 addr show dev eth0").contains("fd00:10:244:1::2/128"));
    assert_eq!(pod.netns.command(&format!("sysctl -n {OFF}")).trim(), "1");
}

#[test]
fn c1_add_gives_both_families_and_says_so() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let result = node.add(&pod);
    assert_eq!(ips(&result), ["10.244.1.2", "fd00:10:244:1::2"]);
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][0]["name"], pod.attachment().host_link());
    assert_eq!(result["interfaces"][0].get("sandbox"), None);
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["sandbox"], pod.netns.path);
    assert_eq!(result["interfaces"][1]["mtu"], 1450);
    assert_eq!(result["ips"][0], json!({"address": "10.244.1.2/32", "gateway": "169.254.1.1", "interface": 1}));
    assert_eq!(result["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));
}

#[test]
fn c19_add_wires_the_pod_side() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let result = node.add(&pod);
    let links = parse(&pod.netns.command("ip -j addr show"));
    let eth0 = &links[1];
    assert_eq!((&eth0["ifname"], &eth0["mtu"]), (&json!("eth0"), &json!(1450)));
    assert_eq!(eth0["address"], result["interfaces"][1]["mac"]);
    for link in [&links[0], eth0] {
        assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    }
    let addresses: Vec<String> = eth0["addr_info"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| {
            assert_eq!(a.get("tentative"), None, "no duplicate address detection: {a}");
            format!("{}/{}", a["local"].as_str().unwrap(), a["prefixlen"])
        })
        .collect();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
    assert!(addresses.contains(&"10.244.1.2/32".to_owned()), "{addresses:?}");
    assert!(addresses.contains(&"fd00:10:244:1::2/128".to_owned()), "{addresses:?}");
    assert!(addresses.iter().any(|a| a.starts_with("fe80::")), "{addresses:?}");

    let host_mac = result["interfaces"][0]["mac"].as_str().unwrap();
    for (family, gateway) in [("-4", "169.254.1.1"), ("-6", "fe80::1")] {
        let route = parse(&pod.netns.command(&format!("ip -j {family} route show default")));
        assert_eq!((&route[0]["gateway"], &route[0]["dev"]), (&json!(gateway), &json!("eth0")));
        let neighbour = parse(&pod.netns.command(&format!("ip -j {family} neigh show {gateway} dev eth0")));
        assert_eq!((&neighbour[0]["lladdr"], &neighbour[0]["state"]), (&json!(host_mac), &json!(["PERMANENT"])));
    }
}

#[test]
fn c19_add_wires_the_host_side() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let result = node.add(&pod);
    let name = pod.attachment().host_link();
    let link = &parse(&node.netns.command(&format!("ip -j -d addr show dev {name}")))[0];
    assert_eq!(link["ifindex"], 1_000_000, "slot 0");
    assert_eq!((&link["mtu"], &link["address"]), (&json!(1450), &result["interfaces"][0]["mac"]));
    assert_eq!(link["addr_info"], json!([]), "no address of its own");
    for (ip, source) in [("10.244.1.2", NODE_V4), ("fd00:10:244:1::2", NODE_V6)] {
        let family = if ip.contains(':') { "-6" } else { "-4" };
        let route = &parse(&node.netns.command(&format!("ip -j {family} route get {ip}")))[0];
        assert_eq!((&route["dev"], &route["prefsrc"]), (&json!(name), &json!(source)), "{route}");
        let neighbour = parse(&node.netns.command(&format!("ip -j {family} neigh show {ip} dev {name}")));
        assert_eq!(neighbour[0]["lladdr"], result["interfaces"][1]["mac"]);
        assert_eq!(neighbour[0]["state"], json!(["PERMANENT"]));
    }
}

#[test]
fn c1_add_lets_node_and_pod_talk_both_ways() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let result = node.add(&pod);
    for (ip, own) in ips(&result).iter().zip([NODE_V4, NODE_V6]) {
        tcp_works(&node.netns, &pod.netns, ip, own);
        tcp_works(&pod.netns, &node.netns, own, ip);
        node.netns.command(&format!("ping -c 1 -W 2 {ip}"));
        pod.netns.command(&format!("ping -c 1 -W 2 {own}"));
    }
}

#[test]
fn c20_add_attaches_while_the_links_are_down() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    *node.double.attaching.lock().unwrap() = Attaching::Waits;
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| node.verb("ADD", &pod, &node.conf("1.1.0")));
        // The node's own thread waits for the plugin, so this looks from the pod.
        let deadline = Instant::now() + Duration::from_secs(30);
        while !pod.is_wired() {
            assert!(Instant::now() < deadline, "the pod has no interface yet");
            std::thread::sleep(Duration::from_millis(10));
        }
        let eth0 = &parse(&pod.netns.command("ip -j link show eth0"))[0];
        assert!(node.double.attached.lock().unwrap().is_empty());
        assert!(!eth0["flags"].as_array().unwrap().contains(&json!("UP")), "{eth0}");
        node.double.go_on.add_permits(1);
        adding.join().unwrap().result();
    });
    let attached = node.double.attached.lock().unwrap();
    assert_eq!((attached[0].slot, attached[0].ifindex, attached[0].key.name.as_str()), (0, 1_000_000, "web-0"));
    assert_eq!(attached[0].uid.as_deref(), Some("uid-1"));
}

#[test]
fn c14_add_answers_in_every_version() {
    let node = Node::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Container::new("web-0");
        let result = node.verb("ADD", &pod, &node.conf(version)).result();
        assert_eq!(result["cniVersion"], version);
        match version {
            "0.1.0" | "0.2.0" => assert!(result["ip4"]["ip"].as_str().unwrap().ends_with("/32"), "{result}"),
            "1.0.0" | "1.1.0" => assert_eq!(result["ips"][0].get("version"), None, "{result}"),
            _ => assert_eq!(result["ips"][0]["version"], "4", "{result}"),
        }
    }
}

#[test]
fn c3_add_keeps_prev_result() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "x0"}], "dns": {"search": ["a"]}});
    let result = node.verb("ADD", &pod, &conf).result();
    assert_eq!(result["interfaces"][0]["name"], "x0");
    assert_eq!((&result["interfaces"][2]["name"], &result["ips"][0]["interface"]), (&json!("eth0"), &json!(2)));
    assert_eq!(result["dns"]["search"], json!(["a"]));
}

#[test]
fn c2_add_refuses_an_interface_that_exists() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    pod.netns.command("ip link add eth0 type veth peer name other");
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 4);
    assert!(msg.contains("CNI_IFNAME") && msg.contains("exists"), "{msg}");
    assert!(pod.is_wired(), "somebody else's interface stays");
    assert_eq!(traces(&node), "");
}

#[test]
fn c2_add_refuses_the_same_container_twice() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 4, "{msg}");
    // In another namespace the interface does not exist, and the agent knows.
    let mut again = Container::new("web-0");
    again.id.clone_from(&pod.id);
    let (code, msg) = node.verb("ADD", &again, &node.conf("1.1.0")).error();
    assert_eq!(code, 102, "{msg}");
    assert!(pod.is_wired());
    tcp_works(&node.netns, &pod.netns, "10.244.1.2", NODE_V4);
}

#[test]
fn c13_add_refuses_a_bad_namespace() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let table = [
        ("/nonexistent", "can't open"),
        ("/dev/null", "is it a network namespace?"),
        (node.netns.path.as_str(), "node's own"),
    ];
    for (path, expected) in table {
        let mut vars = pod.vars("ADD");
        vars[2].1 = path.to_owned();
        let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let (code, msg) = node.call(&vars, node.conf("1.1.0").to_string()).error();
        assert!([4, 100].contains(&code) && msg.contains(expected), "{path}: {code} {msg}");
    }
}

#[test]
fn c4_c20_add_undoes_everything_when_the_policy_is_not_in_force() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    *node.double.attaching.lock().unwrap() = Attaching::Fails;
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 11, "try again later");
    assert!(msg.contains("the verifier said no"), "{msg}");
    assert!(!pod.is_wired());
    assert_eq!(traces(&node), "");
    assert_eq!(node.double.detached.lock().unwrap().len(), 1, "what was half attached is taken out");
    *node.double.attaching.lock().unwrap() = Attaching::Succeeds;
    assert_eq!(ips(&node.add(&pod))[0], "10.244.1.3", "the first address rests");
}

#[test]
fn c4_add_undoes_everything_when_the_kernel_refuses() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    // The node's address is not its own any more, so the kernel refuses the route with it as source.
    node.netns.command(&format!("ip addr del {NODE_V4}/24 dev uplink"));
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 100);
    assert!(msg.contains("add the route to 10.244.1.2"), "{msg}");
    assert!(!pod.is_wired());
    assert_eq!(traces(&node), "");
}

#[test]
fn c20_add_without_an_agent_says_try_again() {
    let (node, pod) = (Node::without_agent(), Container::new("web-0"));
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 11);
    assert!(msg.contains("cni.sock") && msg.contains("fairlead"), "{msg}");
    assert!(!pod.is_wired());
}

#[test]
fn c20_add_waits_for_an_agent_that_restarts() {
    let (mut node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&Container::new("web-1"));
    node.stop_agent();
    // What the plugin reads before it tries again.
    let mark = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    mark.add_watch(&ready::mark_path(&node.socket()), AddWatchFlags::IN_OPEN).unwrap();
    std::thread::scope(|scope| {
        let (plugin, vars) = (Netns::new(), pod.vars("ADD"));
        let conf = node.conf("1.1.0").to_string();
        let adding = scope.spawn(move || {
            // From elsewhere: the agent needs the node's thread to start. Only the waiting matters here.
            let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (*k, v.as_str())).collect();
            crate::harness::call_in(&plugin, &vars, conf)
        });
        let mut asked = [PollFd::new(mark.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut asked, PollTimeout::from(5000_u16)).unwrap(), 1, "the plugin does not wait");
        node.start_agent();
        let (code, msg) = adding.join().unwrap().error();
        assert_eq!(code, 100, "it found the agent, and not the node's address in that namespace: {msg}");
    });
}

#[test]
fn c20_add_while_the_agent_starts_says_what_is_missing() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    *node.double.health.lock().unwrap() = Health::Ready;
    *node.double.node.lock().unwrap() = None;
    let (code, msg) = node.verb("ADD", &pod, &node.conf("1.1.0")).error();
    assert_eq!(code, 11);
    assert!(msg.contains("Node object"), "{msg}");
}

#[test]
fn c21_add_gives_the_addresses_of_the_pod_object() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let carried: Vec<IpAddr> = vec!["10.244.1.77".parse().unwrap(), "fd00:10:244:1::77".parse().unwrap()];
    let known = KnownPod { uid: String::new(), ips: carried };
    node.double.pods.lock().unwrap().insert(ObjectKey::new("shop", "web-0"), known);
    assert_eq!(ips(&node.add(&pod)), ["10.244.1.77", "fd00:10:244:1::77"]);
}

#[test]
fn c21_add_says_when_no_address_is_left() {
    let node = Node::new();
    node.double.node.lock().unwrap().as_mut().unwrap().pod_cidrs = vec!["10.244.9.0/30".parse().unwrap()];
    let (first, second) = (Container::new("web-0"), Container::new("web-1"));
    assert_eq!(ips(&node.add(&first)), ["10.244.9.2"], "one family is enough");
    let (code, msg) = node.verb("ADD", &second, &node.conf("1.1.0")).error();
    assert_eq!(code, 11);
    assert!(msg.contains("10.244.9.0/30"), "{msg}");
    assert!(!second.is_wired());
}

#[test]
fn c16_add_many_at_once_gives_each_its_own() {
    let node = Node::new();
    let pods: Vec<Container> = (0..12).map(|n| Container::new(&format!("web-{n}"))).collect();
    // Several plugins at once: each from a thread in the node's namespace.
    let mut seen: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|pod| {
                let (vars, conf) = (pod.vars("ADD"), node.conf("1.1.0").to_string());
                let thread =
                    node.netns.run(move || std::thread::spawn(move || crate::harness::execute(&vars, conf.as_bytes())));
                scope.spawn(move || thread.join().unwrap().result())
            })
            .collect();
        calls.into_iter().flat_map(|call| ips(&call.join().unwrap())).collect()
    });
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 24);
    assert_eq!(node.host_links().len(), 12);
}

#[test]
fn c39_a_further_interface_leaves_the_default_routes_of_the_first_and_its_del_too() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    let routes = |pod: &Container| {
        ["-4", "-6"].map(|family| pod.netns.command(&format!("ip {family} route show dev eth0"))).concat()
    };
    let before = routes(&pod);
    assert!(before.contains("default via 169.254.1.1") && before.contains("default via fe80::1"), "{before}");
    let mut conf = node.conf("1.1.0");
    conf["name"] = json!("second");
    let result = node.verb_of("ADD", &pod, "net1", &conf).result();
    assert_eq!(result["routes"], json!([]), "it says what it made");
    assert_eq!(ips(&result).len(), 2);
    assert_eq!(routes(&pod), before);
    for family in ["-4", "-6"] {
        let defaults = pod.netns.command(&format!("ip {family} route show default"));
        assert!(defaults.lines().count() == 1 && defaults.contains("dev eth0"), "{defaults}");
    }
    conf["prevResult"] = result;
    let checked = node.verb_of("CHECK", &pod, "net1", &conf);
    assert!(checked.is_empty_success(), "{checked:?}");
    assert!(node.verb_of("DEL", &pod, "net1", &conf).is_empty_success());
    node.finished();
    assert_eq!(routes(&pod), before);
    tcp_works(&node.netns, &pod.netns, "10.244.1.2", NODE_V4);
}

#[test]
fn c39_the_gateway_is_on_the_link_of_every_interface() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    node.add(&pod);
    node.verb_of("ADD", &pod, "net1", &node.conf("1.1.0")).result();
    let text = pod.netns.command("ip -4 route show 169.254.1.1");
    for dev in ["eth0", "net1"] {
        assert!(text.lines().any(|line| line.contains(dev) && line.contains("scope link")), "{text}");
        // What adds a route through it asks for no more, and finds it on this link.
        pod.netns.command(&format!("ip route add 198.51.100.0/24 via 169.254.1.1 dev {dev}"));
        pod.netns.command("ip route del 198.51.100.0/24");
        pod.netns.command(&format!("ip -6 route add 2001:db8:9::/48 via fe80::1 dev {dev}"));
        pod.netns.command("ip -6 route del 2001:db8:9::/48");
    }
    let chosen = pod.netns.command("ip -4 route get 169.254.1.1");
    assert!(chosen.contains("dev eth0"), "the first interface's is the better one: {chosen}");
}

#[test]
fn c40_add_gives_the_addresses_and_the_mac_that_the_runtime_asks_for() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let mut conf = node.conf("1.1.0");
    let mac = "02:00:5e:00:00:07";
    conf["runtimeConfig"] = json!({"ips": ["10.244.1.77/24", "fd00:10:244:1::77/64"], "mac": mac});
    let result = node.verb("ADD", &pod, &conf).result();
    assert_eq!(ips(&result), ["10.244.1.77", "fd00:10:244:1::77"]);
    assert_eq!(result["interfaces"][1]["mac"], mac);
    let eth0 = &parse(&pod.netns.command("ip -j link show eth0"))[0];
    assert_eq!(eth0["address"], mac);
    assert_eq!(node.double.attached.lock().unwrap()[0].pod_mac.to_string(), mac);
    tcp_works(&node.netns, &pod.netns, "10.244.1.77", NODE_V4);
    conf["prevResult"] = result;
    assert!(node.verb("CHECK", &pod, &conf).is_empty_success());
    // One family alone: the other is chosen.
    let (other, mut conf) = (Container::new("web-1"), node.conf("1.1.0"));
    conf["runtimeConfig"] = json!({"ips": ["10.244.1.78"]});
    let given = ips(&node.verb("ADD", &other, &conf).result());
    assert_eq!((given[0].as_str(), given.len()), ("10.244.1.78", 2));
}

#[test]
fn c40_add_refuses_by_name_what_it_can_t_give() {
    let node = Node::new();
    let holder = Container::new("web-0");
    node.add(&holder);
    let carried = KnownPod { uid: String::new(), ips: vec!["10.244.1.99".parse().unwrap()] };
    node.double.pods.lock().unwrap().insert(ObjectKey::new("shop", "web-9"), carried);
    let pod = Container::new("web-1");
    let host_mac = pod.attachment().host_mac().to_string();
    for (config, code, says) in [
        (json!({"ips": ["10.244.1.2/24"]}), 11, "runtimeConfig.ips: 10.244.1.2 is in use"),
        (json!({"ips": ["10.244.1.99/24"]}), 11, "runtimeConfig.ips: 10.244.1.99 is in use"),
        (json!({"ips": ["10.244.1.1"]}), 11, "can't be a pod's"),
        (json!({"ips": ["10.9.9.9/24"]}), 7, "runtimeConfig.ips: 10.9.9.9 is not in the pod ranges"),
        (json!({"ips": ["10.244.1.7", "10.244.1.8"]}), 2, "runtimeConfig.ips"),
        (json!({"mac": "01:00:00:00:00:01"}), 7, "runtimeConfig.mac"),
        (json!({"mac": host_mac}), 7, "runtimeConfig.mac"),
    ] {
        let mut conf = node.conf("1.1.0");
        conf["runtimeConfig"] = config.clone();
        let (found, msg) = node.verb("ADD", &pod, &conf).error();
        assert_eq!(found, code, "{config}: {msg}");
        assert!(msg.contains(says), "{config}: {msg}");
        assert!(!pod.is_wired(), "{config}");
        // Nothing of it makes a DEL fail.
        assert!(node.verb("DEL", &pod, &conf).is_empty_success(), "{config}");
    }
}

#[test]
fn c22_c40_an_address_that_is_asked_for_rests_like_any_other_unless_the_same_pod_had_it() {
    let (node, holder) = (Node::new(), Container::new("web-0"));
    let mut conf = node.conf("1.1.0");
    conf["runtimeConfig"] = json!({"ips": ["10.244.1.77"]});
    node.verb("ADD", &holder, &conf).result();
    assert!(node.verb("DEL", &holder, &conf).is_empty_success());
    // The pod itself again, as after its sandbox was lost. A machine that is busy may take long, but not each time.
    let (mut took, mut started) = (Vec::<Duration>::new(), Instant::now());
    while took.len() < 3 && took.iter().all(|took| *took >= Duration::from_secs(4)) {
        let adding = Instant::now();
        assert_eq!(ips(&node.verb("ADD", &holder, &conf).result())[0], "10.244.1.77");
        took.push(adding.elapsed());
        started = Instant::now();
        assert!(node.verb("DEL", &holder, &conf).is_empty_success());
    }
    assert!(took.iter().any(|took| *took < Duration::from_secs(4)), "{took:?}");
    // Others wait: what is on its way to the pod that is gone is not theirs.
    let other = Container::new("web-1");
    assert_eq!(ips(&node.verb("ADD", &other, &conf).result())[0], "10.244.1.77");
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn c41_add_and_check_take_null_for_an_empty_list() {
    let (node, pod) = (Node::new(), Container::new("web-0"));
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!({"cniVersion": "1.0.0", "interfaces": null, "ips": null, "routes": null, "dns": null});
    let result = node.verb("ADD", &pod, &conf).result();
    assert_eq!((ips(&result).len(), &result["dns"]), (2, &json!({})));
    let checked = node.verb("CHECK", &pod, &conf);
    assert!(checked.is_empty_success(), "{checked:?}");
}

/// Printed, not asserted: a timed assertion fails on a busy machine.
#[test]
fn add_latency_is_printed() {
    let node = Node::new();
    let pods: Vec<Container> = (0..40).map(|n| Container::new(&format!("web-{n}"))).collect();
    let mut times: Vec<Duration> = pods
        .iter()
        .map(|pod| {
            let started = Instant::now();
            node.add(pod);
            started.elapsed()
        })
        .collect();
    times.sort();
    println!("ADD, process start included: p50 {:?}, p95 {:?}", times[times.len() / 2], times[times.len() * 95 / 100]);
}
