//! How pods get their network: what the CNI plugin is told, and routes without any plugin.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use crate::node::Node;
use crate::vantage::{Probes, Vantage};

/// The network configuration on the plugin's standard input.
pub(crate) fn configuration() -> Value {
    json!({"cniVersion": "1.1.0", "name": "fairlead", "type": "fairlead-cni"})
}

/// The environment of a call of the plugin.
pub(crate) fn environment(command: &str, container: &str, netns: &str, key: &str) -> Vec<(&'static str, String)> {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    vec![
        ("CNI_COMMAND", command.to_owned()),
        ("CNI_CONTAINERID", container.to_owned()),
        ("CNI_NETNS", format!("/run/netns/{netns}")),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
        (
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
                 K8S_POD_INFRA_CONTAINER_ID={container}"
            ),
        ),
    ]
}

/// Connects a pod by routes, and gives its addresses.
pub(crate) fn plain(node: &Node, pod: &Vantage, netns: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let slot = node.pods.fetch_add(1, Ordering::Relaxed) + 10;
    ensure!(slot < 250, "{} is full", node.name());
    let [(IpAddr::V4(net4), _), (IpAddr::V6(net6), _)] = node.plan.pod_cidrs() else { bail!("one network a family") };
    let (v4, v6) = (Ipv4Addr::from(u32::from(net4) + slot), Ipv6Addr::from(u128::from(net6) + u128::from(slot)));
    let (host_mac, pod_mac) = (format!("02:00:00:00:01:{slot:02x}"), format!("02:00:00:00:02:{slot:02x}"));
    batch(
        node.vantage(),
        &format!(
            "link add pod{slot} address {host_mac} type veth peer name eth0 address {pod_mac} netns {netns}
             addr add 169.254.1.1/32 dev pod{slot}
             link set pod{slot} up
             addr add fe80::1/64 dev pod{slot} nodad
             route add {v4}/32 dev pod{slot}
             route add {v6}/128 dev pod{slot}
             neigh add {v4} lladdr {pod_mac} dev pod{slot} nud permanent
             neigh add {v6} lladdr {pod_mac} dev pod{slot} nud permanent"
        ),
    )?;
    batch(
        pod,
        &format!(
            "addr add {v4}/32 dev eth0
             addr add {v6}/128 dev eth0 nodad
             link set eth0 up
             neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent
             neigh add fe80::1 lladdr {host_mac} dev eth0 nud permanent
             route add default via 169.254.1.1 dev eth0 onlink
             route add default via fe80::1 dev eth0
             link show dev eth0"
        ),
    )?;
    // Both ends have their carrier now: see `site::connect`.
    batch(node.vantage(), &format!("link show dev pod{slot}"))?;
    let local = ["ip", "-6", "route", "show", "table", "local", &v6.to_string()];
    // The kernel makes it a little later: see `site::wait_until_local`.
    while pod.run(&local).stdout.is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok((v4, v6))
}

/// Connects a pod to its node's bridge, which is made for the first, and gives its addresses.
pub(crate) fn bridged(node: &Node, pod: &Vantage, netns: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let slot = node.pods.fetch_add(1, Ordering::Relaxed) + 10;
    ensure!(slot < 250, "{} is full", node.name());
    let [(IpAddr::V4(net4), length4), (IpAddr::V6(net6), length6)] = node.plan.pod_cidrs() else {
        bail!("one network a family")
    };
    let at = |n: u32| (Ipv4Addr::from(u32::from(net4) + n), Ipv6Addr::from(u128::from(net6) + u128::from(n)));
    let ((v4, v6), (gateway4, gateway6)) = (at(slot), at(1));
    if slot == 10 {
        // An address of its own, as the bridge plugin sees to: else it is the lowest of its ports', and changes with them under pods
        // that know the one before.
        let [a, b, c, d] = gateway4.octets();
        batch(
            node.vantage(),
            &format!(
                "link add cni0 address 0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x} type bridge
                 addr add {gateway4}/{length4} dev cni0
                 link set cni0 up
                 addr add {gateway6}/{length6} dev cni0 nodad"
            ),
        )?;
    }
    batch(
        node.vantage(),
        &format!(
            "link add veth{slot} type veth peer name eth0 netns {netns}
             link set veth{slot} master cni0 up"
        ),
    )?;
    batch(
        pod,
        &format!(
            "addr add {v4}/{length4} dev eth0
             addr add {v6}/{length6} dev eth0 nodad
             link set eth0 up
             route add default via {gateway4}
             route add default via {gateway6}
             link show dev eth0"
        ),
    )?;
    batch(node.vantage(), &format!("link show dev veth{slot}\nlink show dev cni0"))?;
    let local = ["ip", "-6", "route", "show", "table", "local", &v6.to_string()];
    while pod.run(&local).stdout.is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    Ok((v4, v6))
}

fn batch(place: &Vantage, commands: &str) -> Result<()> {
    let ended = place.run_with(&["ip", "-batch", "-"], &[], commands);
    ensure!(ended.ok(), "{commands}\nip: {}", ended.stderr);
    Ok(())
}
