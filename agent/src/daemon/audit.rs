//! Policies in audit mode: when they are compiled, and what comes of the flows that a sweep sees.

use std::collections::HashMap;
use std::net::IpAddr;

use fairlead_objects::names::NameRules;

use crate::audit::{Auditor, Collector, Denied, Finding, Known, Seen, Texts, in_turns};
use crate::compile::policy::{World, audited_coverage};
use crate::model::Model;
use crate::network::Network;
use crate::state::{Shared, now};

/// What one sweep tells of at most, one for each peer and port of a pod, some of each pod: of more, the rest is counted.
const AT_ONCE: usize = 2048;

/// The policies and what they were asked about.
#[derive(Debug)]
pub(super) struct Audit {
    auditor: Option<Auditor>,
    known: Known,
    /// What policies are compiled from has changed.
    outdated: bool,
    /// The policies have not judged the flows that are known.
    again: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self { auditor: None, known: Known::default(), outdated: true, again: false }
    }
}

impl Audit {
    /// Something changed that policies are compiled from.
    pub(super) fn changed(&mut self) {
        self.outdated = true;
    }

    /// Compiles the policies of now, before a sweep, or tells those that are compiled what pods were told since. Gives the names that
    /// policies in audit mode have, if that may have changed.
    pub(super) fn prepare(&mut self, shared: &Shared) -> Option<NameRules> {
        if !shared.model().synced() {
            return None;
        }
        if !self.outdated
            && let Some(auditor) = self.auditor.as_mut().filter(|auditor| auditor.has_names())
        {
            let changed = shared.model_mut().names_mut().take_changes();
            let is_told = |changed| auditor.tell(shared.model().names(), &changed);
            self.outdated = !changed.is_some_and(is_told);
        }
        if !self.outdated {
            return None;
        }
        self.outdated = false;
        let _told_with_the_rest = shared.model_mut().names_mut().take_changes();
        let model = shared.model();
        let world = World::with_audited(&model, &Network::default());
        self.auditor = Auditor::of(&world);
        self.again = true;
        let has_names = self.auditor.as_ref().is_some_and(Auditor::has_names);
        if self.auditor.is_none() {
            self.known = Known::default();
        }
        let (audited, texts) = (world.audited(), Texts::of(&world));
        let mut findings = shared.audit();
        findings.set_auditing(!audited.is_empty(), now());
        findings.keep(
            |policy| audited.contains(policy),
            |finding| texts.text(finding.direction, finding.by.as_ref(), &finding.policies) == finding.text,
        );
        let names = audited_coverage(&world);
        drop((findings, world));
        drop(model);
        if !has_names {
            shared.model_mut().names_mut().forget_changes();
        }
        Some(names)
    }

    /// What a sweep tells of the flows that it sees, if anybody wants to know.
    pub(super) fn collector(&self) -> Option<Collector<'_>> {
        self.auditor.as_ref().map(|auditor| Collector::new(auditor, &self.known, self.again))
    }

    /// Takes note of what a sweep has seen.
    pub(super) fn tell(&mut self, denied: Vec<(Seen, u64, Denied)>, known: Known, shared: &Shared) {
        (self.known, self.again) = (known, false);
        if denied.is_empty() {
            return;
        }
        let by_pod = denied.into_iter().map(|each| (each.0.slot, each)).collect();
        let (denied, left) = in_turns(by_pod, AT_ONCE);
        let model = shared.model();
        let (names, now) = (names(&model), now());
        let mut findings = shared.audit();
        findings.leave_out(left);
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
