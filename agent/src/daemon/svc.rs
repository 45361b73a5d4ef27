//! The device by which the node itself sends to services, kept there: made, handed to the loop for its program, and only then
//! set up.

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use super::engine::Input;
use crate::wiring::svc::{MOST, NAME};
use crate::wiring::{Netlink, Sysctls};

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
    ) -> Result<Found, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("kernel sockets and other processes that no socket hook sees can't reach Services: {error}")
        };
        let is_up = netlink.keep_svc(mtu).await.map_err(|error| failed(&error))?;
        if self.attached && is_up {
            return Ok(Found::Right);
        }
        let was_there = std::mem::take(&mut self.attached);
        let (answer, attached) = oneshot::channel();
        let stopping = "the agent is stopping";
        inputs.send(Input::Services(answer)).await.map_err(|_| stopping)?;
        attached.await.map_err(|_| stopping)?.map_err(|error| failed(&error))?;
        self.attached = true;
        for error in self.sysctls.open(NAME) {
            debug!(%error, "can't change a setting of the device for services: the node's default applies");
        }
        if !is_up {
            netlink.raise_svc().await.map_err(|error| failed(&error))?;
            info!(mtu, "the device for services is up");
        }
        Ok(if was_there { Found::Repaired } else { Found::Right })
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
