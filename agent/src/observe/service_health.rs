//! healthCheckNodePort: a server for each service that asks load balancers to look for its endpoints on this node, as
//! kube-proxy's (pkg/proxy/healthcheck/service_health.go).
//!
//! Its listener is opened when the service gets its port and closed when the port changes or goes. It may share its port
//! with the same agent's successor, so an update leaves no moment in which a load balancer is refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_objects::{EndpointSlice, Kind, ObjectKey, Service, ServiceType, TrafficPolicy};
use fairlead_observe::{Answer, any, listen_only, serve};
use ipnetwork::IpNetwork;
use nix::ifaddrs::getifaddrs;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::compile::services::Family;
use crate::state::{Check, CheckKey, Checks, Shared};

/// How soon a port that could not be listened on is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The health checks of one service: for type LoadBalancer with `externalTrafficPolicy: Local`, in both families, since a
/// load balancer may ask a node by any address (kube-proxy's `0.0.0.0` is Go's word for both). In a family that the service
/// does not have the answer is about the other's endpoints.
#[must_use]
pub fn checks(service: &Service, slices: &[&EndpointSlice], node: &str) -> Vec<(Family, Check)> {
    let wanted = service.is_proxied()
        && service.service_type == ServiceType::LoadBalancer
        && service.external_traffic_policy == TrafficPolicy::Local;
    let Some(port) = service.health_check_node_port.filter(|_| wanted) else { return Vec::new() };
    let has = |family| service.cluster_ips.iter().any(|ip| Family::of(ip) == family);
    let about = |family, other| if has(family) { family } else { other };
    [(Family::V4, about(Family::V4, Family::V6)), (Family::V6, about(Family::V6, Family::V4))]
        .map(|(at, about)| (at, Check { port, endpoints: local_ready(slices, about, node) }))
        .into()
}

/// Addresses of ready endpoints on this node, each once, whatever their ports. Those that only serve while they
/// terminate get traffic and are not counted: the load balancer is to go elsewhere.
fn local_ready(slices: &[&EndpointSlice], family: Family, node: &str) -> usize {
    let slices = slices.iter().filter(|slice| Family::of_slice(slice.address_type) == Some(family));
    let slices = slices.filter(|slice| slice.ports.iter().any(|port| port.port.is_some()));
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let mut addresses: Vec<_> = endpoints
        .filter(|endpoint| endpoint.ready && endpoint.node_name.as_deref() == Some(node))
        .filter_map(|endpoint| endpoint.addresses.first())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.len()
}

/// A server that runs. Its listeners go with it.
struct Running {
    port: u16,
    tasks: JoinSet<()>,
}

/// Keeps a server for each health check until it is dropped. Servers listen on the node's addresses with these prefixes,
/// or on all of a family that has none, as kube-proxy's with `nodePortAddresses`.
pub async fn run(shared: Arc<Shared>, prefixes: Vec<IpNetwork>, mut checks: watch::Receiver<Checks>) {
    let mut servers: BTreeMap<CheckKey, Running> = BTreeMap::new();
    let mut complaints: BTreeMap<CheckKey, String> = BTreeMap::new();
    // Where the kernel has no IPv6 nobody asks by it.
    let has_v6 = any(0).is_ipv6();
    loop {
        let mut wanted = checks.borrow_and_update().clone();
        wanted.retain(|(_, family), _| has_v6 || *family == Family::V4);
        let stale = |key: &CheckKey, server: &Running| wanted.get(key).is_none_or(|check| check.port != server.port);
        for (key, mut server) in servers.extract_if(.., |key, server| stale(key, server)) {
            // Its port is free when this is over: the next may want it.
            server.tasks.shutdown().await;
            let (service, _) = key;
            info!(%service, port = server.port, "stopped serving a health check");
        }
        complaints.retain(|key, _| wanted.contains_key(key));
        for (key, check) in &wanted {
            if servers.contains_key(key) {
                continue;
            }
            match start(&shared, key, check.port, &prefixes, &servers, &checks) {
                Ok(server) => {
                    info!(service = %key.0, port = check.port, "serving a health check");
                    complaints.remove(key);
                    servers.insert(key.clone(), server);
                }
                Err(reason) => {
                    if complaints.insert(key.clone(), reason.clone()).as_ref() != Some(&reason) {
                        report(&shared, &key.0, check.port, &reason);
                    }
                }
            }
        }
        let changed =
            if complaints.is_empty() { Ok(checks.changed().await) } else { timeout(RETRY, checks.changed()).await };
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

fn start(
    shared: &Arc<Shared>,
    key: &CheckKey,
    port: u16,
    prefixes: &[IpNetwork],
    servers: &BTreeMap<CheckKey, Running>,
    checks: &watch::Receiver<Checks>,
) -> Result<Running, String> {
    let (_, family) = key;
    // The kernel would let two of our own listeners share it, and a load balancer would hear either.
    let owner = servers.iter().find(|((_, other), server)| other == family && server.port == port);
    if let Some(((owner, _), _)) = owner {
        return Err(format!("service {owner} has this port"));
    }
    let mut tasks = JoinSet::new();
    for ip in addresses(prefixes, *family).map_err(|error| error.to_string())? {
        let listener = listen_only(SocketAddr::new(ip, port)).map_err(|error| error.to_string())?;
        let handler = Arc::new(handler(Arc::clone(shared), key.clone(), checks.clone()));
        tasks.spawn(async move {
            if let Err(error) = serve(listener, handler).await {
                warn!(port, %error, "can't accept connections to a health check");
            }
        });
    }
    Ok(Running { port, tasks })
}

/// The addresses to listen on.
fn addresses(prefixes: &[IpNetwork], family: Family) -> nix::Result<Vec<IpAddr>> {
    let own: Vec<_> = prefixes.iter().filter(|prefix| Family::of(&prefix.ip()) == family).collect();
    if own.is_empty() || own.iter().any(|prefix| prefix.prefix() == 0) {
        return Ok(vec![if family == Family::V4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        }]);
    }
    let local = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
    });
    Ok(local.filter(|ip| own.iter().any(|prefix| prefix.contains(*ip))).collect())
}

fn report(shared: &Shared, service: &ObjectKey, port: u16, reason: &str) {
    const REASON: &str = "FailedToStartServiceHealthcheck";
    let text = format!(
        "node {} failed to start healthcheck {:?} on port {port}: {reason}; load balancers will not send traffic of this \
         service here; free the port or change the service's healthCheckNodePort",
        shared.model().node_name(),
        service.to_string()
    );
    warn!(reason = REASON, "{text}");
    shared.events.warn_for_all(Kind::Service, service, REASON, text);
}

/// Answers whatever is asked.
fn handler(
    shared: Arc<Shared>,
    key: CheckKey,
    checks: watch::Receiver<Checks>,
) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    move |_| {
        let endpoints = checks.borrow().get(&key).map_or(0, |check| check.endpoints);
        answer(&key.0, endpoints, shared.freshness.view().healthy)
    }
}

fn answer(service: &ObjectKey, endpoints: usize, healthy: bool) -> Answer {
    let ObjectKey { namespace, name } = service;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {namespace:?},\n\t\t\"name\": {name:?}\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let status = if endpoints > 0 && healthy { 200 } else { 503 };
    Answer::json(status, body).with("X-Load-Balancing-Endpoint-Weight", endpoints)
}

#[cfg(test)]
mod tests;
