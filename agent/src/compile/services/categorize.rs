//! Which endpoints of a service port are used, under each traffic policy.

use std::collections::BTreeSet;

use super::{Answer, BackendAddr, Place, PortEndpoint};

/// What [`categorize`] finds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Categories {
    /// Those used under policy Cluster.
    pub cluster: BTreeSet<BackendAddr>,
    /// Those used under policy Local.
    pub local: BTreeSet<BackendAddr>,
    /// Whether there are endpoints anywhere that could be used.
    pub any: bool,
}

impl Categories {
    /// The answer under policy Cluster.
    #[must_use]
    pub fn cluster_answer(&self) -> Answer {
        if self.cluster.is_empty() { Answer::Reject } else { Answer::Forward(self.cluster.clone()) }
    }

    /// The answer under policy Local.
    #[must_use]
    pub fn local_answer(&self) -> Answer {
        match (self.local.is_empty(), self.any) {
            (false, _) => Answer::Forward(self.local.clone()),
            (true, true) => Answer::Drop,
            (true, false) => Answer::Reject,
        }
    }
}

/// How hints narrow the ready endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Anywhere,
    Zone,
    Node,
}

/// Chooses the endpoints that are used under each policy, as `CategorizeEndpoints` of kubernetes/pkg/proxy/topology.go.
///
/// - Cluster: those that are ready, narrowed by hints; with none ready anywhere, those that serve while they terminate,
///   hints or not (S22).
/// - Local: those of this node that are ready, else those of this node that serve while they terminate. Hints are never
///   applied (S23). Each of the two falls back by itself (S24).
/// - An endpoint that terminates and does not serve is never used (S25).
#[must_use]
pub fn categorize(endpoints: &[PortEndpoint<'_>], place: &Place) -> Categories {
    let topology = topology(endpoints, place);
    let select = |wanted: &dyn Fn(&PortEndpoint<'_>) -> bool| -> BTreeSet<BackendAddr> {
        endpoints.iter().filter(|e| wanted(e)).map(|e| e.addr).collect()
    };
    let or_else = |first: BTreeSet<BackendAddr>, second: &dyn Fn(&PortEndpoint<'_>) -> bool| {
        if first.is_empty() { select(second) } else { first }
    };
    Categories {
        cluster: or_else(select(&|e| e.ready && is_near(e, topology, place)), &|e| e.is_last_resort()),
        local: or_else(select(&|e| e.local && e.ready), &|e| e.local && e.is_last_resort()),
        any: endpoints.iter().any(|e| e.ready || e.is_last_resort()),
    }
}

/// Which hints count: those for nodes if every ready endpoint has one and one names this node, else those for zones in
/// the same way, else none. One endpoint without a hint disables that kind (S31, KEP-2433, KEP-3015).
fn topology(endpoints: &[PortEndpoint<'_>], place: &Place) -> Topology {
    let ready = || endpoints.iter().filter(|e| e.ready);
    if ready().all(|e| !e.node_hints.is_empty()) && ready().any(|e| is_near(e, Topology::Node, place)) {
        Topology::Node
    } else if ready().all(|e| !e.zone_hints.is_empty()) && ready().any(|e| is_near(e, Topology::Zone, place)) {
        Topology::Zone
    } else {
        Topology::Anywhere
    }
}

/// Whether hints let this node use an endpoint.
fn is_near(endpoint: &PortEndpoint<'_>, topology: Topology, place: &Place) -> bool {
    match topology {
        Topology::Anywhere => true,
        Topology::Zone => place.zone.as_ref().is_some_and(|zone| endpoint.zone_hints.contains(zone)),
        Topology::Node => endpoint.node_hints.contains(&place.node),
    }
}
