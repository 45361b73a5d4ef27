//! ADD

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;
use crate::conf::NetConf;
use crate::netlink::Netlink;
use crate::protocol::{Attachment, PodRef, Request, Reservation, Wanted};
use crate::result::Made;
use crate::wire::{self, Plan, PodSide};
use crate::{Error, queue};

/// How long an ADD waits for the interface of a DEL before it, which the agent removes after its answer, and how often it looks.
const DELETION_PATIENCE: Duration = Duration::from_secs(3);
const DELETION_POLL: Duration = Duration::from_millis(2);

/// Wires a pod: reserve, create the links down, have programs attached and policy in force, bring the links up. An
/// error leaves nothing behind.
pub(crate) fn add(
    conf: &NetConf,
    attachment: &Attachment,
    netns: &str,
    pod: PodRef,
    allow_own_netns: bool,
) -> Result<Value, Error> {
    let mut pod_side = PodSide::open(netns, allow_own_netns)?;
    if exists(conf, attachment, &mut pod_side)? {
        let reason = format!("{} already exists in {netns}; delete it first", attachment.ifname);
        return Err(Error::Env { variable: "CNI_IFNAME", reason });
    }
    let wanted = conf.wanted()?;
    if wanted.mac == Some(attachment.host_mac()) {
        let reason = format!("{} is the MAC address of the host side; choose another", attachment.host_mac());
        return Err(Error::Config { key: "runtimeConfig.mac", reason });
    }
    let taken = pod_side.taken()?;
    let mut agent = Client::connect_patiently(&conf.socket)?;
    let reservation = agent.reservation(&Request::Reserve {
        attachment: attachment.clone(),
        pod,
        netns: netns.to_owned(),
        netns_inode: pod_side.inode(),
        network: conf.name.clone(),
        wanted: wanted.clone(),
    })?;
    let plan = Plan { reservation: &reservation, ifname: &attachment.ifname, network: &conf.name, taken };
    match served(&reservation, &wanted).and_then(|()| wire(&mut agent, &mut pod_side, &plan, attachment)) {
        Ok(()) => {
            let made = Made { reservation: &reservation, ifname: &attachment.ifname, netns, taken };
            Ok(made.to_result(conf.version, conf.prev_result.as_ref()))
        }
        Err(error) => {
            // The agent removes the link with the reservation. When it is away it took the reservation back with the
            // connection, and the runtime's DEL repeats all of it.
            if agent.release(attachment).is_err() {
                let _best_effort = Netlink::open().and_then(|mut host| wire::remove(&mut host, &reservation.host_link));
            }
            Err(error)
        }
    }
}

/// Whether the interface is there. One that is on its way out, after a DEL of the same attachment, is waited for.
fn exists(conf: &NetConf, attachment: &Attachment, pod_side: &mut PodSide) -> Result<bool, Error> {
    let directory = queue::directory(&conf.socket);
    let end = Instant::now() + DELETION_PATIENCE;
    loop {
        let leaves = queue::holds(&directory, attachment) && Instant::now() < end;
        if pod_side.netlink.link(&attachment.ifname)?.is_none() {
            return Ok(false);
        }
        if !leaves {
            return Ok(true);
        }
        std::thread::sleep(DELETION_POLL);
    }
}

/// Fails where something that was asked for was not given: the agent is of a release that does not know of it.
fn served(reservation: &Reservation, wanted: &Wanted) -> Result<(), Error> {
    let ips = wanted.ips.iter().all(|ip| reservation.addresses.iter().any(|address| address.ip == *ip));
    if ips && wanted.mac.is_none_or(|mac| mac == reservation.pod_mac) {
        return Ok(());
    }
    Err(Error::UnsupportedField {
        key: "runtimeConfig",
        value: format!("{wanted:?}"),
        remedy: "the agent is older than this plugin; upgrade it",
    })
}

fn wire(agent: &mut Client, pod_side: &mut PodSide, plan: &Plan<'_>, attachment: &Attachment) -> Result<(), Error> {
    let mut host = Netlink::open()?;
    wire::create(&mut host, pod_side, plan)?;
    agent.ask(&Request::Attach { attachment: attachment.clone() })?;
    wire::bring_up(&mut host, pod_side, plan)
}
