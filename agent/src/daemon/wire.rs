//! The node's own network: which interfaces lead out of it, the tunnel, and the routes to the pods of other nodes; and the
//! loop that looks after all that was made, at each change that the kernel tells and every ten seconds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::engine::Input;
use super::mounted;
use super::overlay::Keeper;
use super::repair::Caretaker;
use super::svc::{self, Found};
use crate::bpf::{PinDir, Sentry, watch_mounts};
use crate::compile::node::{self, Addresses};
use crate::network::TunnelSettings;
use crate::parts::Parts;
use crate::repair::{Kind, Looked, Repair};
use crate::state::{Shared, Subject};
use crate::wiring::{
    self, Change, Choice, Framing, Kept, Lingering, Netlink, NodeRoute, Sysctls, Uplink, WiringError, desired,
    neighbours, watch,
};

/// How often everything is looked at when nothing tells of a change.
const LOOK: Duration = Duration::from_secs(10);

/// How soon again when that failed.
const AGAIN: Duration = Duration::from_secs(3);

/// After a look, how long changes are collected before the next: this many times what it took, within bounds, so that a node
/// where links come and go all the time does not spend its time with looking.
const REST: u32 = 5;
const LEAST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_millis(500);

/// How long changes are collected after a look that took so long. One that takes long, on a node with many routes, has a third of
/// the time at most.
fn rest(took: Duration) -> Duration {
    (took * REST).clamp(LEAST_REST, LONGEST_REST.max(took * 2))
}

/// Keeps them as they should be.
pub(super) struct Wire {
    netlink: Netlink,
    /// What the settings say of uplinks.
    choice: Choice,
    sysctls: Sysctls,
    tunnel: TunnelSettings,
    parts: Parts,
    keeper: Keeper,
    services: svc::Keeper,
    /// Addresses that Services have left.
    left: wiring::svc::Left,
    /// Where the settings say that services have their addresses.
    service_ranges: Vec<IpNetwork>,
    caretaker: Caretaker,
    pins: PinDir,
    /// Since when the node has another bpf file system than that with the pins.
    elsewhere: Option<Instant>,
    /// What the kernel was last made to have. What is not so later somebody else has undone.
    uplinks: Option<Vec<Uplink>>,
    /// Whether the Node was known when they were found. Until then one that only has the Node's address counts for less.
    is_node_known: bool,
    lingering: Lingering,
    addresses: Option<Addresses>,
    settled: Option<Vec<Uplink>>,
    routes: Option<BTreeSet<NodeRoute>>,
    hops: Option<BTreeSet<(u32, IpAddr)>>,
}

/// The names of those by which other nodes are reached.
fn primary(uplinks: &[Uplink]) -> Vec<&str> {
    uplinks.iter().filter(|uplink| uplink.is_primary).map(|uplink| uplink.name.as_str()).collect()
}

/// Reads what the kernel takes for the node's.
pub(super) async fn addresses(netlink: &Netlink) -> Result<Addresses, WiringError> {
    Ok(Addresses { own: netlink.addresses().await?, broadcasts: netlink.broadcasts().await? })
}

/// What is said of those whose packets the programs do not read, if there are any.
fn unread(uplinks: &[Uplink]) -> Option<String> {
    let unread = uplinks.iter().filter(|uplink| uplink.framing == Framing::Other);
    let names: Vec<_> = unread.map(|uplink| uplink.name.as_str()).collect();
    let text = || {
        format!(
            "packets of {} have headers that Fairlead does not read: what comes in there meets no Service, and what pods send \
             there keeps their addresses; if that is all right, add the interface to excludeUplinks",
            names.join(", ")
        )
    };
    (!names.is_empty()).then(text)
}

/// Whether the loop goes on.
type Running = Result<(), Stopped>;

/// The other end of the loop is gone.
struct Stopped;

impl Wire {
    /// `socket` is the agent's own.
    pub(super) fn new(
        netlink: Netlink,
        choice: Choice,
        sysctls: Sysctls,
        (tunnel, parts, service_ranges): (TunnelSettings, Parts, Vec<IpNetwork>),
        socket: &Path,
        (pins, sentry): (PinDir, Sentry),
    ) -> Self {
        let keeper = Keeper::new(tunnel, sysctls.clone());
        let caretaker = Caretaker::new(netlink.clone(), sysctls.clone(), socket, sentry);
        let services = sysctls.clone();
        Self {
            netlink,
            choice,
            sysctls,
            tunnel,
            parts,
            keeper,
            services: svc::Keeper::new(services),
            left: wiring::svc::Left::default(),
            service_ranges,
            caretaker,
            pins,
            elsewhere: None,
            uplinks: None,
            is_node_known: false,
            lingering: Lingering::default(),
            addresses: None,
            settled: None,
            routes: None,
            hops: None,
        }
    }

    /// The interfaces that lead out of the node.
    pub(super) async fn uplinks(&self, node_ips: &[IpAddr]) -> Result<Vec<Uplink>, WiringError> {
        Ok(self.served(self.choice.of(self.netlink.uplinks(node_ips).await?)))
    }

    /// Where another network connects pods, what does not lead to other nodes is that network's: bridges, and the pods' own links.
    fn served(&self, mut uplinks: Vec<Uplink>) -> Vec<Uplink> {
        uplinks.retain(|uplink| uplink.is_primary || self.parts.wires());
        uplinks
    }

    /// Runs until the loop is gone.
    pub(super) async fn run(mut self, shared: Arc<Shared>, inputs: mpsc::Sender<Input>) -> Result<(), WiringError> {
        let mut changes = watch(self.caretaker.pods_changed())?;
        watch_mounts(self.pins.clone(), changes.programs_changed());
        let (mut next, mut programs_next) = (Instant::now(), Instant::now());
        loop {
            let begun = Instant::now();
            if self.caretaker.is_succeeded() {
                debug!("another agent has taken over: no longer repairing anything");
                sleep_until(begun + LOOK).await;
                continue;
            }
            if begun >= next {
                next = begun + LOOK;
            }
            self.caretaker.look_at_pods(&shared).await;
            let Ok(()) = self.look_at_node(&shared, &inputs).await else { return Ok(()) };
            // One look at a time; what is told of while one is under way may have come too late for it.
            if Instant::now() >= programs_next && !self.caretaker.looks_at_programs() {
                let uplinks = self.uplinks.as_deref().unwrap_or_default();
                let is_asked = self.caretaker.look_at_programs(uplinks, &inputs, &shared).await;
                programs_next = Instant::now() + if is_asked { LOOK } else { AGAIN };
            }
            let rested = Instant::now() + rest(begun.elapsed());
            let due = if self.caretaker.looks_at_programs() { next } else { next.min(programs_next) };
            tokio::select! {
                () = sleep_until(due) => {}
                Some(change) = async { sleep_until(rested).await; changes.next().await } => {
                    if change == Change::Programs {
                        programs_next = Instant::now();
                    }
                }
                () = self.caretaker.programs(&shared) => {}
                () = shared.look.notified() => {}
            }
        }
    }

    /// Warns where the next agent's container would be given another bpf file system than this one has: nobody can put that right
    /// while this one runs, which alone has the pins.
    fn look_at_bpffs(&mut self, shared: &Shared) {
        let is_elsewhere = mounted::is_elsewhere(self.pins.device(), self.pins.kept().and_then(|kept| kept.holds()));
        self.elsewhere = is_elsewhere.then(|| self.elsewhere.unwrap_or_else(Instant::now));
        let is_lasting = self.elsewhere.is_some_and(|since| since.elapsed() >= mounted::ELSEWHERE);
        shared.warn("bpf file system", is_lasting.then(|| mounted::elsewhere(self.pins.parent())));
    }

    async fn look_at_node(&mut self, shared: &Shared, inputs: &mpsc::Sender<Input>) -> Running {
        self.look_at_bpffs(shared);
        let mut looked = Looked::default();
        self.look_at_uplinks(shared, inputs, &mut looked).await?;
        let uplinks = self.uplinks.clone().unwrap_or_default();
        let before = match &self.routes {
            Some(routes) => routes.clone(),
            // Of the agent before. If they can't be listed, that is told where they are set.
            None => self.netlink.node_routes().await.unwrap_or_default(),
        };
        let wanted = {
            let model = shared.model();
            let own = self.addresses.as_ref().map_or(&[][..], |addresses| &addresses.own);
            let network = node::network(&uplinks, own, model.own_node(), self.tunnel);
            model.synced().then(|| {
                let (name, nodes) = (model.node_name(), || model.nodes());
                let mtus = (network.tunnel_mtu(name, nodes()), network.pod_mtu(name, nodes()));
                // The ways to pods elsewhere are the other network's.
                let routes = match self.parts.wires() {
                    true => desired(name, nodes(), &network),
                    false => BTreeSet::new(),
                };
                let reserved = model.reserved();
                let addresses = reserved.cluster_ips_of().filter(|(_, ip)| !reserved.is_node(*ip));
                let (services, left_out) = wiring::svc::desired(&self.service_ranges, addresses, &before, &network);
                let services = self.left.with(&before, services, &network, Instant::now().into_std());
                (routes, services, left_out, mtus)
            })
        };
        if let Some((mut routes, to_services, left_out, (tunnel_mtu, pod_mtu))) = wanted {
            self.keeper.look(&self.netlink, tunnel_mtu, inputs, &mut looked).await;
            let found = if self.parts.serves() {
                self.services.look(&self.netlink, pod_mtu, inputs, &mut looked).await
            } else {
                self.services.leave(&self.netlink).await
            };
            if found == Ok(Found::Repaired) {
                let what = format!("the device {}", wiring::svc::NAME);
                looked.repaired.push(Repair { kind: Kind::Services, what });
            }
            // Those that the kernel took away with the device are none that are there.
            let there =
                if found.is_err() { self.netlink.node_routes().await.unwrap_or_default() } else { BTreeSet::new() };
            routes.extend(svc::routes(&found, to_services, &there));
            let left_out = if found == Ok(Found::Absent) { 0 } else { left_out };
            shared.warn("services", found.err().or_else(|| svc::left_out(left_out)));
            self.set_routes(&uplinks, routes, &mut looked).await;
            shared.note(|progress| progress.wired = true);
        }
        shared.looked(Subject::Node, &looked);
        Ok(())
    }

    async fn look_at_uplinks(&mut self, shared: &Shared, inputs: &mpsc::Sender<Input>, looked: &mut Looked) -> Running {
        let node_ips = shared.model().own_node().map(|node| node.internal_ips.clone());
        let is_node_known = node_ips.is_some();
        let node_ips = node_ips.unwrap_or_default();
        let found = self.netlink.uplinks_and_candidates(&node_ips).await.map(|found| {
            let before = self.uplinks.as_deref().unwrap_or_default();
            let found = self.lingering.uplinks(before, self.choice.of(found), Instant::now().into_std());
            self.served(found)
        });
        let found = found.map_err(|error| looked.lacks(format!("the node's interfaces: {error}"))).ok();
        match addresses(&self.netlink).await {
            Ok(found) if self.addresses.as_ref() != Some(&found) => {
                self.addresses = Some(found.clone());
                inputs.send(Input::Addresses(found)).await.map_err(|_| Stopped)?;
            }
            Ok(_) => {}
            Err(error) => looked.lacks(format!("the node's addresses: {error}")),
        }
        let is_new = |found: &Vec<Uplink>| self.uplinks.as_ref() != Some(found) || self.is_node_known != is_node_known;
        if let Some(uplinks) = found.filter(is_new) {
            // Interfaces of containers that are none of ours come and go all the time.
            let is_news = self.uplinks.as_deref().is_none_or(|before| primary(before) != primary(&uplinks));
            if is_news {
                let others = uplinks.iter().filter(|uplink| !uplink.is_primary).count();
                info!(uplinks = primary(&uplinks).join(" "), others, "uplinks found");
            }
            if uplinks.is_empty() {
                warn!("no uplink found: give an interface an address, or see the settings uplinks and excludeUplinks");
            }
            shared.warn("uplinks", unread(&uplinks));
            (self.uplinks, self.is_node_known) = (Some(uplinks.clone()), is_node_known);
            inputs.send(Input::Uplinks { uplinks, is_node_known }).await.map_err(|_| Stopped)?;
        }
        // Where Services are another proxy's, so are these.
        if self.parts.serves() {
            self.forward(shared, looked);
        }
        Ok(())
    }

    /// Sets what the kernel needs to forward for pods. Devices and other programs come and go, so not only at start.
    fn forward(&mut self, shared: &Shared, looked: &mut Looked) {
        let mut kept = vec![self.sysctls.prepare()];
        let uplinks = self.uplinks.iter().flatten();
        kept.extend(uplinks.map(|uplink| self.sysctls.prepare_uplink(&uplink.name, uplink.is_primary)));
        let texts: Vec<_> = kept.iter().flat_map(|kept| &kept.errors).map(ToString::to_string).collect();
        let text =
            (!texts.is_empty()).then(|| format!("forwarding for pods may not work on this node: {}", texts.join("; ")));
        shared.warn("sysctls", text);
        if self.settled == self.uplinks {
            let changed = kept.into_iter().flat_map(|kept| kept.changed);
            looked.repaired.extend(changed.map(|what| Repair { kind: Kind::Sysctl, what }));
        }
        self.settled.clone_from(&self.uplinks);
    }

    async fn set_routes(&mut self, uplinks: &[Uplink], routes: BTreeSet<NodeRoute>, looked: &mut Looked) {
        let mut broken = Vec::new();
        let mut undone = |same: bool, kind: Kind, kept: Kept| {
            let changed = kept.changed.into_iter().filter(|_| same);
            looked.repaired.extend(changed.map(|what| Repair { kind, what }));
            kept.errors
        };
        let hops = neighbours(uplinks, &routes);
        let is_same = self.hops.as_ref() == Some(&hops);
        match self.netlink.set_node_routes(&routes, uplinks).await {
            Ok(kept) => {
                // Where other nodes are reached by another interface now, nobody has undone the old routes.
                let errors = undone(is_same && self.routes.as_ref() == Some(&routes), Kind::Route, kept);
                broken.extend(errors.iter().map(|error| format!("a route to another node's pods: {error}")));
            }
            Err(error) => broken.push(format!("the routes to other nodes' pods: {error}")),
        }
        match self.netlink.keep_neighbours(&hops).await {
            // Kernels before 5.16 know no managed neighbours; all is well without, but for a first packet.
            Ok(kept) => {
                let errors = undone(is_same, Kind::Neighbour, kept);
                errors.iter().for_each(|error| debug!(%error, "can't add the managed neighbour entry of another node"));
            }
            Err(error) => debug!(%error, "can't add the managed neighbour entries of other nodes"),
        }
        broken.into_iter().for_each(|what| looked.lacks(what));
        (self.routes, self.hops) = (Some(routes), Some(hops));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_does_not_take_all_of_the_time() {
        let rest = |took| rest(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 1, 10, 100, 200, 3_000].map(rest), [20, 20, 50, 500, 500, 6_000]);
    }
}
