//! The node's own network: which interfaces lead out of it, the tunnel, and the routes to the pods of other nodes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::engine::Input;
use super::overlay::Keeper;
use crate::compile::node;
use crate::network::Tunnel;
use crate::state::Shared;
use crate::wiring::{Netlink, Sysctls, Uplink, WiringError, desired, neighbours, watch};

/// How often interfaces and routes are looked at when nothing tells of a change.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps them as they should be.
pub(super) struct Wire {
    netlink: Netlink,
    /// The interfaces that were named on the command line.
    named: Vec<String>,
    sysctls: Sysctls,
    tunnel: Tunnel,
    keeper: Keeper,
}

impl Wire {
    pub(super) fn new(netlink: Netlink, named: Vec<String>, sysctls: Sysctls, tunnel: Tunnel, vxlan_port: u16) -> Self {
        let keeper = Keeper::new(tunnel, vxlan_port, sysctls.clone());
        Self { netlink, named, sysctls, tunnel, keeper }
    }

    /// Sets what the kernel needs to forward for pods. Devices and other programs come and go, so not only at start.
    fn forward(&self, uplinks: &[Uplink]) -> Option<String> {
        let mut errors = self.sysctls.prepare();
        errors.extend(uplinks.iter().flat_map(|uplink| self.sysctls.prepare_uplink(&uplink.name)));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| format!("the node may not forward for its pods: {}", texts.join("; ")))
    }

    /// The interfaces that lead out of the node.
    pub(super) async fn uplinks(&self, node_ips: &[IpAddr]) -> Result<Vec<Uplink>, WiringError> {
        let mut found = self.netlink.uplinks(node_ips).await?;
        if !self.named.is_empty() {
            found.retain(|uplink| self.named.contains(&uplink.name));
        }
        Ok(found)
    }

    /// Runs until the loop is gone.
    pub(super) async fn run(mut self, shared: Arc<Shared>, inputs: mpsc::Sender<Input>) -> Result<(), WiringError> {
        let mut changes = watch()?;
        let mut told = None;
        let mut addresses = None;
        // The uplinks at which settings were looked at last, and when to look even if they stay the same.
        let (mut settled, mut look_again) = (None, Instant::now());
        let mut uplinks = Vec::new();
        loop {
            let node_ips = shared.model().own_node().map(|node| node.internal_ips.clone()).unwrap_or_default();
            match self.uplinks(&node_ips).await {
                Ok(found) => uplinks = found,
                Err(error) => warn!(%error, "can't list the node's interfaces"),
            }
            match self.netlink.addresses().await {
                Ok(found) if addresses.as_ref() != Some(&found) => {
                    addresses = Some(found.clone());
                    if inputs.send(Input::Addresses(found)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) => warn!(%error, "can't list the node's addresses"),
            }
            if told.as_ref() != Some(&uplinks) {
                let names: Vec<_> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
                info!(uplinks = names.join(" "), "uplinks");
                if uplinks.is_empty() {
                    warn!("no uplink found: name one with --uplink");
                }
                told = Some(uplinks.clone());
                if inputs.send(Input::Uplinks(uplinks.clone())).await.is_err() {
                    return Ok(());
                }
            }
            // With many pods there are many devices to look at, so not at each that comes.
            if settled != told || Instant::now() >= look_again {
                shared.warn("sysctls", self.forward(told.as_deref().unwrap_or_default()));
                settled.clone_from(&told);
                look_again = Instant::now() + LOOK;
            }
            let wanted = {
                let model = shared.model();
                let network = node::network(&uplinks, model.own_node(), self.tunnel);
                model.synced().then(|| {
                    let tunnel_mtu = network.tunnel_mtu(model.node_name(), model.nodes());
                    (desired(model.node_name(), model.nodes(), &network), tunnel_mtu)
                })
            };
            if let Some((routes, tunnel_mtu)) = wanted {
                self.keeper.look(&self.netlink, tunnel_mtu, &inputs).await;
                match self.netlink.set_node_routes(&routes).await {
                    Ok(errors) => errors.iter().for_each(|error| warn!(%error, "can't add a route to a node's pods")),
                    Err(error) => warn!(%error, "can't update the routes to other nodes' pods"),
                }
                let hops = neighbours(&uplinks, &routes);
                match self.netlink.keep_neighbours(&hops).await {
                    // Kernels before 5.16 know no managed neighbours; all is well without, but for a first packet.
                    Ok(errors) => errors.iter().for_each(|error| debug!(%error, "can't keep a neighbour resolved")),
                    Err(error) => debug!(%error, "can't keep the neighbours of other nodes resolved"),
                }
                shared.note(|progress| progress.wired = true);
            }
            tokio::select! {
                _ = timeout(LOOK, changes.recv()) => {}
                () = shared.nodes_changed.notified() => {}
            }
        }
    }
}
