//! What a worker does before it works: make the namespaces of its node or client and connect them to the fabric.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::Ipv6Addr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use crate::hide;
use crate::init::start;
use crate::plan::{CLIENT, ClientPlan, FAR_CLIENT, NodePlan, Plan, bridge, router};
use crate::sysctls::{self, NO_DUPLICATES};
use crate::system::{self, hostname, ip, mount_kernel};
use crate::worker;

/// Added to a node's name: its worker that no hook of the node sees.
pub(crate) const OUTSIDE: &str = "-outside";

/// Of a route to an address of the machine itself (include/uapi/linux/ipv6_route.h).
const RTF_LOCAL: u32 = 0x8000_0000;

/// A worker's whole life. It says on standard output that it is ready, or why it is not.
pub fn worker(id: &str, name: &str) -> Result<()> {
    match prepare(id, name) {
        Ok(listener) => {
            println!("ready {name}");
            worker::work(&listener)
        }
        Err(error) => {
            println!("failed {name}: {}", format!("{error:#}").replace('\n', " "));
            Err(error)
        }
    }
}

fn prepare(id: &str, name: &str) -> Result<UnixListener> {
    let directory = system::directory(id);
    let plan: Plan = serde_json::from_slice(&fs::read(directory.join("plan.json"))?)?;
    match name {
        // Both are where they belong by birth.
        "fabric" => {}
        name if name.ends_with(OUTSIDE) => {}
        "client" => make_client(&CLIENT, plan.mtu)?,
        "far-client" => make_client(&FAR_CLIENT, plan.mtu)?,
        name => match plan.nodes.iter().find(|node| node.name() == name) {
            Some(node) => make_node(id, &directory, node, plan.mtu)?,
            None => bail!("this lab has no {name}"),
        },
    }
    Ok(UnixListener::bind(directory.join(format!("{name}.sock")))?)
}

/// A client is a network namespace, no more.
fn make_client(client: &ClientPlan, mtu: u32) -> Result<()> {
    let fabric = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS).context("can't make a client's namespaces")?;
    hostname(client.name)?;
    let addresses = client.addresses.map(|(ip, length)| (ip.to_owned(), length));
    connect(client.name, &addresses, mtu, &fabric, client.router.ok_or(0))
}

fn make_node(id: &str, directory: &Path, node: &NodePlan, mtu: u32) -> Result<()> {
    // Opened while the machine's cgroups are still in sight.
    let mut cgroup = OpenOptions::new()
        .write(true)
        .open(system::cgroup(id).join(node.name()).join("cgroup.procs"))
        .context("the guardian makes the node's cgroup")?;
    let fabric = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
        .context("can't make a node's namespaces")?;
    hostname(&node.name())?;
    hide::machine()?;
    // sysfs shows the network of whoever mounts it, so it comes after the network namespace.
    mount_kernel("sysfs", "/sys")?;
    mount_kernel("bpf", "/sys/fs/bpf")?;
    connect(&node.name(), &[(node.v4().to_string(), 24), (node.v6().to_string(), 64)], mtu, &fabric, Err(node.subnet))?;
    start(directory, id, &[&format!("{}{OUTSIDE}", node.name())])?;
    cgroup.write_all(b"0").context("can't enter the node's cgroup")?;
    unshare(CloneFlags::CLONE_NEWCGROUP)?;
    // The node's own cgroup is the root of this mount, as it would be of a machine with v2 alone.
    mount_kernel("cgroup2", "/sys/fs/cgroup")
}

/// Connects this network namespace to the fabric by `eth0`: to the router directly, which has these addresses there, or else
/// to the bridge of a subnet.
fn connect(
    name: &str,
    addresses: &[(String, u8); 2],
    mtu: u32,
    fabric: &File,
    link: Result<[&'static str; 2], u8>,
) -> Result<()> {
    sysctls::reset()?;
    sysctls::set(NO_DUPLICATES)?;
    let [(v4, v4_length), (v6, v6_length)] = addresses;
    let [gateway4, gateway6] =
        link.map_or_else(|subnet| router(subnet).map(|ip| ip.to_string()), |own| own.map(str::to_owned));
    // A device whose carrier came sends nothing, and has no IPv6, until the kernel's link watch has run some time later. To
    // ask for the device is to have that done (`rtnl_getlink` in net/core/rtnetlink.c), hence each `link show`.
    // The lab's first process is process 1, and its network namespace is the fabric.
    ip(&format!(
        "link add eth0 mtu {mtu} type veth peer name {name} mtu {mtu} netns 1
         link set eth0 up"
    ))?;
    let far_end = match link {
        Err(subnet) => format!(
            "link set {name} master {bridge} up
             link show dev {name}
             link show dev {bridge}",
            bridge = bridge(subnet)
        ),
        Ok([router4, router6]) => format!(
            "addr add {router4}/{v4_length} dev {name}
             addr add {router6}/{v6_length} dev {name} nodad
             link set {name} up
             link show dev {name}"
        ),
    };
    let fabric = fabric.try_clone()?;
    thread::spawn(move || -> Result<()> {
        setns(fabric, CloneFlags::CLONE_NEWNET)?;
        ip(&far_end)
    })
    .join()
    .expect("the thread returns its errors")?;
    ip(&format!(
        "link set lo up
         link show dev eth0
         addr add {v4}/{v4_length} dev eth0
         addr add {v6}/{v6_length} dev eth0 nodad
         route add default via {gateway4}
         route add default via {gateway6}"
    ))?;
    wait_until_local(v6)?;
    wait_for_link_local()
}

/// Waits until eth0 has a link-local address that may be used. Without one the kernel sends no neighbour solicitation, and
/// tries again a second later (`ndisc_send_ns` in net/ipv6/ndisc.c).
fn wait_for_link_local() -> Result<()> {
    const LINK: &str = "20";
    const TENTATIVE: u32 = 0x40;
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_usable = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, scope, flags, name] = fields[..] else { return false };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(TENTATIVE);
        name == "eth0" && scope == LINK && flags & TENTATIVE == 0
    };
    while !fs::read_to_string("/proc/thread-self/net/if_inet6")?.lines().any(is_usable) {
        ensure!(Instant::now() < deadline, "the kernel gives eth0 no link-local address");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until this namespace takes packets to an IPv6 address: the kernel makes the address's local route, after it joined
/// the group of its solicitations, some time after it took the address (`addrconf_dad_start` in net/ipv6/addrconf.c).
fn wait_until_local(ip: &str) -> Result<()> {
    let digits: String = ip.parse::<Ipv6Addr>()?.octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let is_local = |line: &str| {
        let flags = line.split_whitespace().nth(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        line.starts_with(&format!("{digits} 80 ")) && flags.is_some_and(|flags| flags & RTF_LOCAL != 0)
    };
    while !fs::read_to_string("/proc/thread-self/net/ipv6_route")?.lines().any(is_local) {
        ensure!(Instant::now() < deadline, "the kernel does not make {ip} local");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
