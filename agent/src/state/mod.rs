//! What the agent knows of itself, for the rooms that read it: the loop writes it, and the CNI server, the admin socket,
//! probes and metrics read it. It stands below all of them.

mod checks;
mod drops;
mod freshness;
mod metrics;
mod not_served;
mod repairs;
mod rule_hits;
mod shared;

pub use checks::{Check, CheckKey, Checks};
pub use drops::{
    DropCount, DropLog, DropView, DropsView, PodDropsView, counts_of, errors_unsent, packets_by_xdp, pod_counts,
};
pub use freshness::{Freshness, View as FreshnessView, unheard};
pub use metrics::{KubeProxy, Metrics};
pub use not_served::{NOT_SERVED, warn_not_served};
pub use repairs::{Repairs, Subject};
pub use rule_hits::RuleHits;
pub(crate) use rule_hits::{boot, count_of, now};
pub use shared::{Progress, Shared};
