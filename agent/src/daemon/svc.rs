//! The device by which the node itself sends to services, kept there: made, handed to the loop for its program, and only then
//! set up.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::engine::Input;
use crate::repair::{Kind, Looked, Repair};
use crate::wiring::svc::{MOST, NAME};
use crate::wiring::{Netlink, NodeRoute, Sysctls, Via};

/// Keeps it.
#[derive(Debug)]
pub(super) struct Keeper {
    sysctls: Sysctls,
    /// Whether the program of this agent is attached to the device.
    attached: bool,
}

/// How it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// As it should be, or for the first time.
    Right,
    /// It had to be made, or set up, again.
    Repaired,
    /// It is not there, since Services are left to another proxy.
    Absent,
}

impl Keeper {
    pub(super) fn new(sysctls: Sysctls) -> Self {
        Self { sysctls, attached: false }
    }

    /// Makes it be gone: another proxy serves Services. An error says what stands in its way.
    pub(super) async fn leave(&mut self, netlink: &Netlink) -> Result<Found, String> {
        self.attached = false;
        match netlink.remove_svc().await {
            Ok(_) => Ok(Found::Absent),
            Err(error) => Err(format!("what the node sends to Services does not reach the other proxy: {error}")),
        }
    }

    /// Makes the device be as it should. An error says what can't be reached without it.
    pub(super) async fn look(
        &mut self,
        netlink: &Netlink,
        mtu: u32,
        inputs: &mpsc::Sender<Input>,
        looked: &mut Looked,
    ) -> Result<Found, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("kernel sockets and other processes that no socket hook sees can't reach Services: {error}")
        };
        let is_up = netlink.keep_svc(mtu).await.map_err(|error| failed(&error))?;
        let opened = self.sysctls.open(NAME);
        opened.errors.iter().for_each(|error| looked.lacks(format!("what the node sends to Services: {error}")));
        if self.attached && is_up {
            looked.repaired.extend(opened.changed.into_iter().map(|what| Repair { kind: Kind::Sysctl, what }));
            return Ok(Found::Right);
        }
        let was_there = std::mem::take(&mut self.attached);
        let (answer, attached) = oneshot::channel();
        let stopping = "the agent is stopping";
        inputs.send(Input::Services(answer)).await.map_err(|_| stopping)?;
        attached.await.map_err(|_| stopping)?.map_err(|error| failed(&error))?;
        self.attached = true;
        if !is_up {
            netlink.raise_svc().await.map_err(|error| failed(&error))?;
            info!(mtu, "the device for services is up");
        }
        Ok(if was_there { Found::Repaired } else { Found::Right })
    }
}

/// The routes to Services that are to be there: the wanted ones, or those there are where the device could not be looked at, which may be
/// in use all the same.
pub(super) fn routes(
    found: &Result<Found, String>,
    wanted: BTreeSet<NodeRoute>,
    there: &BTreeSet<NodeRoute>,
) -> BTreeSet<NodeRoute> {
    match found {
        Ok(Found::Right | Found::Repaired) => wanted,
        Ok(Found::Absent) => BTreeSet::new(),
        Err(_) => there.iter().filter(|route| matches!(route.via, Via::Services(_))).copied().collect(),
    }
}

/// What is said of addresses that have no route.
pub(super) fn left_out(count: usize) -> Option<String> {
    let text = || {
        format!(
            "{count} of the Services' addresses are not routed, since {MOST} are routed one by one: kernel sockets and \
             other processes that no socket hook sees can't reach them; set serviceRanges to the API server's \
             --service-cluster-ip-range"
        )
    };
    (count > 0).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s80_a_device_that_cannot_be_looked_at_costs_no_route() {
        let route = |to: &str, via| NodeRoute { destination: to.parse().unwrap(), via };
        let own = "172.18.0.1".parse().unwrap();
        let [old, new] = ["10.96.0.1/32", "10.96.0.2/32"].map(|to| route(to, Via::Services(own)));
        let there = BTreeSet::from([old, route("10.244.1.0/24", Via::Nobody)]);
        let routes = |found| routes(&found, BTreeSet::from([new]), &there);
        assert_eq!(routes(Ok(Found::Right)), BTreeSet::from([new]));
        assert_eq!(routes(Ok(Found::Repaired)), BTreeSet::from([new]));
        assert_eq!(routes(Err("busy".to_owned())), BTreeSet::from([old]));
        assert_eq!(routes(Ok(Found::Absent)), BTreeSet::new());
    }
}
