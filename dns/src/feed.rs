//! The task that carries objects into the zone.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use fairlead_objects::{Event, Object, ObjectKey};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;

use crate::full::Responder;
use crate::zone::{Builder, Options};

/// Events that are taken in before their changes are looked at.
const BATCH: usize = 1024;

/// How the zone is made of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Make {
    /// What of the cluster is in it.
    pub options: Options,
    /// How long records live, in seconds.
    pub ttl: u32,
}

/// Reads events until the source ends, and makes the zone of them as it is told to at the time. Changes of one service become visible at once, those of several one after the
/// other; the zone answers when the first list of every kind is in it.
pub async fn feed(
    mut events: Receiver<Event>,
    mut builder: Builder,
    responder: Arc<Responder>,
    mut make: watch::Receiver<Make>,
) {
    let zone = &responder.zone;
    let configure = |builder: &mut Builder, Make { options, ttl }: Make| {
        zone.write().unwrap_or_else(PoisonError::into_inner).configure(ttl, options.pods);
        builder.set_options(options);
    };
    configure(&mut builder, make.borrow_and_update().clone());
    let mut batch = Vec::with_capacity(BATCH);
    let mut causes = Causes { started: SystemTime::now(), causes: BTreeMap::new() };
    loop {
        tokio::select! {
            count = events.recv_many(&mut batch, BATCH) => if count == 0 { return },
            Ok(()) = make.changed() => configure(&mut builder, make.borrow_and_update().clone()),
        }
        for event in batch.drain(..) {
            if let Event::Invalid { kind, key, origin, reason } = &event {
                let kind = kind.map_or("object", |kind| kind.as_str());
                let name = key.as_ref().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(kind, name, origin, reason, "invalid object: ignored");
            }
            causes.see(&event);
            builder.apply(event);
        }
        for delta in builder.settle() {
            zone.write().unwrap_or_else(PoisonError::into_inner).update(delta);
        }
        for (service, waited) in causes.take() {
            if let Some(headless) = builder.is_headless(&service) {
                let stats = &responder.stats;
                let histogram = if headless { &stats.programming_headless } else { &stats.programming_cluster_ip };
                histogram.observe(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
            }
        }
        if builder.is_synced() {
            let mut zone = zone.write().unwrap_or_else(PoisonError::into_inner);
            if !zone.is_synced() {
                zone.set_synced();
                tracing::info!(names = zone.names().count(), serial = zone.serial(), "zone loaded");
            }
        }
    }
}

/// When what led to a change happened, by service. What happened before the start is not this server's delay.
struct Causes {
    started: SystemTime,
    causes: BTreeMap<ObjectKey, SystemTime>,
}

impl Causes {
    fn see(&mut self, event: &Event) {
        let Event::Applied(Object::EndpointSlice(slice)) = event else { return };
        let (Some(cause), Some(service)) = (slice.triggered.map(SystemTime::from), &slice.service_name) else { return };
        if cause > self.started {
            // The first of several: it has waited longest.
            self.causes.entry(ObjectKey::new(&slice.key.namespace, service)).or_insert(cause);
        }
    }

    fn take(&mut self) -> impl Iterator<Item = (ObjectKey, Duration)> + use<> {
        let now = SystemTime::now();
        let causes = std::mem::take(&mut self.causes).into_iter();
        causes.map(move |(service, cause)| (service, now.duration_since(cause).unwrap_or_default()))
    }
}
