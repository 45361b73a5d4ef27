//! Health, readiness and metrics over HTTP, at the places where CoreDNS has them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fairlead_dns::full::Responder;
use fairlead_observe::{Answer, keep};

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
    /// How long answers may come from what was known when changes ceased to arrive, until that is said.
    patience: Duration,
    /// That they have.
    broken: Mutex<Option<Broken>>,
    draining: AtomicBool,
}

/// That no change arrives.
struct Broken {
    since: Instant,
    said: bool,
}

impl Readiness {
    pub(crate) fn new(responder: Arc<Responder>, troubles: Troubles, patience: Duration) -> Self {
        let (broken, draining) = (Mutex::new(None), AtomicBool::new(false));
        Self { responder, troubles, patience, broken, draining }
    }

    /// The server is about to end: it answers, and nobody should begin to ask it.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why it should not be asked. That changes have ceased to arrive is no reason: an API server that is away is so for
    /// every server of the cluster at once, and an old answer is better than none.
    fn obstacle(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("Shutting down".to_owned());
        }
        let synced = self.responder.zone.read().unwrap_or_else(PoisonError::into_inner).is_synced();
        (!synced).then(|| format!("the first list of objects is not complete; {}", (self.troubles)().join("; ")))
    }

    /// Why the kernel should not answer in this server's place: it is about to end, or what it knows may be old.
    pub(crate) fn unfit(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("it is about to end".to_owned());
        }
        let troubles = (self.troubles)();
        (!troubles.is_empty()).then(|| format!("no change of the cluster arrives: {}", troubles.join("; ")))
    }

    /// Since when no change has arrived, if that is too long, and why. It is to be looked at now and then, and says when it
    /// begins and ends.
    fn staleness(&self, now: Instant) -> Option<String> {
        let troubles = (self.troubles)();
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.is_empty() {
            if broken.take().is_some_and(|broken| broken.said) {
                tracing::info!("changes of the cluster arrive again");
            }
            return None;
        }
        let Broken { since, said } = broken.get_or_insert(Broken { since: now, said: false });
        let silent = now.saturating_duration_since(*since);
        if silent < self.patience {
            return None;
        }
        let text = format!("stale: no change has arrived for {} s: {}", silent.as_secs(), troubles.join("; "));
        if !std::mem::replace(said, true) {
            tracing::warn!("answers may be old: {text}; check that the API server can be reached");
        }
        Some(text)
    }

    /// What is to be known of a server that may be asked.
    fn remarks(&self) -> String {
        let mut text = "OK".to_owned();
        if let Some(stale) = self.staleness(Instant::now()) {
            text += &format!("\n{stale}");
        }
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
pub(crate) fn serve(
    places: &Places,
    readiness: &Arc<Readiness>,
    metrics: impl Fn(&str) -> Answer + Send + Sync + 'static,
) {
    let health = Arc::new(|path: &str| match path {
        "/health" => Answer::text(200, "OK"),
        _ => Answer::not_found(),
    });
    let ready = Arc::clone(readiness);
    let ready = Arc::new(move |path: &str| ready.answer(path));
    let Places { health: health_at, ready: ready_at, metrics: metrics_at } = *places;
    const TAKEN: &str = "free the port or name another";
    tokio::spawn(async move { keep(health_at, "health", &format!("{TAKEN} with --health-bind"), health).await });
    tokio::spawn(async move { keep(ready_at, "readiness", &format!("{TAKEN} with --ready-bind"), ready).await });
    tokio::spawn(async move {
        keep(metrics_at, "metrics", &format!("{TAKEN} with --metrics-bind"), Arc::new(metrics)).await;
    });
    let looking = Arc::clone(readiness);
    // The time without changes is known even where nobody asks.
    tokio::spawn(async move {
        loop {
            let _not_asked = looking.staleness(Instant::now());
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::RwLock;

    use fairlead_dns::forward::{Config, Forwarder};
    use fairlead_dns::hosts::Hosts;
    use fairlead_dns::manner::Manner;
    use fairlead_dns::site::Site;
    use fairlead_dns::{WireName, Zone};

    use super::*;

    /// A server that is as long without changes as the switch says.
    fn server(synced: bool, away: &Arc<AtomicBool>) -> Readiness {
        forwarding(synced, away, None)
    }

    fn forwarding(synced: bool, away: &Arc<AtomicBool>, forwarder: Option<Arc<Forwarder>>) -> Readiness {
        let origin = WireName::parse("cluster.local").unwrap();
        let mut zone = Zone::new(origin.clone(), 5).unwrap();
        if synced {
            zone.set_synced();
        }
        let responder = Responder {
            zone: Arc::new(RwLock::new(zone)),
            site: RwLock::new(Arc::new(Site::plain(&origin, forwarder, Hosts::default()))),
            gate: Default::default(),
            manner: Manner { recursion: false, max_udp: 1232 },
            transfers: Default::default(),
            names: Default::default(),
            stats: Default::default(),
        };
        let away = Arc::clone(away);
        let troubles = move || if away.load(Ordering::Relaxed) { vec!["services: refused".to_owned()] } else { vec![] };
        Readiness::new(Arc::new(responder), Box::new(troubles), Duration::from_secs(300))
    }

    #[test]
    fn ten_minutes_without_an_api_server_take_no_server_out_of_service() {
        let away = Arc::new(AtomicBool::new(false));
        let servers = [server(true, &away), server(true, &away), server(true, &away)];
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        assert!(servers.iter().all(|server| server.staleness(at(0)).is_none()));
        away.store(true, Ordering::Relaxed);
        for second in (1..=600).step_by(5) {
            for server in &servers {
                assert_eq!(server.answer("/ready").status, 200, "after {second} s");
                let said = server.staleness(at(second));
                assert_eq!(said.is_some(), second > 300, "after {second} s: {said:?}");
            }
        }
        away.store(false, Ordering::Relaxed);
        assert!(servers.iter().all(|server| server.staleness(at(601)).is_none()));
        // The next outage has its own time.
        away.store(true, Ordering::Relaxed);
        assert!(servers.iter().all(|server| server.staleness(at(602)).is_none()));
    }

    #[test]
    fn upstream_servers_that_lead_back_are_named_and_take_no_server_out_of_service() {
        let upstreams =
            ["127.0.0.1:53", "192.0.2.1:53"].map(|text| text.parse::<SocketAddr>().unwrap().into()).to_vec();
        let forwarder = Forwarder::new(Config { upstreams, ..Config::default() }).map(Arc::new).unwrap();
        let server = forwarding(true, &Arc::default(), Some(Arc::clone(&forwarder)));
        assert_eq!(server.remarks(), "OK");
        forwarder.compare_addresses(&server.responder.zone, &["0.0.0.0:53".parse().unwrap()], &[]);
        assert_eq!(server.remarks(), "OK\nloop: the upstream server 127.0.0.1:53 leads back here and is not asked");
        assert_eq!(server.answer("/ready").status, 200);
    }

    #[test]
    fn a_server_without_objects_and_one_that_ends_are_out_of_service() {
        let away = Arc::new(AtomicBool::new(true));
        assert_eq!(server(false, &away).answer("/ready").status, 503);
        let server = server(true, &away);
        assert_eq!(server.unfit().as_deref(), Some("no change of the cluster arrives: services: refused"));
        away.store(false, Ordering::Relaxed);
        assert_eq!(server.unfit(), None);
        server.drain();
        assert_eq!(server.answer("/ready").status, 503);
        assert!(server.unfit().is_some());
    }
}
