//! The cluster's cloud, as far as it has one: Services of type LoadBalancer get addresses, and the fabric routes those to the
//! nodes that say they are well, as routers do to which nodes announce addresses (`ipMode: VIP`). It runs in the fabric.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Deserializer, Value, json};

use crate::cluster::Cluster;
use crate::fabric::CLIENT;
use crate::system::ip;

/// How often nodes are asked whether they are well.
const ROUND: Duration = Duration::from_secs(1);
/// How long a node may take to say so.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long to wait for an API server that has gone.
const AWAY: Duration = Duration::from_secs(3);
/// Who routes are of (rtnetlink(7), `rtm_protocol`): nobody whom iproute2 knows by name.
const PROTOCOL: u8 = 150;
/// What a cloud has Services keep until it has cleaned up (KEP-980).
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Where kube-proxy, and whoever does its work, says whether a node is well (KEP-3836).
const NODE_HEALTH: u16 = 10256;

/// What is wanted for a Service, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Balanced {
    /// Whether it is to have a load balancer.
    wanted: bool,
    /// Whether each family (IPv4, IPv6) is one of its own.
    families: [bool; 2],
    /// What its status says.
    addresses: Vec<IpAddr>,
    finalizers: Vec<String>,
    /// The port where a node says whether it may get packets of this Service.
    health: u16,
    /// Packets of a client always go to the same node: each node remembers the endpoints of its own clients.
    sticky: bool,
}

/// Namespace and name.
type Key = (String, String);
type Services = BTreeMap<Key, Balanced>;
/// The nodes that an address is routed to.
type Routes = BTreeMap<IpAddr, Vec<IpAddr>>;

/// One change to a Service.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Finalizers(Vec<String>),
    Addresses(Vec<IpAddr>),
}

/// Runs until the API server goes away; whoever started it starts it again.
pub(crate) fn balance(cluster: &Cluster) -> Result<()> {
    let mut nodes = Vec::new();
    for (_, name) in cluster.spec().node_names() {
        nodes.push(cluster.node_addresses(&name)?);
    }
    let events = watch(cluster)?;
    let mut services = Services::new();
    let mut routes = known_routes()?;
    // The watch begins with what is there.
    let settled = Instant::now() + ROUND;
    loop {
        match events.recv_timeout(ROUND) {
            Ok(event) => note(&mut services, &event)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // An API server that is away is not asked without a break.
                thread::sleep(AWAY);
                bail!("the watch of Services has ended")
            }
        }
        while let Ok(event) = events.try_recv() {
            note(&mut services, &event)?;
        }
        if Instant::now() < settled {
            continue;
        }
        for (key, change) in changes(&services) {
            let (key, now) = parse(&apply(cluster, &key, &change)?)?;
            services.insert(key, now);
        }
        // Each is asked once a round, by however many Services.
        let mut answers = BTreeMap::new();
        let mut ask = |node: IpAddr, port| *answers.entry((node, port)).or_insert_with(|| is_well(node, port));
        let wanted = wanted_routes(&services, &nodes, &mut ask);
        let commands = route_commands(&routes, &wanted);
        if !commands.is_empty() {
            print!("{commands}");
            ip(None, &commands)?;
        }
        routes = wanted;
    }
}

/// kubectl as the administrator. Unlike [`Cluster::kubectl_command`] it enters no network: this process is in the fabric's.
fn kubectl(cluster: &Cluster) -> Command {
    let mut command = Command::new(cluster.program("kubectl"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).stdin(Stdio::null());
    command
}

/// Every Service, and then every change, as kubectl has them.
fn watch(cluster: &Cluster) -> Result<mpsc::Receiver<Value>> {
    let mut kubectl = kubectl(cluster)
        .args(["get", "services", "--all-namespaces", "--watch", "--output-watch-events", "--output=json"])
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start kubectl")?;
    let output = kubectl.stdout.take().context("it is piped")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for event in Deserializer::from_reader(output).into_iter() {
            let Ok(event) = event else { break };
            if sender.send(event).is_err() {
                break;
            }
        }
        // It has ended, or says what nobody understands; dropping the sender tells.
        let _ = kubectl.kill();
        let _ = kubectl.wait();
    });
    Ok(receiver)
}

fn note(services: &mut Services, event: &Value) -> Result<()> {
    let (key, balanced) = parse(&event["object"])?;
    if event["type"] == "DELETED" {
        services.remove(&key);
    } else {
        services.insert(key, balanced);
    }
    Ok(())
}

fn parse(service: &Value) -> Result<(Key, Balanced)> {
    let (metadata, spec) = (&service["metadata"], &service["spec"]);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = |field| text(&metadata[field]).with_context(|| format!("a Service without a {field}: {service}"));
    let list = |value: &Value| value.as_array().into_iter().flatten().filter_map(text).collect::<Vec<_>>();
    let families = list(&spec["ipFamilies"]);
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    let balanced = Balanced {
        wanted: spec["type"] == "LoadBalancer"
            && spec["loadBalancerClass"].is_null()
            && metadata["deletionTimestamp"].is_null(),
        families: ["IPv4", "IPv6"].map(|family| families.iter().any(|own| own == family)),
        addresses: ingress.filter_map(|point| point["ip"].as_str()?.parse().ok()).collect(),
        finalizers: list(&metadata["finalizers"]),
        health: match spec["externalTrafficPolicy"] == "Local" {
            true => spec["healthCheckNodePort"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or_default(),
            false => NODE_HEALTH,
        },
        sticky: spec["sessionAffinity"] == "ClientIP",
    };
    Ok(((name("namespace")?, name("name")?), balanced))
}

/// What Services lack, or have too much, in the order in which it is to be mended.
fn changes(services: &Services) -> Vec<(Key, Change)> {
    let mut taken: BTreeSet<IpAddr> =
        services.values().filter(|service| service.wanted).flat_map(|service| service.addresses.clone()).collect();
    let mut changes = Vec::new();
    for (key, service) in services {
        let is_ours = |finalizer: &String| finalizer == FINALIZER;
        let mut finalizers = service.finalizers.clone();
        finalizers.retain(|finalizer| !is_ours(finalizer));
        let mut addresses = Vec::new();
        if service.wanted {
            finalizers.push(FINALIZER.to_owned());
            for (family, _) in service.families.iter().enumerate().filter(|(_, own)| **own) {
                let own = service.addresses.iter().copied().find(|address| usize::from(address.is_ipv6()) == family);
                let address = own.or_else(|| pool(family).find(|address| !taken.contains(address)));
                taken.extend(address);
                addresses.extend(address);
            }
        }
        // Kept from before there is something to clean up until after it was.
        let mend = [
            (service.wanted && !service.finalizers.iter().any(is_ours)).then(|| Change::Finalizers(finalizers.clone())),
            (addresses != service.addresses).then_some(Change::Addresses(addresses)),
            (!service.wanted && service.finalizers.iter().any(is_ours)).then_some(Change::Finalizers(finalizers)),
        ];
        changes.extend(mend.into_iter().flatten().map(|change| (key.clone(), change)));
    }
    changes
}

/// The addresses that Services get: of documentation (RFC 5737, RFC 3849), so nobody else's.
fn pool(family: usize) -> impl Iterator<Item = IpAddr> {
    (1..=254).map(move |number: u8| match family {
        0 => Ipv4Addr::new(203, 0, 113, number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 0x1b, 0, 0, 0, 0, number.into()).into(),
    })
}

fn apply(cluster: &Cluster, (namespace, name): &Key, change: &Change) -> Result<Value> {
    let (resource, patch) = match change {
        Change::Finalizers(finalizers) => ("", json!({"metadata": {"finalizers": finalizers}})),
        Change::Addresses(addresses) => {
            let ingress: Vec<_> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
            ("status", json!({"status": {"loadBalancer": {"ingress": ingress}}}))
        }
    };
    println!("{namespace}/{name}: {patch}");
    let output = kubectl(cluster)
        .args(["patch", "service", name, "--namespace", namespace, "--type=merge", "--output=json"])
        .args([format!("--subresource={resource}"), format!("--patch={patch}")])
        .output()?;
    // One that is gone meanwhile is met again when all begins anew.
    ensure!(output.status.success(), "can't change {namespace}/{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Whether a node says that it is well (HTTP status 200).
fn is_well(node: IpAddr, port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(node, port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}

/// Where each address belongs; one that no node may get is routed nowhere.
fn wanted_routes(
    services: &Services,
    nodes: &[(Ipv4Addr, Ipv6Addr)],
    is_well: &mut impl FnMut(IpAddr, u16) -> bool,
) -> Routes {
    let mut routes = Routes::new();
    for service in services.values().filter(|service| service.wanted) {
        for address in &service.addresses {
            let well = nodes.iter().filter(|(v4, _)| is_well((*v4).into(), service.health));
            let hops = well.map(|(v4, v6)| if address.is_ipv4() { IpAddr::from(*v4) } else { (*v6).into() });
            let hops: Vec<_> = hops.take(if service.sticky { 1 } else { usize::MAX }).collect();
            if !hops.is_empty() {
                routes.insert(*address, hops);
            }
        }
    }
    routes
}

/// From the routes that are there to those that are wanted.
fn route_commands(there: &Routes, wanted: &Routes) -> String {
    let mut commands = String::new();
    for address in there.keys().filter(|address| !wanted.contains_key(*address)) {
        let _ = writeln!(commands, "route del {address} proto {PROTOCOL}");
    }
    for (address, hops) in wanted.iter().filter(|(address, hops)| there.get(*address) != Some(*hops)) {
        let (v4, v6) = CLIENT;
        let source: IpAddr = if address.is_ipv4() { v4.into() } else { v6.into() };
        let _ = write!(commands, "route replace {address} proto {PROTOCOL} src {source}");
        for hop in hops {
            let _ = write!(commands, "{} via {hop}", if hops.len() > 1 { " nexthop" } else { "" });
        }
        commands.push('\n');
    }
    commands
}

/// What a process before this one has routed, wherever to.
fn known_routes() -> Result<Routes> {
    let mut routes = Routes::new();
    for family in ["-4", "-6"] {
        let output =
            Command::new("ip").args([family, "-json", "route", "show", "proto", &PROTOCOL.to_string()]).output()?;
        ensure!(output.status.success(), "ip route show: {}", String::from_utf8_lossy(&output.stderr));
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let addresses = list.as_array().into_iter().flatten().filter_map(|route| route["dst"].as_str()?.parse().ok());
        routes.extend(addresses.map(|address: IpAddr| (address, Vec::new())));
    }
    Ok(routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [(Ipv4Addr, Ipv6Addr); 2] = [
        (Ipv4Addr::new(172, 18, 0, 11), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11)),
        (Ipv4Addr::new(172, 18, 0, 12), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x12)),
    ];

    fn key(name: &str) -> Key {
        ("default".to_owned(), name.to_owned())
    }

    fn service(spec: &Value) -> Balanced {
        let metadata = json!({"namespace": "default", "name": "a"});
        parse(&json!({"metadata": metadata, "spec": spec})).unwrap().1
    }

    fn dual() -> Balanced {
        service(&json!({"type": "LoadBalancer", "ipFamilies": ["IPv6", "IPv4"], "externalTrafficPolicy": "Cluster"}))
    }

    #[test]
    fn a_service_is_kept_then_gets_addresses_and_loses_both_in_turn() {
        let mut services = Services::from([(key("a"), dual()), (key("b"), dual())]);
        let addresses: [Vec<IpAddr>; 2] = ["1", "2"].map(|end| {
            [format!("203.0.113.{end}"), format!("2001:db8:1b::{end}")].map(|text| text.parse().unwrap()).into()
        });
        let expected = ["a", "b"].into_iter().zip(addresses.clone()).flat_map(|(name, addresses)| {
            let finalizers = Change::Finalizers(vec![FINALIZER.to_owned()]);
            [(key(name), finalizers), (key(name), Change::Addresses(addresses))]
        });
        assert_eq!(changes(&services), expected.collect::<Vec<_>>());

        for (service, addresses) in services.values_mut().zip(addresses.clone()) {
            service.finalizers = vec!["other".to_owned(), FINALIZER.to_owned()];
            service.addresses = addresses;
        }
        assert_eq!(changes(&services), []);
        services.get_mut(&key("a")).unwrap().wanted = false;
        let cleared = [Change::Addresses(vec![]), Change::Finalizers(vec!["other".to_owned()])];
        assert_eq!(changes(&services), cleared.map(|change| (key("a"), change)));
        // Its addresses are free again.
        services.insert(key("c"), dual());
        assert!(changes(&services).contains(&(key("c"), Change::Addresses(addresses[0].clone()))));
    }

    #[test]
    fn other_services_and_those_of_another_balancer_are_left_alone() {
        let others = [
            json!({"type": "ClusterIP", "ipFamilies": ["IPv4"]}),
            json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "loadBalancerClass": "example.com/other"}),
        ];
        for spec in others {
            assert_eq!(changes(&Services::from([(key("a"), service(&spec))])), []);
        }
    }

    #[test]
    fn an_address_goes_to_the_nodes_that_are_well() {
        let spec = |policy: &str, affinity: &str| {
            let mut service = service(&json!({
                "type": "LoadBalancer", "ipFamilies": ["IPv4"], "externalTrafficPolicy": policy,
                "healthCheckNodePort": 30000, "sessionAffinity": affinity,
            }));
            service.addresses = pool(0).take(1).collect();
            Services::from([(key("a"), service)])
        };
        let hops = |services: &Services, well: &[(usize, u16)]| {
            let is_well = |node, port| well.iter().any(|(at, of)| node == IpAddr::from(NODES[*at].0) && port == *of);
            let routes = wanted_routes(services, &NODES, &mut { is_well });
            routes.into_values().next().unwrap_or_default()
        };
        let [one, two] = NODES.map(|(v4, _)| IpAddr::from(v4));
        let everywhere = [(0, NODE_HEALTH), (1, NODE_HEALTH)];
        assert_eq!(hops(&spec("Cluster", "None"), &everywhere), [one, two]);
        assert_eq!(hops(&spec("Cluster", "None"), &everywhere[1..]), [two]);
        assert_eq!(hops(&spec("Cluster", "ClientIP"), &everywhere), [one]);
        assert_eq!(hops(&spec("Local", "None"), &everywhere), Vec::<IpAddr>::new());
        assert_eq!(hops(&spec("Local", "None"), &[(1, 30000)]), [two]);
    }

    #[test]
    fn routes_are_changed_only_where_they_differ() {
        let [one, two] = NODES.map(|(v4, _)| IpAddr::from(v4));
        let addresses: Vec<_> = pool(0).take(4).collect();
        let there = Routes::from([(addresses[0], vec![one]), (addresses[1], vec![one]), (addresses[2], vec![one])]);
        let wanted =
            Routes::from([(addresses[0], vec![one]), (addresses[1], vec![one, two]), (addresses[3], vec![two])]);
        assert_eq!(
            route_commands(&there, &wanted),
            "route del 203.0.113.3 proto 150
route replace 203.0.113.2 proto 150 src 192.0.2.1 nexthop via 172.18.0.11 nexthop via 172.18.0.12
route replace 203.0.113.4 proto 150 src 192.0.2.1 via 172.18.0.12
"
        );
    }
}
