//! Looks for kube-proxy, and says when it is there. Nothing of its is changed: two that fight over rules are worse than one
//! too many.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use crate::doctor::{Finding, kube_proxy, proxy};
use crate::state::Shared;

/// How often.
const LOOK: Duration = Duration::from_secs(60);

/// Looks until it is dropped.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(seen) = spawn_blocking(proxy).await else { return };
        let text = kube_proxy(&seen).map(|Finding { what, why, remedy, .. }| format!("{what}: {why}; {remedy}"));
        shared.warn("kube-proxy", text);
    }
}
