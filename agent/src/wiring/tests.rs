//! What the kernel makes of it, in a network namespace of the test's own.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

use fairlead_cni::Mac;
use nix::sched::{CloneFlags, unshare};

use super::overlay::{NAME, Overlay};
use super::uplinks::paces;
use super::{Changed, Choice, Framing, Names, Netlink, NodeRoute, Sysctls, Uplink, Via, desired, neighbours, watch};
use crate::network::Network;
use crate::repair::{Step, WantPod, compare_pods};

fn ip(line: &str) -> String {
    let out = Command::new("ip").args(line.split_whitespace()).output().unwrap();
    assert!(out.status.success(), "ip {line}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Runs a test on a thread in a new namespace that has an uplink.
fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        ip("link set lo up");
        ip("link add uplink address 02:00:00:00:00:07 mtu 1400 type veth peer name fabric");
        ip("link set fabric up");
        ip("link set uplink up");
        ip("addr add 172.18.0.1/24 dev uplink");
        ip("addr add fd00:172:18::1/64 dev uplink nodad");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test().await });
    };
    std::thread::spawn(run).join().unwrap();
}

fn routes(routes: &[(&str, Option<&str>)]) -> BTreeSet<NodeRoute> {
    let parse = |(destination, via): &(&str, Option<&str>)| NodeRoute {
        destination: destination.parse().unwrap(),
        via: via.map_or(Via::Nobody, |via| Via::Node(via.parse().unwrap())),
    };
    routes.iter().map(parse).collect()
}

#[test]
fn node_routes_become_what_is_wanted_and_nothing_else_changes() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        ip("route add 198.51.100.0/24 via 172.18.0.9");
        let steps = [
            routes(&[
                ("10.244.1.0/24", None),
                ("fd00:10:244:1::/64", None),
                ("10.244.2.0/24", Some("172.18.0.2")),
                ("fd00:10:244:2::/64", Some("fd00:172:18::2")),
            ]),
            // Node 2 has another address, and node 1's range went to node 3.
            routes(&[
                ("10.244.1.0/24", Some("172.18.0.3")),
                ("fd00:10:244:1::/64", Some("fd00:172:18::3")),
                ("10.244.2.0/24", Some("172.18.0.4")),
                ("fd00:10:244:2::/64", Some("fd00:172:18::4")),
            ]),
            routes(&[("10.244.2.0/24", None), ("fd00:10:244:2::/64", None)]),
            routes(&[]),
        ];
        for wanted in steps {
            for _ in 0..2 {
                let errors = netlink.set_node_routes(&wanted, &[]).await.unwrap().errors;
                assert!(errors.is_empty(), "{errors:?}");
                assert_eq!(netlink.node_routes().await.unwrap(), wanted);
            }
        }
        assert!(ip("route show").contains("198.51.100.0/24"));
    });
}

#[test]
fn s86_a_route_of_another_program_stays_and_is_named() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let theirs = ["10.244.2.0/24 via 172.18.0.9 dev uplink", "fd00:10:244:2::/64 via fd00:172:18::9 dev uplink"];
        for line in theirs {
            ip(&format!("route add {line} proto static"));
        }
        // With another metric it is not in the way, and who leads the same way does what ours would.
        ip("route add 10.244.4.0/24 via 172.18.0.9 metric 50");
        ip("route add 10.244.5.0/24 via 172.18.0.5");
        let next = |n: u8| (format!("10.244.{n}.0/24"), format!("172.18.0.{n}"));
        let [three, four, five] = [3, 4, 5].map(next);
        let ours = routes(&[(&three.0, Some(&three.1)), (&four.0, Some(&four.1))]);
        let mut wanted = routes(&[
            ("10.244.2.0/24", Some("172.18.0.2")),
            ("fd00:10:244:2::/64", Some("fd00:172:18::2")),
            (&five.0, Some(&five.1)),
        ]);
        wanted.extend(&ours);
        for _ in 0..2 {
            let errors = netlink.set_node_routes(&wanted, &[]).await.unwrap().errors;
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts.len(), 2, "{texts:?}");
            assert!(texts[0].contains("10.244.2.0/24 via 172.18.0.9"), "{texts:?}");
            assert!(texts[1].contains("fd00:10:244:2::/64 via fd00:172:18::9"), "{texts:?}");
            assert_eq!(netlink.node_routes().await.unwrap(), ours);
        }
        // Once it is gone there is room.
        ip("route del 10.244.2.0/24");
        assert_eq!(netlink.set_node_routes(&wanted, &[]).await.unwrap().errors.len(), 1);
        assert_eq!(netlink.node_routes().await.unwrap().len(), ours.len() + 1);
        assert!(netlink.set_node_routes(&BTreeSet::new(), &[]).await.unwrap().errors.is_empty());
        assert!(ip("-6 route show proto static").contains("fd00:10:244:2::/64 via fd00:172:18::9"));
        assert!(ip("route show").contains("10.244.5.0/24 via 172.18.0.5"));
    });
}

#[test]
fn routes_of_other_tables_are_not_those_of_the_main_one() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let wanted = routes(&[("10.244.2.0/24", Some("172.18.0.2")), ("fd00:10:244:2::/64", Some("fd00:172:18::2"))]);
        let set = async |wanted| netlink.set_node_routes(wanted, &[]).await.unwrap().errors;
        assert!(set(&wanted).await.is_empty());
        let copies =
            ["-4 route add 10.244.2.0/24 via 172.18.0.2", "-6 route add fd00:10:244:2::/64 via fd00:172:18::2"];
        for copy in copies {
            ip(&format!("{copy} proto 242 table 100"));
        }
        ip("-4 route del 10.244.2.0/24");
        ip("-6 route del fd00:10:244:2::/64");
        assert!(netlink.node_routes().await.unwrap().is_empty());
        assert!(set(&wanted).await.is_empty());
        assert!(ip("-4 route show").contains("10.244.2.0/24 via 172.18.0.2"));
        assert!(ip("-6 route show").contains("fd00:10:244:2::/64 via fd00:172:18::2"));
        let none = BTreeSet::new();
        for _ in 0..2 {
            let errors = set(&none).await;
            assert!(errors.is_empty(), "{errors:?}");
        }
        assert!(ip("route show table 100").contains("10.244.2.0/24"), "what others have made is theirs");
    });
}

#[test]
fn two_nodes_with_one_range_change_nothing_at_each_look() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let node = |name: &str, ip: &str| fairlead_objects::Node {
            name: name.to_owned(),
            labels: fairlead_objects::Labels::new(),
            zone: None,
            internal_ips: vec![ip.parse().unwrap()],
            external_ips: Vec::new(),
            annotated: None,
            leaving: false,
            pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
        };
        let network = Network {
            addresses: vec!["172.18.0.1".parse().unwrap()],
            subnets: vec!["172.18.0.0/24".parse().unwrap()],
            ..Network::default()
        };
        let wanted = desired("own", &[node("b", "172.18.0.2"), node("a", "172.18.0.3")], &network);
        for changed in [true, false, false] {
            let kept = netlink.set_node_routes(&wanted, &[]).await.unwrap();
            assert!(kept.errors.is_empty(), "{:?}", kept.errors);
            assert_eq!(!kept.changed.is_empty(), changed, "{:?}", kept.changed);
        }
        assert!(ip("route show").contains("10.244.2.0/24 via 172.18.0.3"));
    });
}

#[test]
fn routes_follow_the_network_to_another_interface() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let wanted = routes(&[
            ("10.244.1.0/24", None),
            ("10.244.2.0/24", Some("172.18.0.2")),
            ("fd00:10:244:2::/64", Some("fd00:172:18::2")),
            // Nobody knows where it is.
            ("10.244.3.0/24", Some("198.51.100.3")),
        ]);
        let set = async || {
            let uplinks = netlink.uplinks(&["172.18.0.1".parse().unwrap()]).await.unwrap();
            let kept = netlink.set_node_routes(&wanted, &uplinks).await.unwrap();
            assert!(kept.errors.is_empty(), "{:?}", kept.errors);
            kept.changed.len()
        };
        // IPv4 of an interface ends with its last address.
        ip("addr add 198.51.100.1/24 dev uplink");
        assert_eq!([set().await, set().await], [4, 0]);
        for to in ["10.244.2.5", "fd00:10:244:2::5"] {
            assert!(ip(&format!("route get {to}")).contains("dev uplink"));
        }
        for line in [
            "link add br0 type bridge",
            "link set uplink master br0",
            "link set br0 up",
            "addr del 172.18.0.1/24 dev uplink",
            "addr add 172.18.0.1/24 dev br0",
            "addr del fd00:172:18::1/64 dev uplink",
            "addr add fd00:172:18::1/64 dev br0 nodad",
        ] {
            ip(line);
        }
        for to in ["10.244.2.5", "fd00:10:244:2::5"] {
            assert!(ip(&format!("route get {to}")).contains("dev uplink"), "the kernel leaves them where they were");
        }
        assert_eq!([set().await, set().await], [2, 0]);
        for to in ["10.244.2.5", "fd00:10:244:2::5"] {
            let way = ip(&format!("route get {to}"));
            assert!(way.contains("dev br0"), "{way}");
        }
        assert_eq!(netlink.node_routes().await.unwrap(), wanted);
    });
}

#[test]
fn a_next_hop_that_is_not_on_the_network_costs_only_its_route() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let wanted = routes(&[("10.244.2.0/24", Some("203.0.113.1")), ("10.244.3.0/24", Some("172.18.0.3"))]);
        let errors = netlink.set_node_routes(&wanted, &[]).await.unwrap().errors;
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("10.244.2.0/24 via 203.0.113.1"), "{}", errors[0]);
        assert_eq!(netlink.node_routes().await.unwrap(), routes(&[("10.244.3.0/24", Some("172.18.0.3"))]));
    });
}

#[test]
fn s73_uplinks_are_where_ip_enters_or_leaves() {
    on_a_node(|| async {
        for line in [
            "link add fl0123456789 index 1000005 type veth peer name pod",
            "addr add 172.18.0.1/32 dev fl0123456789",
            "link add second type veth peer name fabric2",
            "addr add 192.0.2.1/24 dev second",
            "link add br0 type bridge",
            "addr add 198.51.100.1/24 dev br0",
            "link add port type veth peer name container",
            "link set port master br0",
            "addr add 198.51.100.2/24 dev port",
            "link add bare type veth peer name nothing",
            "tuntap add dev tun0 mode tun",
            "addr add 203.0.113.1/24 dev tun0",
            "link add fairlead.vxlan index 999999 type veth peer name end",
        ] {
            ip(line);
        }
        let netlink = Netlink::open().unwrap();
        let node_ips: Vec<IpAddr> = vec!["172.18.0.1".parse().unwrap()];
        let found = netlink.uplinks(&node_ips).await.unwrap();
        let names = |found: &[Uplink]| found.iter().map(|u| (u.name.clone(), u.is_primary)).collect::<Vec<_>>();
        let named = |all: &[(&str, bool)]| all.iter().map(|(name, is)| ((*name).to_owned(), *is)).collect::<Vec<_>>();
        // `fabric` has a link-local address and the route to its network, as whatever is up.
        let expected = [("fabric", false), ("uplink", true), ("second", false), ("br0", false), ("tun0", false)];
        assert_eq!(names(&found), named(&expected));
        let bare: Vec<_> = found.iter().map(|uplink| uplink.framing == Framing::Bare).collect();
        assert_eq!(bare, [false, false, false, false, true]);
        let uplink = &found[1];
        assert_eq!((uplink.mtu, uplink.mac.unwrap().to_string().as_str()), (1400, "02:00:00:00:00:07"));
        for address in ["172.18.0.1", "fd00:172:18::1"] {
            assert!(uplink.addresses.iter().any(|(ip, _)| ip.to_string() == address), "{uplink:?}");
        }
        // A route without an address is enough, and nodes may be reached by what has a default route.
        ip("link set bare up");
        ip("link set nothing up");
        ip("-6 addr flush dev bare");
        ip("route add 10.1.2.3/32 dev bare");
        ip("link set second up");
        ip("link set fabric2 up");
        ip("route add default via 192.0.2.9");
        let found = netlink.uplinks(&node_ips).await.unwrap();
        assert!(found.iter().any(|u| u.name == "bare" && u.addresses.is_empty() && !u.is_primary), "{found:?}");
        assert!(found.iter().any(|u| u.name == "second" && u.is_primary), "{found:?}");
        let pattern = |text: &str| text.parse().unwrap();
        let choice = Choice { named: vec![], excluded: ["f*", "n*", "b?re", "second", "tun*"].map(pattern).into() };
        assert_eq!(names(&choice.of(found.clone())), named(&[("uplink", true), ("br0", false)]));
        let choice = Choice { named: vec![pattern("br0")], excluded: vec![] };
        assert_eq!(names(&choice.of(found)), named(&[("br0", true)]));
    });
}

#[test]
fn a_change_of_the_network_is_told() {
    on_a_node(|| async {
        let mut changes = watch(Changed::default()).unwrap();
        ip("addr add 172.18.0.77/24 dev uplink");
        tokio::time::timeout(std::time::Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
    });
}

#[test]
fn a_pod_whose_link_was_down_is_wired_again() {
    on_a_node(|| async {
        let sysctls = Sysctls::new(std::path::Path::new("/proc/sys"), &std::env::temp_dir());
        let pod = WantPod {
            slot: 5,
            host_mac: Mac([10, 0, 0, 0, 0, 5]),
            pod_mac: Mac([2, 0, 0, 0, 0, 5]),
            mtu: Some(1450),
            ips: ["10.244.1.5", "fd00:10:244:1::5"].map(|ip| ip.parse().unwrap()).into(),
        };
        let own = ["172.18.0.1", "fd00:172:18::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let name = "fl0000000005";
        ip(&format!("link add {name} index 1000005 type veth peer name pod"));
        ip(&format!("link set {name} alias network=fairlead"));
        ip("link add bridge type bridge");
        ip("link set pod up");
        let netlink = Netlink::open().unwrap();
        let steps = async || {
            compare_pods(std::slice::from_ref(&pod), &netlink.pods(&mut super::Peers::default()).await.unwrap())
        };
        let mend = async || {
            // A second time for the settings of IPv6, where the kernel had taken all of that away.
            for _ in 0..2 {
                for step in steps().await {
                    let source = match step {
                        Step::Route(_, ip) => own.iter().copied().find(|own| own.is_ipv4() == ip.is_ipv4()),
                        _ => None,
                    };
                    let have = netlink.pods(&mut super::Peers::default()).await.unwrap();
                    let names = Names { now: &have.links[&pod.ifindex()].name, right: &pod.name() };
                    netlink
                        .mend(step, names, source, &sysctls)
                        .await
                        .unwrap_or_else(|error| panic!("{step:?}: {error}"));
                }
            }
            assert_eq!(steps().await, []);
        };
        assert!(steps().await.len() >= 6, "nothing is wired yet");
        mend().await;
        for harm in [
            format!("link set {name} down"),
            format!("link set {name} address 02:00:00:00:00:77"),
            format!("neigh del 10.244.1.5 dev {name}"),
            format!("neigh replace fd00:10:244:1::5 lladdr 02:00:00:00:00:66 dev {name} nud permanent"),
            format!("neigh replace 10.244.1.5 lladdr 02:00:00:00:00:05 dev {name} nud stale"),
            format!("route del 10.244.1.5/32 dev {name}"),
            format!("-6 route del fd00:10:244:1::5 dev {name}"),
            format!("route add 10.244.1.9/32 dev {name} proto 241"),
            format!("link set {name} mtu 1400"),
            // Below what IPv6 needs the kernel takes all of it away.
            format!("link set {name} mtu 1000"),
            format!("link set {name} master bridge"),
            format!("link set {name} name renamed0"),
        ] {
            ip(&harm);
            assert_ne!(steps().await, [], "{harm}");
            mend().await;
            assert!(ip("route get 10.244.1.5").contains("src 172.18.0.1"), "{harm}");
        }
        // A copy in another table is not the pod's route.
        ip(&format!("route add 10.244.1.5/32 dev {name} proto 241 table 100"));
        assert_eq!(steps().await, []);
        ip(&format!("route del 10.244.1.5/32 dev {name}"));
        assert_eq!(steps().await.len(), 1);
        mend().await;
        // Down and up again takes both routes and both neighbours.
        ip(&format!("link set {name} down"));
        ip(&format!("link set {name} up"));
        assert_eq!(steps().await.len(), 4);
        mend().await;
        for key in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{key}/conf/{name}/forwarding"), "0").unwrap();
            assert_eq!(steps().await.len(), 1, "{key}");
            mend().await;
        }
        // An address that the node does not have is no reason to do without the route.
        ip(&format!("route del 10.244.1.5/32 dev {name}"));
        let other = Some("192.0.2.1".parse().unwrap());
        let names = Names { now: name, right: name };
        netlink.mend(Step::Route(pod.ifindex(), pod.ips[0]), names, other, &sysctls).await.unwrap();
        assert_eq!(steps().await, []);
        // What others have there is theirs.
        ip(&format!("route add 198.51.100.0/24 dev {name}"));
        assert_eq!(steps().await, []);
        ip(&format!("link del {name}"));
        assert_eq!(steps().await, []);
    });
}

#[test]
fn a_next_hop_on_an_uplinks_network_is_a_neighbour() {
    let uplink = |ifindex, addresses: &[&str]| Uplink {
        ifindex,
        name: format!("eth{ifindex}"),
        mtu: 1500,
        mac: None,
        addresses: addresses
            .iter()
            .map(|text| {
                text.split_once('/').map(|(ip, prefix)| (ip.parse().unwrap(), prefix.parse().unwrap())).unwrap()
            })
            .collect(),
        is_primary: true,
        has_ip: true,
        paces: false,
        framing: Framing::Ethernet,
        has_vlans: false,
    };
    let other = Uplink { is_primary: false, ..uplink(1, &["172.18.0.1/16", "192.0.2.1/24"]) };
    let uplinks = [other, uplink(2, &["172.18.0.11/24"]), uplink(3, &["fd00:172:18::11/64"])];
    let routes = routes(&[
        ("10.244.2.0/24", Some("172.18.0.12")),
        ("fd00:10:244:2::/64", Some("fd00:172:18::12")),
        ("10.244.3.0/24", Some("192.0.2.7")),
        ("10.244.1.0/24", None),
    ]);
    let expected = [(2, "172.18.0.12".parse().unwrap()), (3, "fd00:172:18::12".parse().unwrap())];
    assert_eq!(neighbours(&uplinks, &routes), expected.into());
}

#[test]
fn neighbours_are_kept_by_the_kernel_and_given_up_again() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let uplinks = netlink.uplinks(&["172.18.0.1".parse().unwrap()]).await.unwrap();
        let routes = routes(&[("10.244.2.0/24", Some("172.18.0.12")), ("fd00:10:244:2::/64", Some("fd00:172:18::12"))]);
        let wanted = neighbours(&uplinks, &routes);
        assert_eq!(wanted.len(), 2);
        for _ in 0..2 {
            assert!(netlink.keep_neighbours(&wanted).await.unwrap().errors.is_empty());
            let (v4, v6) = (ip("-4 neigh show dev uplink"), ip("-6 neigh show dev uplink"));
            assert!(v4.contains("172.18.0.12") && v4.contains("managed"), "{v4}");
            assert!(v6.contains("fd00:172:18::12") && v6.contains("managed"), "{v6}");
        }
        assert!(netlink.keep_neighbours(&BTreeSet::new()).await.unwrap().errors.is_empty());
        assert!(!ip("neigh show dev uplink nud all").contains("managed"));
    });
}

#[test]
fn the_tunnels_device_is_made_once_and_again_when_it_is_not_right() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        let keep = async |port, mtu| netlink.keep_overlay(port, mtu).await.unwrap();
        assert_eq!(keep(4789, 1350).await, (Overlay::Made, vec![]));
        assert_eq!(keep(4789, 1350).await, (Overlay::Down, vec![]));
        netlink.raise_overlay().await.unwrap();
        assert_eq!(keep(4789, 1350).await, (Overlay::Up, vec![]));
        let shown = ip(&format!("-d addr show dev {NAME}"));
        for expected in ["999999: ", "NOARP", "mtu 1350", "02:66:6c:76:78:01", "external", "dstport 4789", "nolearning"]
        {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(shown.contains("inet 127.169.1.2/32 scope host") && !shown.contains("inet6"), "{shown}");
        // As an earlier release left it, and as others leave devices that they think are theirs.
        ip(&format!("addr flush dev {NAME}"));
        ip(&format!("addr add 169.254.1.2/32 dev {NAME}"));
        ip("link add br0 type bridge");
        ip(&format!("link set {NAME} master br0"));
        let (overlay, mended) = keep(4789, 1350).await;
        assert!(overlay == Overlay::Up && mended.len() == 2, "{mended:?}");
        let shown = ip(&format!("addr show dev {NAME}"));
        assert!(shown.contains("127.169.1.2/32") && !shown.contains("169.254.1.2/32"), "{shown}");
        assert!(!shown.contains("master"), "{shown}");
        // Another MTU is no other device.
        assert_eq!(keep(4789, 1330).await, (Overlay::Up, vec![]));
        assert!(ip(&format!("link show dev {NAME}")).contains("mtu 1330"));
        assert_eq!(keep(8472, 1330).await, (Overlay::Made, vec![]));
        assert!(ip(&format!("-d link show dev {NAME}")).contains("dstport 8472"));
        ip(&format!("link set {NAME} address 02:00:00:00:00:09"));
        assert_eq!(keep(8472, 1330).await, (Overlay::Made, vec![]));
        ip(&format!("link del {NAME}"));
        ip(&format!("link add {NAME} type bridge"));
        assert_eq!(keep(8472, 1330).await, (Overlay::Made, vec![]));
        assert!(netlink.remove_overlay().await.unwrap());
        assert!(!netlink.remove_overlay().await.unwrap());
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    on_a_node(|| async {
        ip("link add other type vxlan id 1 dstport 4789 local 172.18.0.1");
        ip("link set other up");
        let netlink = Netlink::open().unwrap();
        let error = match netlink.keep_overlay(4789, 1350).await {
            Ok(_) => netlink.raise_overlay().await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.to_string().contains("--vxlan-port"), "{error}");
    });
}

#[test]
fn routes_lead_into_the_tunnel_and_out_of_it_again() {
    on_a_node(|| async {
        let netlink = Netlink::open().unwrap();
        netlink.keep_overlay(4789, 1350).await.unwrap();
        netlink.raise_overlay().await.unwrap();
        let tunnel = |destination: &str, source: Option<&str>| NodeRoute {
            destination: destination.parse().unwrap(),
            via: Via::Tunnel(source.map(|ip| ip.parse().unwrap())),
        };
        let through: BTreeSet<_> = [
            tunnel("10.244.2.0/24", Some("172.18.0.1")),
            tunnel("fd00:10:244:2::/64", Some("fd00:172:18::1")),
            tunnel("10.244.3.0/24", None),
        ]
        .into();
        let direct = routes(&[("10.244.2.0/24", Some("172.18.0.2")), ("fd00:10:244:2::/64", Some("fd00:172:18::2"))]);
        let nowhere = routes(&[("10.244.2.0/24", None), ("fd00:10:244:2::/64", None)]);
        for wanted in [&through, &direct, &through, &nowhere, &through] {
            let errors = netlink.set_node_routes(wanted, &[]).await.unwrap().errors;
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(&netlink.node_routes().await.unwrap(), wanted);
        }
        assert!(ip("route get 10.244.2.7").contains("dev fairlead.vxlan src 172.18.0.1"));
        assert!(ip("route get fd00:10:244:2::7").contains("src fd00:172:18::1"));
    });
}

#[test]
fn fq_for_the_device_or_for_each_of_its_queues_paces() {
    use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

    let queue = |ifindex: i32, handle: u16, parent: TcHandle, kind: &str| {
        let mut message = TcMessage::with_index(ifindex);
        message.header.handle = TcHandle { major: handle, minor: 0 };
        message.header.parent = parent;
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        message
    };
    let child = |minor| TcHandle { major: 7, minor };
    let of = |queues: &[TcMessage]| paces(queues, 2);
    let clsact = || queue(2, 0xffff, TcHandle::INGRESS, "clsact");
    assert!(of(&[clsact(), queue(2, 7, TcHandle::ROOT, "fq")]));
    assert!(!of(&[clsact(), queue(2, 7, TcHandle::ROOT, "fq_codel")]));
    assert!(!of(&[clsact(), queue(3, 7, TcHandle::ROOT, "fq")]), "another device's");
    assert!(!of(&[clsact()]), "no queue at all");
    let mq = || queue(2, 7, TcHandle::ROOT, "mq");
    assert!(of(&[mq(), queue(2, 0, child(1), "fq"), queue(2, 0, child(2), "fq")]));
    assert!(!of(&[mq(), queue(2, 0, child(1), "fq"), queue(2, 0, child(2), "pfifo_fast")]));
    assert!(!of(&[mq()]));
}

/// A network namespace of its own under a name, gone with the value.
struct Netns(String);

impl Netns {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        ip(&format!("netns add {name}"));
        Self(name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn a_pod_whose_link_has_too_many_names_holds_nobody_up() {
    on_a_node(|| async {
        let (hostile, other) = (Netns::new("fl-names"), Netns::new("fl-quiet"));
        for (n, netns) in [(5, &hostile), (6, &other)] {
            ip(&format!("link add fl000000000{n} index 100000{n} type veth peer name eth0 netns {}", netns.0));
            ip(&format!("link add veth{n} type veth peer name eth1 netns {}", netns.0));
            ip(&format!("-n {} addr add 10.244.1.{n}/24 dev eth1", netns.0));
            ip(&format!("-n {} link set eth0 address 02:00:00:00:00:0{n}", netns.0));
        }
        let netlink = Netlink::open().unwrap();
        let (mut peers, mut sides) = (super::Peers::default(), super::Sides::new(netlink.clone()));
        let wanted: BTreeSet<IpAddr> = ["10.244.1.5", "10.244.1.6"].map(|ip| ip.parse().unwrap()).into();
        let macs = |have: crate::repair::HavePods| have.links.values().map(|link| link.peer_mac).collect::<Vec<_>>();
        let before = (macs(netlink.pods(&mut peers).await.unwrap()), sides.look(&wanted, &[]).await.unwrap());
        assert_eq!(before.0, [Some(Mac([2, 0, 0, 0, 0, 5])), Some(Mac([2, 0, 0, 0, 0, 6]))]);
        assert_eq!(before.1.sides.iter().map(|side| side.ips.len()).collect::<Vec<_>>(), [1, 1]);
        let mut most = 0;
        for link in ["eth0", "eth1"] {
            let names: String =
                (0..495).map(|n| format!("link property add dev {link} altname {link}{n:0>123}\n")).collect();
            let path = std::env::temp_dir().join(format!("fairlead-names-{}", std::process::id()));
            std::fs::write(&path, names).unwrap();
            // The kernel takes as many as an attribute has room for.
            let made = Command::new("ip").args(["-n", &hostile.0, "-force", "-batch"]).arg(&path).output().unwrap();
            std::fs::remove_file(path).unwrap();
            most = 495 - String::from_utf8_lossy(&made.stderr).matches("Command failed").count();
        }
        assert!(most > 400, "{most}");
        let long = std::time::Duration::from_secs(20);
        for _ in 0..2 {
            let begun = std::time::Instant::now();
            peers.changed().note_all();
            let looks =
                async { (macs(netlink.pods(&mut peers).await.unwrap()), sides.look(&wanted, &[]).await.unwrap()) };
            let seen = tokio::time::timeout(long, looks).await.expect("no look waits for ever");
            // Of the one what was seen last, of the other what is so.
            assert_eq!(seen, before, "{most} names");
            assert!(begun.elapsed() < std::time::Duration::from_secs(4));
        }
    });
}
