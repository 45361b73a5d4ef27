//! The tunnel's device, kept there: made, handed to the loop for its programs, and only then set up.

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::engine::Input;
use crate::network::{Tunnel, TunnelSettings};
use crate::wiring::overlay::{NAME, Overlay};
use crate::wiring::{Netlink, Sysctls};

/// Keeps it.
#[derive(Debug)]
pub(super) struct Keeper {
    tunnel: TunnelSettings,
    sysctls: Sysctls,
    /// Whether the programs of this agent are attached to the device.
    attached: bool,
    /// What went wrong last, so that it is said once.
    trouble: Option<String>,
}

impl Keeper {
    pub(super) fn new(tunnel: TunnelSettings, sysctls: Sysctls) -> Self {
        Self { tunnel, sysctls, attached: false, trouble: None }
    }

    /// Makes the device be as it should. Says whether it had to be made again.
    pub(super) async fn look(&mut self, netlink: &Netlink, mtu: u32, inputs: &mpsc::Sender<Input>) -> bool {
        let (repaired, trouble) = match self.keep(netlink, mtu, inputs).await {
            Ok(repaired) => (repaired, None),
            Err(error) => (false, Some(error)),
        };
        if trouble != self.trouble {
            if let Some(error) = &trouble {
                warn!(error, "the tunnel to other nodes is down");
            }
            self.trouble = trouble;
        }
        repaired
    }

    async fn keep(&mut self, netlink: &Netlink, mtu: u32, inputs: &mpsc::Sender<Input>) -> Result<bool, String> {
        if self.tunnel.when == Tunnel::Never {
            if netlink.remove_overlay().await.map_err(|error| error.to_string())? {
                info!("removed the tunnel device");
            }
            return Ok(false);
        }
        let found = netlink.keep_overlay(self.tunnel.port, mtu).await.map_err(|error| error.to_string())?;
        if self.attached && found == Overlay::Up {
            return Ok(false);
        }
        let was_there = std::mem::take(&mut self.attached);
        let (answer, attached) = oneshot::channel();
        let stopping = "the agent is stopping";
        inputs.send(Input::Overlay(answer)).await.map_err(|_| stopping)?;
        attached.await.map_err(|_| stopping)?.map_err(|error| error.to_string())?;
        self.attached = true;
        if found != Overlay::Up {
            netlink.raise_overlay().await.map_err(|error| error.to_string())?;
            info!(port = self.tunnel.port, mtu, "the tunnel device is up");
        }
        if let Err(error) = self.sysctls.loosen(NAME) {
            debug!(%error, "can't loosen rp_filter on the tunnel device: the node's default applies");
        }
        Ok(was_there)
    }
}
