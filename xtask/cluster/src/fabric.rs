//! The network between nodes: a bridge for each subnet and the router between them. The control plane is here, and clients
//! from outside of the cluster.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::addresses::{POD_CIDRS, node, router, subnet_of};
use crate::place::Spec;
use crate::system::{ip, ip6, mount_kernel, private_mounts, sysctl};

/// Routes to pods hold for what comes from the fabric itself: the API server may call a pod, but as a router the fabric
/// knows no more of pods than one between machines would.
const TO_PODS: u16 = 100;

/// Whom load balancers' addresses are used by: somebody outside, whom no node shares a network with (RFC 5737, RFC 3849).
pub(crate) const CLIENT: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Addresses are good at once: nobody else has them.
const NO_DUPLICATES: &[(&str, &str)] =
    &[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/default/accept_ra", "0")];

/// Makes the network, in the fabric's own namespaces.
pub(crate) fn make(spec: &Spec) -> Result<()> {
    private_mounts()?;
    mount_kernel("proc", "/proc")?;
    mount_kernel("sysfs", "/sys")?;
    sysctl(NO_DUPLICATES)?;
    sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    // Connections of one client go to several nodes.
    sysctl(&[("ipv4/fib_multipath_hash_policy", "1"), ("ipv6/fib_multipath_hash_policy", "1")])?;
    let ([pods4, pods6], (client4, client6)) = (POD_CIDRS, CLIENT);
    let mut commands = format!(
        "link set lo up
         addr add {client4}/32 dev lo
         addr add {client6}/128 dev lo
         rule add to {pods4} iif lo lookup {TO_PODS} pref 100\n"
    );
    for subnet in 0..spec.subnets {
        let (v4, v6) = router(subnet);
        // Not more than the fabric's devices have: a bridge takes the least of its ports'.
        write!(
            commands,
            "link add br{subnet} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             addr add {v4}/24 dev br{subnet}
             addr add {v6}/64 dev br{subnet} nodad
             link set br{subnet} up\n",
            mtu = spec.mtu
        )?;
    }
    ip(None, &commands)?;
    ip6(&format!("rule add to {pods6} iif lo lookup {TO_PODS} pref 100"))
}

/// Connects this network namespace, a new node's, to the fabric of another process.
pub(crate) fn connect(spec: &Spec, number: u8, name: &str, fabric: i32) -> Result<()> {
    let subnet = subnet_of(number, spec.subnets);
    let ((v4, v6), (router4, router6)) = (node(number, spec.subnets), router(subnet));
    let (mtu, own) = (spec.mtu, std::process::id());
    sysctl(NO_DUPLICATES)?;
    // The device of a node that is made again goes away by itself, but a moment later.
    let _ = ip(Some(fabric), &format!("link del {name}"));
    ip(
        Some(fabric),
        &format!(
            "link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {own}
             link set {name} master br{subnet} up"
        ),
    )?;
    ip(
        None,
        &format!(
            "link set lo up
             addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad
             link set eth0 up
             route add default via {router4}
             route add default via {router6}"
        ),
    )
}

/// Has the fabric's own processes reach a node's pods.
pub(crate) fn route_to_pods(spec: &Spec, number: u8, pod_cidrs: &[String], fabric: i32) -> Result<()> {
    let (v4, v6) = node(number, spec.subnets);
    let mut commands = String::new();
    for cidr in pod_cidrs {
        let via = if cidr.contains(':') { v6.to_string() } else { v4.to_string() };
        writeln!(commands, "route replace {cidr} via {via} table {TO_PODS}")?;
    }
    ip(Some(fabric), &commands)
}
