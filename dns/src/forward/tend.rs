//! What is done beside answering: loops are looked for, servers that were silent are asked whether they answer again,
//! and sockets are renewed.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};

use super::forwarder::Forwarder;
use super::question::{Question, Wants};
use super::server::Server;
use super::upstreams::refuse_loops;
use crate::WireName;
use crate::random;
use crate::wire::RecordType;
use crate::zone::Zone;

/// How often servers are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is tried whether questions come back.
const PROBE: Duration = Duration::from_mins(1);
/// How long a probe is waited for.
const RETURN: Duration = Duration::from_secs(2);
/// The type that probes ask for. Hardly anybody else does, so no other query is compared.
const PROBED: RecordType = RecordType::HINFO;

impl Forwarder {
    /// Whether this is a probe of our own that has come back; the name in lower case. Then it is not to be asked again.
    #[must_use]
    pub fn is_own_probe(&self, name: &[u8], record_type: RecordType) -> bool {
        if record_type != PROBED {
            return false;
        }
        let probes = self.probes.lock();
        let returned = probes.get(name);
        if let Some(returned) = returned {
            returned.store(true, Ordering::Relaxed);
        }
        returned.is_some()
    }

    /// Looks after servers for ever. `listen` are the addresses that this server listens on.
    pub async fn tend(self: Arc<Self>, zone: Arc<RwLock<Zone>>, listen: Vec<SocketAddr>, local: fn() -> Vec<IpAddr>) {
        let mut serial = None;
        let mut probed: Option<Instant> = None;
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut addresses = Vec::new();
        loop {
            ticks.tick().await;
            let servers = self.by_domain();
            servers.iter().for_each(|(_, server)| server.renew_sockets());
            let is_due = probed.is_none_or(|probed| probed.elapsed() >= PROBE);
            if is_due {
                addresses = local();
            }
            // Services may have changed.
            let now = zone.read().unwrap_or_else(PoisonError::into_inner).serial();
            if is_due || serial.replace(now) != Some(now) {
                self.compare_addresses(&zone, &listen, &addresses);
            }
            if is_due {
                probed = Some(Instant::now());
                join_all(servers.iter().map(|(domain, server)| self.probe(server, domain))).await;
            }
            let down = servers.iter().filter(|(_, server)| server.is_down() && !server.is_loop());
            join_all(down.map(|(_, server)| check(server))).await;
        }
    }

    /// Marks servers whose address is one of this server or of the DNS Service.
    pub fn compare_addresses(&self, zone: &RwLock<Zone>, listen: &[SocketAddr], local: &[IpAddr]) {
        let servers = self.all_upstreams();
        let zone = zone.read().unwrap_or_else(PoisonError::into_inner);
        for server in &servers {
            let (_, own) = refuse_loops(vec![server.address], listen, local);
            let is_service = server.address.port() == 53 && zone.is_dns_service(server.address.ip().to_canonical());
            server.set_own_address(!own.is_empty() || is_service);
        }
    }

    /// Asks a server a question that it can only have from here, and sees whether it comes back. The name is in the domain
    /// that it is asked for: it may forward that domain, and nothing else, back to here.
    pub async fn probe(&self, server: &Server, domain: &WireName) {
        let labels = [random::number().to_string(), random::number().to_string()];
        // A domain may be so long that nothing fits in front of it.
        let Some(name) = domain.below(&[&labels[0], &labels[1]]) else { return };
        let name = name.as_wire().to_vec();
        let returned = Arc::new(AtomicBool::new(false));
        self.probes.lock().insert(name.clone().into(), Arc::clone(&returned));
        let question = Question::new(&name, PROBED, Wants { recursion: true, ..Wants::default() });
        // It doesn't matter what it says.
        let _answer = timeout(RETURN, server.ask(&question, false)).await;
        self.probes.lock().remove(&name[..]);
        server.set_led_back(returned.load(Ordering::Relaxed));
    }
}

/// Asks a server that was silent whether it answers: for the name servers of the root, as CoreDNS does.
async fn check(server: &Server) {
    let question = Question::new(&[0], RecordType::NS, Wants { recursion: true, ..Wants::default() });
    if !matches!(timeout(LOOK, server.ask(&question, false)).await, Ok(Ok(_))) {
        server.failed_checks.increment();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::wire::{Header, flags};

    #[tokio::test]
    async fn a_server_is_checked_with_a_question_that_resolvers_answer() {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new(upstream.local_addr().unwrap().into());
        let answering = async || {
            let mut message = [0; 512];
            let (length, from) = upstream.recv_from(&mut message).await.unwrap();
            assert!(Header::read(&message).unwrap().flags & flags::RECURSION_DESIRED != 0);
            message[2] |= 0x80;
            upstream.send_to(&message[..length], from).await.unwrap();
        };
        // It is waited for a second, which a busy machine may take: then it tries again.
        for _ in 0..5 {
            let failed = server.failed_checks.get();
            tokio::join!(check(&server), answering());
            if server.failed_checks.get() == failed {
                return;
            }
        }
        panic!("no answer counts");
    }
}
