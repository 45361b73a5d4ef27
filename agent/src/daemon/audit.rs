//! Policies in audit mode: when they are compiled, and what comes of the flows that a sweep sees.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::audit::{Auditor, Collector, Denied, Finding, Known, Seen};
use crate::compile::policy::World;
use crate::model::Model;
use crate::network::Network;
use crate::state::{Shared, now};

/// What one sweep tells of at most, one for each peer and port of a pod: of more, the rest is passed over.
const AT_ONCE: usize = 2048;

/// The policies and what they were asked about.
#[derive(Debug)]
pub(super) struct Audit {
    auditor: Option<Auditor>,
    known: Known,
    /// What policies are compiled from has changed.
    outdated: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self { auditor: None, known: Known::default(), outdated: true }
    }
}

impl Audit {
    /// Something changed that policies are compiled from.
    pub(super) fn changed(&mut self) {
        self.outdated = true;
    }

    /// Compiles the policies of now, before a sweep.
    pub(super) fn prepare(&mut self, shared: &Shared) {
        let model = shared.model();
        if !self.outdated || !model.synced() {
            return;
        }
        self.outdated = false;
        let world = World::with_audited(&model, &Network::default());
        self.auditor = Auditor::of(&world);
        if self.auditor.is_none() {
            self.known = Known::default();
        }
        let audited = world.audited();
        let mut findings = shared.audit();
        findings.set_auditing(!audited.is_empty(), now());
        findings.keep(|policy| audited.contains(policy));
    }

    /// What a sweep tells of the flows that it sees, if anybody wants to know.
    pub(super) fn collector(&self) -> Option<Collector<'_>> {
        self.auditor.as_ref().map(|auditor| Collector::new(auditor, &self.known))
    }

    /// Takes note of what a sweep has seen.
    pub(super) fn tell(&mut self, seen: impl IntoIterator<Item = (Seen, u64)>, known: Known, shared: &Shared) {
        self.known = known;
        let Some(auditor) = &self.auditor else { return };
        let judged = seen.into_iter().filter_map(|(seen, flows)| Some((seen, flows, auditor.judge(&seen)?)));
        let denied: Vec<(Seen, u64, Denied)> = judged.take(AT_ONCE).collect();
        if denied.is_empty() {
            return;
        }
        let model = shared.model();
        let (names, now) = (names(&model), now());
        let mut findings = shared.audit();
        for (seen, flows, denied) in denied {
            let Some(local) = model.local().get(&seen.slot) else { continue };
            let peer = IpAddr::from(seen.peer);
            let peer = names.get(&peer).cloned().unwrap_or_else(|| peer.to_string());
            findings.note(Finding::new(local.key.clone(), peer, &seen, denied), flows, now);
        }
    }
}

/// Pods and nodes by their addresses, in the words of `fairlead policy explain`.
fn names(model: &Model) -> HashMap<IpAddr, String> {
    let nodes = model.nodes().flat_map(|node| node.internal_ips.iter().map(|ip| (*ip, format!("node/{}", node.name))));
    let pods = model.pods().filter(|pod| !pod.host_network && !pod.phase.is_terminal());
    let pods = pods.flat_map(|pod| pod.ips.iter().map(|ip| (*ip, pod.key.to_string())));
    let local = model.local().values().flat_map(|pod| pod.ips.iter().map(|ip| (*ip, pod.key.to_string())));
    nodes.chain(pods).chain(local).map(|(ip, name): (IpAddr, _)| (ip.to_canonical(), name)).collect()
}
