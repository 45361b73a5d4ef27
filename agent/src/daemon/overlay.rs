//! The tunnel's device, kept there: made, handed to the loop for its programs, and only then set up.

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info};

use super::engine::Input;
use crate::network::{Tunnel, TunnelSettings};
use crate::repair::{Kind, Looked, Repair};
use crate::wiring::overlay::{NAME, Overlay};
use crate::wiring::{Netlink, Sysctls};

/// Keeps it.
#[derive(Debug)]
pub(super) struct Keeper {
    tunnel: TunnelSettings,
    sysctls: Sysctls,
    /// Whether the programs of this agent are attached to the device.
    attached: bool,
}

impl Keeper {
    pub(super) fn new(tunnel: TunnelSettings, sysctls: Sysctls) -> Self {
        Self { tunnel, sysctls, attached: false }
    }

    /// Makes the device be as it should.
    pub(super) async fn look(
        &mut self,
        netlink: &Netlink,
        mtu: u32,
        inputs: &mpsc::Sender<Input>,
        looked: &mut Looked,
    ) {
        match self.keep(netlink, mtu, inputs).await {
            Ok(mended) => {
                looked.repaired.extend(mended.into_iter().map(|what| Repair { kind: Kind::Tunnel, what }));
            }
            Err(error) => {
                looked.lacks(format!("the tunnel to other nodes: {error}"));
            }
        }
    }

    async fn keep(&mut self, netlink: &Netlink, mtu: u32, inputs: &mpsc::Sender<Input>) -> Result<Vec<String>, String> {
        if self.tunnel.when == Tunnel::Never {
            if netlink.remove_overlay().await.map_err(|error| error.to_string())? {
                info!("removed the tunnel device");
            }
            return Ok(Vec::new());
        }
        let (found, mut mended) =
            netlink.keep_overlay(self.tunnel.port, mtu).await.map_err(|error| error.to_string())?;
        match self.sysctls.loosen(NAME) {
            Ok(true) => mended.push(format!("the setting net.ipv4.conf.{NAME}.rp_filter = 2")),
            Ok(false) => {}
            Err(error) => debug!(%error, "can't loosen rp_filter on the tunnel device: the node's default applies"),
        }
        if self.attached && found == Overlay::Up {
            return Ok(mended);
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
        // What an agent finds that begins was nobody's to keep, and what a new device gets nobody has changed.
        Ok(if was_there { vec![format!("the device {NAME}")] } else { Vec::new() })
    }
}
