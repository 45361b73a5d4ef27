//! Headless Services: the SRV records of their ports.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use fairlead_objects::{Service, ServicePort};
use serde::Serialize;

use super::ask::{Kind, Question, Target};
use super::errand::{Errand, Outcome, Seen, run_at};
use super::objects::Backend;
use super::services::PATIENCE;
use super::stage::Stage;
use crate::probe::Transport;

/// An SRV record of a headless Service.
#[derive(Debug, Clone, Serialize)]
pub struct SrvRow {
    /// The name that was asked for.
    pub name: String,
    /// Its priority.
    pub priority: u16,
    /// Its weight.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The server's name.
    pub target: String,
    /// The addresses that the server's name has.
    pub addresses: Vec<IpAddr>,
}

/// Asks for every port of every headless Service, and for what the answers name.
pub(super) fn look(stage: &Stage, problems: &mut Vec<String>) -> Result<Vec<SrvRow>> {
    let (dns, clients) = (stage.objects.dns()?, stage.clients()?);
    let (server, client) = (dns[0], *clients.first().context("there are no clients")?);
    let question = |name: &str, kind| {
        let (transport, name) = (Transport::Udp, name.to_owned());
        Errand::Ask(Question { server, transport, name, kind, timeout: PATIENCE })
    };
    let mut rows = Vec::new();
    for service in stage.objects.services.iter().filter(|service| service.headless) {
        let zone = format!("{}.{}.svc.cluster.local", service.key.name, service.key.namespace);
        for port in &service.ports {
            let name = format!("_{}._{}.{zone}", port.name, port.protocol.as_str().to_lowercase());
            let wanted = wanted(stage, service, port, &zone);
            let mut found = Vec::new();
            for target in targets(run_at(client, 1, vec![question(&name, Kind::Srv)])?, &name, problems) {
                let asked = [Kind::A, Kind::Aaaa].map(|kind| question(&target.name, kind)).to_vec();
                let mut addresses: Vec<IpAddr> = Vec::new();
                for outcome in run_at(client, 1, asked)? {
                    match outcome {
                        Ok(Seen::Answer(answer)) => addresses.extend(answer.addresses),
                        Ok(Seen::Server(_)) => {}
                        Err(error) => problems.push(format!("DNS: {}: {error}", target.name)),
                    }
                }
                found.push((target.name.clone(), target.port, addresses.clone()));
                let Target { name: host, port, priority, weight } = target;
                rows.push(SrvRow { name: name.clone(), priority, weight, port, target: host, addresses });
            }
            if found != wanted {
                problems.push(format!("DNS: the SRV records of {name} are {found:?} instead of {wanted:?}"));
            }
        }
    }
    if rows.is_empty() {
        problems.push("DNS: there was no SRV record of a headless Service".to_owned());
    }
    Ok(rows)
}

fn targets(outcomes: Vec<Outcome>, name: &str, problems: &mut Vec<String>) -> Vec<Target> {
    let mut all = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(Seen::Answer(answer)) => all.extend(answer.targets),
            Ok(Seen::Server(_)) => {}
            Err(error) => problems.push(format!("DNS: {name}: {error}")),
        }
    }
    all
}

/// What has to be there by the slices: hosts, ports and addresses, IPv4 first.
fn wanted(stage: &Stage, service: &Service, port: &ServicePort, zone: &str) -> Vec<(String, u16, Vec<IpAddr>)> {
    let mut hosts: BTreeMap<(String, u16), Vec<IpAddr>> = BTreeMap::new();
    for v4 in [true, false] {
        let backends = stage.objects.backends(service, port, v4);
        for (_, endpoint) in stage.objects.endpoints(service) {
            let own = |b: &&Backend<'_>| endpoint.addresses.contains(&b.address.ip());
            if let (Some(backend), Some(host)) = (backends.iter().find(own), &endpoint.hostname) {
                let entry = hosts.entry((format!("{host}.{zone}"), backend.address.port())).or_default();
                entry.push(backend.address.ip());
            }
        }
    }
    hosts.into_iter().map(|((host, port), ips)| (host, port, ips)).collect()
}
