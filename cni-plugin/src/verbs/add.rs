//! ADD

use serde_json::Value;

use crate::Error;
use crate::client::Client;
use crate::conf::NetConf;
use crate::netlink::Netlink;
use crate::protocol::{Attachment, PodRef, Request, Reservation};
use crate::result::Made;
use crate::wire::{self, PodSide};

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
    if pod_side.netlink.link(&attachment.ifname)?.is_some() {
        let reason = format!("{} already exists in {netns}; delete it first", attachment.ifname);
        return Err(Error::Env { variable: "CNI_IFNAME", reason });
    }
    let mut agent = Client::connect_patiently(&conf.socket)?;
    let reservation = agent.reservation(&Request::Reserve {
        attachment: attachment.clone(),
        pod,
        netns: netns.to_owned(),
        netns_inode: pod_side.inode(),
    })?;
    match wire(&mut agent, &mut pod_side, &reservation, attachment) {
        Ok(()) => {
            let made = Made { reservation: &reservation, ifname: &attachment.ifname, netns };
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

fn wire(
    agent: &mut Client,
    pod_side: &mut PodSide,
    reservation: &Reservation,
    attachment: &Attachment,
) -> Result<(), Error> {
    let mut host = Netlink::open()?;
    wire::create(&mut host, pod_side, reservation, &attachment.ifname)?;
    agent.ask(&Request::Attach { attachment: attachment.clone() })?;
    wire::bring_up(&mut host, pod_side, reservation, &attachment.ifname)
}
