//! What is said where pods have rules with names and no DNS server asks the agent.

use fairlead_objects::Kind;

use crate::compile::policy::has_names;
use crate::events::Recorder;
use crate::model::Model;

/// What is wrong and what to do.
pub const NOT_SERVED: &str = "domainNames open nothing on this node: no fairlead-dns asks the agent. Pods need the fairlead-dns of \
                              their node, with --names-dir, as their DNS server; CoreDNS can't be used with domainNames";

/// Says so on every policy with names.
pub fn warn_not_served(model: &Model, events: &Recorder) {
    for policy in model.cluster_policies().filter(|policy| has_names(policy)) {
        events.warn(Kind::ClusterNetworkPolicy, &policy.key, "", "NamesNotServed", NOT_SERVED);
    }
}
