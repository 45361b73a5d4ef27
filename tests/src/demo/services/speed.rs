//! How long a connection through a Service takes beside one to its pods.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use fairlead_objects::Service;
use serde::Serialize;

use super::{PATIENCE, open_ports};
use crate::demo::attach::percentile;
use crate::demo::errand::{Errand, run_at};
use crate::demo::objects::Objects;
use crate::demo::report::seconds;
use crate::pod::Pod;
use crate::vantage::{Probes, Via};

/// How often each way is taken.
const ROUNDS: usize = 40;

/// Half of the connections, or requests over UDP, took no longer than this. Zero: there is no such way.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Speed {
    /// Which pod they were from.
    pub from: String,
    /// To the Service's address, which the hook at the socket translates.
    #[serde(serialize_with = "seconds")]
    pub service: Duration,
    /// To the Service's address, from where no hook acts: each packet is translated.
    #[serde(serialize_with = "seconds")]
    pub per_packet: Duration,
    /// To the pods that serve it.
    #[serde(serialize_with = "seconds")]
    pub direct: Duration,
}

/// Measures the first port of a Service that a pod may reach, one connection after the other.
pub(super) fn measure(objects: &Objects, from: &Pod, service: &Service) -> Result<Speed> {
    let object = objects.pods.iter().find(|object| object.key.to_string() == from.key());
    let open = object.map(|object| open_ports(objects, &objects.world(), object, service)).unwrap_or_default();
    let Some(port) = open.first() else { return Ok(Speed::default()) };
    let backends = objects.backends(service, port, true);
    let ip = service.cluster_ips.iter().find(|ip| ip.is_ipv4());
    let mut errands = Vec::new();
    let through = ip.map(|ip| Errand::reach(SocketAddr::new(*ip, port.port), port.protocol, PATIENCE));
    for backend in backends.iter().cycle().take(ROUNDS.min(backends.len() * ROUNDS)) {
        // In turns, so that both meet the same moods of the machine.
        errands.extend(through.clone());
        errands.push(Errand::reach(backend.address, port.protocol, PATIENCE));
    }
    let every = if through.is_some() { 2 } else { 1 };
    let took: Vec<_> =
        run_at(from, 1, errands)?.into_iter().map(|outcome| outcome.ok().map(|seen| seen.took())).collect();
    let median = |part: &dyn Fn(usize) -> bool| {
        let chosen = took.iter().enumerate().filter(|(index, _)| part(*index));
        percentile(&mut chosen.filter_map(|(_, took)| *took).collect::<Vec<_>>(), 50)
    };
    let per_packet = run_at(&from.via(Via::Packet), 1, through.into_iter().cycle().take(ROUNDS).collect())?;
    let mut per_packet: Vec<Duration> = per_packet.into_iter().flatten().map(|seen| seen.took()).collect();
    Ok(Speed {
        from: from.key().to_owned(),
        service: if every == 2 { median(&|index| index % 2 == 0) } else { Duration::ZERO },
        per_packet: percentile(&mut per_packet, 50),
        direct: median(&|index| every == 1 || index % 2 == 1),
    })
}
