//! Health, readiness and metrics over HTTP, at the places where CoreDNS has them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fairlead_dns::full::Responder;
use fairlead_observe::{Answer, keep};

use crate::metrics::Metrics;

/// Where each is served.
pub(crate) struct Places {
    pub(crate) health: SocketAddr,
    pub(crate) ready: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// What the source of objects says is wrong with it; nothing when it follows every change.
pub(crate) type Troubles = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// Whether this server should be asked.
pub(crate) struct Readiness {
    responder: Arc<Responder>,
    troubles: Troubles,
    /// How long answers may come from what was known when changes ceased to arrive.
    patience: Duration,
    /// Since when they have.
    broken: std::sync::Mutex<Option<Instant>>,
    draining: AtomicBool,
}

impl Readiness {
    pub(crate) fn new(responder: Arc<Responder>, troubles: Troubles, patience: Duration) -> Self {
        let (broken, draining) = (std::sync::Mutex::new(None), AtomicBool::new(false));
        Self { responder, troubles, patience, broken, draining }
    }

    /// The server is about to end: it answers, and nobody should begin to ask it.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why it should not be asked.
    fn obstacle(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("Shutting down".to_owned());
        }
        let troubles = (self.troubles)();
        if !self.responder.zone.read().unwrap_or_else(PoisonError::into_inner).is_synced() {
            return Some(format!("the first list of objects is not complete; {}", troubles.join("; ")));
        }
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.is_empty() {
            *broken = None;
            return None;
        }
        let since = broken.get_or_insert_with(Instant::now).elapsed();
        (since >= self.patience)
            .then(|| format!("no change has arrived for {} s: {}", since.as_secs(), troubles.join("; ")))
    }

    /// What is to be known of a server that may be asked.
    fn remarks(&self) -> String {
        let mut text = "OK".to_owned();
        for forwarder in self.responder.site().forwarders() {
            for server in forwarder.all_upstreams().iter().filter(|server| server.is_loop()) {
                text += &format!("\nloop: the upstream server {} leads back here and is not asked", server.address);
            }
        }
        text
    }

    fn answer(&self, path: &str) -> Answer {
        match path {
            "/ready" => match self.obstacle() {
                None => Answer::text(200, self.remarks()),
                Some(why) => Answer::text(503, why),
            },
            _ => Answer::not_found(),
        }
    }

    /// 1 while changes arrive.
    pub(crate) fn is_alive(&self) -> bool {
        (self.troubles)().is_empty()
    }
}

/// Serves all of it until the process ends.
pub(crate) fn serve(places: &Places, readiness: &Arc<Readiness>, metrics: Metrics) {
    let health = Arc::new(|path: &str| match path {
        "/health" => Answer::text(200, "OK"),
        _ => Answer::not_found(),
    });
    let ready = Arc::clone(readiness);
    let ready = Arc::new(move |path: &str| ready.answer(path));
    let metrics = Arc::new(move |path: &str| metrics.answer(path));
    let Places { health: health_at, ready: ready_at, metrics: metrics_at } = *places;
    const TAKEN: &str = "free the port or name another";
    tokio::spawn(async move { keep(health_at, "health", &format!("{TAKEN} with --health-bind"), health).await });
    tokio::spawn(async move { keep(ready_at, "readiness", &format!("{TAKEN} with --ready-bind"), ready).await });
    tokio::spawn(async move { keep(metrics_at, "metrics", &format!("{TAKEN} with --metrics-bind"), metrics).await });
    let looking = Arc::clone(readiness);
    // The time without changes is known even where nobody asks.
    tokio::spawn(async move {
        loop {
            let _not_asked = looking.obstacle();
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
}
