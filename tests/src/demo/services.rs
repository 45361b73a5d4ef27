//! Every Service: reached by its name from every pod that may, and what that costs.

mod speed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fairlead_agent::compile::policy::World;
use fairlead_objects::{Pod as PodObject, Service, ServicePort};
use serde::Serialize;

use super::ask::{Kind, Question};
use super::errand::{Errand, Outcome, Seen, run_at};
use super::objects::{Objects, allows};
use super::stage::Stage;
use super::{complain, say};
use crate::pod::Pod;
use crate::probe::Transport;

pub(super) use speed::Speed;

/// How long an attempt that should succeed may take: a lost packet shows in the policies' matrix and under load, here
/// a busy machine must not look like a broken network.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Attempts of one pod at a time.
const AT_ONCE: usize = 4;

/// A Service as it was found.
#[derive(Debug, Clone, Serialize)]
pub struct ServiceRow {
    /// Namespace and name.
    pub service: String,
    /// Its addresses; none when it is headless.
    pub addresses: Vec<IpAddr>,
    /// Its ports, as `80/TCP`.
    pub ports: Vec<String>,
    /// How many pods serve it.
    pub endpoints: usize,
    /// From how many pods it was reached by its name, at all addresses and at all ports that the policies let them.
    pub reached_from: usize,
    /// On how many nodes these are.
    pub on_nodes: usize,
    /// How many pods may reach a port of it by the policies, and the DNS servers for its name.
    pub allowed: usize,
    /// How long a connection to it takes.
    pub speed: Speed,
}

/// One attempt that has to succeed, and what it has to meet.
struct Want {
    service: usize,
    /// What it is, for a person.
    what: String,
    errand: Errand,
    meets: Meets,
}

enum Meets {
    /// Exactly these addresses.
    Addresses(Vec<IpAddr>),
    /// One of these pods; or any answer, of a server that does not say who it is.
    Pods(BTreeSet<String>),
}

/// Looks at all Services from all pods.
pub(super) fn look(stage: &Stage, problems: &mut Vec<String>) -> Result<Vec<ServiceRow>> {
    let pods: Vec<&Pod> = stage.pods.values().collect();
    let visits = visit(stage, &pods)?;
    say("measuring connections: through the Service, and directly to its pods");
    let mut rows = Vec::new();
    for (index, service) in stage.objects.services.iter().enumerate() {
        let tried: Vec<&(&Pod, Result<(), String>)> = visits[index].iter().collect();
        let reached: Vec<&Pod> = tried.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(pod, _)| *pod).collect();
        let nodes: BTreeSet<&str> = reached.iter().map(|pod| pod.node().name()).collect();
        let serving: BTreeSet<_> = stage.objects.endpoints(service).filter_map(|(_, each)| each.pod.as_ref()).collect();
        let from = tried.iter().find(|(pod, _)| pod.key().starts_with("client/")).or_else(|| tried.first());
        rows.push(ServiceRow {
            service: service.key.to_string(),
            addresses: service.cluster_ips.clone(),
            ports: service.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect(),
            endpoints: serving.len(),
            reached_from: reached.len(),
            on_nodes: nodes.len(),
            allowed: tried.len(),
            speed: from
                .map_or_else(|| Ok(Speed::default()), |(pod, _)| speed::measure(&stage.objects, pod, service))?,
        });
    }
    complain(problems, "Services that were not reached", wrong(stage, &visits));
    Ok(rows)
}

/// What these pods could not reach although they may.
pub(super) fn failures(stage: &Stage, pods: &[&Pod]) -> Result<Vec<String>> {
    Ok(wrong(stage, &visit(stage, pods)?))
}

/// What came of the visits to one Service.
type Visits<'a> = Vec<(&'a Pod, Result<(), String>)>;

fn wrong(stage: &Stage, visits: &[Visits<'_>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (service, visits) in stage.objects.services.iter().zip(visits) {
        let failed: Vec<(&Pod, &String)> =
            visits.iter().filter_map(|(pod, outcome)| Some((*pod, outcome.as_ref().err()?))).collect();
        if let Some((pod, reason)) = failed.first() {
            let (count, all) = (failed.len(), visits.len());
            wrong.push(format!(
                "Service {}: {count} of {all} pods did not reach it; {} on {}: {reason}",
                service.key,
                pod.key(),
                pod.node().name()
            ));
        }
    }
    wrong
}

/// Visits all Services from these pods, each from all pods that may, and gives what came of it for each Service.
fn visit<'a>(stage: &'a Stage, pods: &[&'a Pod]) -> Result<Vec<Visits<'a>>> {
    let world = stage.objects.world();
    let from_one = |pod: &'a Pod| -> Result<BTreeMap<usize, Result<(), String>>> {
        let Some(object) = stage.objects.pods.iter().find(|object| object.key.to_string() == pod.key()) else {
            return Ok(BTreeMap::new());
        };
        let wants = wants(&stage.objects, &world, object)?;
        let outcomes = run_at(pod, AT_ONCE, wants.iter().map(|want| want.errand.clone()).collect())?;
        let mut found: BTreeMap<usize, Result<(), String>> = BTreeMap::new();
        for (want, outcome) in wants.iter().zip(outcomes) {
            let verdict = found.entry(want.service).or_insert(Ok(()));
            if verdict.is_ok() {
                *verdict = want.check(&outcome);
            }
        }
        Ok(found)
    };
    let mut visits: Vec<Visits<'a>> = stage.objects.services.iter().map(|_| Vec::new()).collect();
    let found: Vec<_> = thread::scope(|scope| {
        let from_one = &from_one;
        let threads: Vec<_> = pods.iter().map(|&pod| (pod, scope.spawn(move || from_one(pod)))).collect();
        let join = |each: thread::ScopedJoinHandle<'_, _>| {
            each.join().unwrap_or_else(|reason| std::panic::resume_unwind(reason))
        };
        threads.into_iter().map(|(pod, each)| (pod, join(each))).collect()
    });
    for (pod, found) in found {
        for (service, outcome) in found? {
            visits[service].push((pod, outcome));
        }
    }
    Ok(visits)
}

/// What has to succeed from a pod: the name of every Service with a port that it may reach, and these ports.
fn wants(objects: &Objects, world: &World<'_>, from: &PodObject) -> Result<Vec<Want>> {
    let dns = objects.dns()?;
    let resolver = objects.service("kube-system", "kube-dns")?;
    let mut all = Vec::new();
    if open_ports(objects, world, from, resolver).len() < resolver.ports.len() {
        return Ok(all);
    }
    for (index, service) in objects.services.iter().enumerate() {
        let ports = open_ports(objects, world, from, service);
        if ports.is_empty() {
            continue;
        }
        let name = format!("{}.{}.svc.cluster.local", service.key.name, service.key.namespace);
        for server in dns {
            let v4 = server.is_ipv4();
            let addresses = addresses(objects, service, v4);
            let (transport, kind) = (Transport::Udp, Kind::of(server.ip()));
            all.push(Want {
                service: index,
                what: format!("{name} asked of {server}"),
                errand: Errand::Ask(Question { server, transport, name: name.clone(), kind, timeout: PATIENCE }),
                meets: Meets::Addresses(addresses.clone()),
            });
            for port in &ports {
                let backends = objects.backends(service, port, v4);
                for ip in &addresses {
                    // A headless Service's addresses are pods', whose ports are their own.
                    let own = backends.iter().filter(|backend| !service.headless || backend.address.ip() == *ip);
                    let number =
                        if service.headless { own.clone().next().map(|b| b.address.port()) } else { Some(port.port) };
                    let Some(number) = number else { continue };
                    let to = SocketAddr::new(*ip, number);
                    all.push(Want {
                        service: index,
                        what: format!("{to}/{}", port.protocol),
                        errand: Errand::reach(to, port.protocol, PATIENCE),
                        meets: Meets::Pods(own.map(|backend| backend.pod.key.to_string()).collect()),
                    });
                }
            }
        }
    }
    Ok(all)
}

/// What the Service's name has to give in a family, sorted.
fn addresses(objects: &Objects, service: &Service, v4: bool) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = if service.headless {
        objects.endpoints(service).flat_map(|(_, endpoint)| endpoint.addresses.clone()).collect()
    } else {
        service.cluster_ips.clone()
    };
    addresses.retain(|ip| ip.is_ipv4() == v4);
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The ports of a Service that a pod may reach at every pod that serves them.
fn open_ports<'a>(
    objects: &Objects,
    world: &World<'_>,
    from: &PodObject,
    service: &'a Service,
) -> Vec<&'a ServicePort> {
    let open = |port: &&ServicePort| {
        [true, false].into_iter().all(|v4| {
            let backends = objects.backends(service, port, v4);
            backends.iter().all(|backend| allows(world, from, backend.pod, backend.address, port.protocol))
        })
    };
    service.ports.iter().filter(open).collect()
}

impl Want {
    fn check(&self, outcome: &Outcome) -> Result<(), String> {
        let what = &self.what;
        match (&self.meets, outcome) {
            (_, Err(error)) => Err(format!("{what}: {error}")),
            (Meets::Addresses(wanted), Ok(Seen::Answer(answer))) if answer.addresses != *wanted => {
                Err(format!("{what}: the answer is {:?} instead of {wanted:?}", answer.addresses))
            }
            (Meets::Pods(pods), Ok(seen)) => match seen.server() {
                Some(server) if !pods.contains(server) => {
                    Err(format!("{what}: {server} answered, who does not serve it"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
