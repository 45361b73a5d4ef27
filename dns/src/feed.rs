//! The task that carries objects into the zone.

use std::sync::{Arc, PoisonError, RwLock};

use fairlead_objects::Event;
use tokio::sync::mpsc::Receiver;

use crate::zone::{Builder, Zone};

/// Events that are taken in before their changes are looked at.
const BATCH: usize = 1024;

/// Reads events until the source ends. Changes of one service become visible at once, those of several one after the
/// other; the zone answers when the first list of every kind is in it.
pub async fn feed(mut events: Receiver<Event>, mut builder: Builder, zone: Arc<RwLock<Zone>>) {
    let mut batch = Vec::with_capacity(BATCH);
    while events.recv_many(&mut batch, BATCH).await > 0 {
        for event in batch.drain(..) {
            if let Event::Invalid { kind, key, origin, reason } = &event {
                let kind = kind.map_or("object", |kind| kind.as_str());
                let name = key.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(kind, name, origin, reason, "an object can't be read and changes nothing");
            }
            builder.apply(event);
        }
        for delta in builder.settle() {
            zone.write().unwrap_or_else(PoisonError::into_inner).update(delta);
        }
        if builder.is_synced() {
            let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
            if !zone.is_synced() {
                zone.set_synced();
                tracing::info!(names = zone.names().count(), serial = zone.serial(), "the zone is complete");
            }
        }
    }
}
