//! The first process of a lab: it is the fabric, the network between nodes, and the parent of all workers.
//!
//! Its network namespace holds a bridge for each network of nodes, and it routes between them and to the far client.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::plan::{CLIENT, FAR_CLIENT, PODS, Plan, bridge, router};
use crate::sysctls::{self, NO_DUPLICATES};
use crate::system::{self, hostname, ip, ip6, mount_kernel};

/// Makes the fabric, starts a worker for every part of the lab and waits for all of them.
pub fn init(id: &str) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let directory = system::directory(id);
    let plan: Plan = serde_json::from_slice(&std::fs::read(directory.join("plan.json"))?)?;
    std::fs::write(system::cgroup(id).join("outside/cgroup.procs"), "0").context("can't enter the lab's cgroup")?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("can't make namespaces")?;
    // What is mounted from here on is seen in the lab only.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount_kernel("proc", "/proc")?;
    hostname("fabric")?;
    make_fabric(&plan)?;

    start(&directory, id, &["fabric"])?;
    start(&directory, id, &[CLIENT.name])?;
    start(&directory, id, &[FAR_CLIENT.name])?;
    for node in &plan.nodes {
        start(&directory, id, &[&node.name()])?;
    }
    loop {
        // Whatever has lost its parent ends up here.
        match waitid(Id::All, WaitPidFlag::WEXITED) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("all workers have ended"),
        }
    }
}

fn make_fabric(plan: &Plan) -> Result<()> {
    sysctls::reset()?;
    sysctls::set(NO_DUPLICATES)?;
    sysctls::set(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    ip("link set lo up")?;
    // The clients are on the first.
    let subnets: BTreeSet<u8> = plan.nodes.iter().map(|node| node.subnet).chain([0]).collect();
    for subnet in subnets {
        let (mtu, bridge, [v4, v6]) = (plan.mtu, bridge(subnet), router(subnet));
        ip(&format!(
            "link add {bridge} mtu {mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             addr add {v4}/24 dev {bridge}
             addr add {v6}/64 dev {bridge} nodad
             link set {bridge} up"
        ))?;
    }
    if plan.checks_sources {
        let [v4, v6] = PODS;
        ip(&format!("rule add from {v4} blackhole"))?;
        ip6(&format!("rule add from {v6} blackhole"))?;
    }
    Ok(())
}

/// Starts a worker; it says by itself on standard output when it is ready.
pub(crate) fn start(directory: &Path, id: &str, arguments: &[&str]) -> Result<()> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(directory.join("lab.log"))?;
    Command::new(std::env::current_exe()?)
        .arg("worker")
        .arg(id)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .map(|_| ())
        .context("can't start a worker")
}
