//! From a plan to what answers: files are read, and servers that stay keep what is known about them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BlockPlan, ForwardPlan, HostsPlan, OverPlan, Plan, Source, Target};
use crate::crowd::Bounds;
use crate::files::Files;
use crate::forward::tls::{PORT, TlsError, Trust};
use crate::forward::{Config, Forwarder, Limits, Over, Route, Upstream, UpstreamError, from_resolv_conf, refuse_loops};
use crate::hosts::{Hosts, WrongLine};
use crate::site::{Block, Site};

/// Why a plan can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A file can't be read.
    #[error("can't read {path}: {source}; check the path and its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A file with fixed addresses is wrong.
    #[error("{path} is not in the format of hosts(5): {source}")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// The line.
        source: WrongLine,
    },
    /// A server can't be asked.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What this server is to others.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// The addresses that it listens on.
    pub listen: Vec<SocketAddr>,
    /// The addresses of its machine.
    pub local: Vec<IpAddr>,
}

/// Makes sites, one after the other.
#[derive(Default)]
pub struct Makers {
    forwarders: Vec<Known>,
}

#[derive(Clone)]
struct Known {
    plan: ForwardPlan,
    upstreams: Vec<Upstream>,
    /// What the file with certificate authorities says.
    authorities: Option<String>,
    /// Whom servers over TLS are believed, if there are any.
    trust: Option<Trust>,
    forwarder: Arc<Forwarder>,
}

impl Makers {
    /// Makes what a plan asks for.
    ///
    /// # Errors
    /// Something that it names can't be read or used. Nothing has changed then.
    pub fn make(&mut self, plan: &Plan, files: &dyn Files, own: &Own) -> Result<Site, MakeError> {
        // Each is for one of equal plans: what stands behind a server differs from block to block.
        let mut before = self.forwarders.clone();
        let mut forwarders = Vec::new();
        let mut blocks = Vec::new();
        for BlockPlan { rules, hosts, forwards } in &plan.blocks {
            let mut block = Block { rules: rules.clone(), hosts: Arc::new(fixed(hosts, files)?), routes: vec![] };
            for forward in forwards {
                if let Some(known) = forwarder(&mut before, forward, files, own)? {
                    let (from, except) = (forward.from.clone(), forward.except.clone());
                    block.routes.push(Route { from, except, forwarder: Arc::clone(&known.forwarder) });
                    forwarders.push(known);
                }
            }
            blocks.push(block);
        }
        // Nothing can go wrong any more.
        for known in &forwarders {
            known.forwarder.set_upstreams(&known.upstreams);
        }
        for Block { routes, .. } in &blocks {
            for (at, route) in routes.iter().enumerate() {
                route.forwarder.set_next(routes.get(at + 1..).unwrap_or_default());
            }
        }
        self.forwarders = forwarders;
        Ok(Site::new(blocks, plan.log_rate))
    }
}

/// A forwarder with its servers' addresses: one that was there before, if only addresses have changed. It is taken from those.
fn forwarder(
    before: &mut Vec<Known>,
    plan: &ForwardPlan,
    files: &dyn Files,
    own: &Own,
) -> Result<Option<Known>, MakeError> {
    let authorities = authorities(plan, files)?;
    let before = before.iter().position(|known| known.plan == *plan).map(|at| before.remove(at));
    let before = before.filter(|known| {
        let same = known.authorities == authorities;
        if !same {
            tracing::info!("the certificate authorities of upstream servers have changed");
        }
        same
    });
    let trust = match &before {
        Some(before) => before.trust.clone(),
        None => trust(plan, authorities.as_deref())?,
    };
    let mut upstreams = upstreams(&plan.to, files, own, trust.as_ref())?;
    if let Some(before) = before {
        if upstreams.is_empty() && !before.upstreams.is_empty() {
            tracing::warn!("no upstream server is configured any more: keeping the previous ones");
            upstreams.clone_from(&before.upstreams);
        } else if upstreams != before.upstreams {
            let servers: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.address).collect();
            tracing::info!(?servers, "upstream servers have changed");
        }
        return Ok(Some(Known { upstreams, ..before }));
    }
    if upstreams.is_empty() {
        let zone = &plan.from;
        tracing::warn!(%zone, "no upstream server: other names are refused; give --upstream to change that");
    }
    let mut stubs = Vec::new();
    for (domain, servers) in &plan.stubs {
        stubs.push((domain.clone(), self::upstreams(servers, files, own, trust.as_ref())?));
    }
    let all = usize::try_from(plan.max_concurrent).unwrap_or(usize::MAX);
    let config = Config {
        zone: plan.from.clone(),
        upstreams: upstreams.clone(),
        stubs,
        limits: Limits { in_flight: Bounds { all, each: (all / 4).max(1) }, ..Limits::default() },
        rules: plan.cache.clone(),
        policy: plan.policy,
        failover: plan.failover.clone(),
    };
    let forwarder = Forwarder::new(config).map(Arc::new);
    Ok(forwarder.map(|forwarder| Known { plan: plan.clone(), upstreams, authorities, trust, forwarder }))
}

/// Servers, with what they are asked over.
fn upstreams(
    targets: &[Target],
    files: &dyn Files,
    own: &Own,
    trust: Option<&Trust>,
) -> Result<Vec<Upstream>, MakeError> {
    let mut upstreams = Vec::new();
    for Target { source, over } in targets {
        let addresses = match source {
            Source::Server(server) => {
                let (others, loops) = refuse_loops(vec![*server], &own.listen, &own.local);
                if let Some(own) = loops.first() {
                    return Err(UpstreamError::Loop(*own).into());
                }
                others
            }
            Source::File(path) => from_file(path, files, own)?,
        };
        let over = match (over, trust) {
            (OverPlan::Udp, _) => Over::Udp,
            (OverPlan::Tcp, _) => Over::Tcp,
            (OverPlan::Tls(name), Some(trust)) => Over::Tls(trust.server(name)?),
            (OverPlan::Tls(_), None) => return Err(TlsError::NoRoots.into()),
        };
        for mut address in addresses {
            if address.port() == 53 && matches!(over, Over::Tls(_)) {
                address.set_port(PORT);
            }
            upstreams.push(Upstream { address, over: over.clone() });
        }
    }
    Ok(upstreams)
}

/// Whether servers are asked over TLS.
fn is_encrypted(plan: &ForwardPlan) -> bool {
    let of_stubs = plan.stubs.iter().flat_map(|(_, servers)| servers);
    plan.to.iter().chain(of_stubs).any(|target| matches!(target.over, OverPlan::Tls(_)))
}

/// The text of the file with the certificate authorities of servers, if there is one.
fn authorities(plan: &ForwardPlan, files: &dyn Files) -> Result<Option<String>, MakeError> {
    let Some(path) = plan.authorities.as_ref().filter(|_| is_encrypted(plan)) else { return Ok(None) };
    files.text(path).map(Some).map_err(|source| MakeError::File { path: path.clone(), source })
}

/// Whom servers over TLS are believed, if there are any.
fn trust(plan: &ForwardPlan, authorities: Option<&str>) -> Result<Option<Trust>, MakeError> {
    if !is_encrypted(plan) {
        return Ok(None);
    }
    Ok(Some(Trust::new(plan.authorities.as_deref().zip(authorities))?))
}

/// The servers in a resolv.conf. What is left out of it is said.
fn from_file(path: &Path, files: &dyn Files, own: &Own) -> Result<Vec<SocketAddr>, MakeError> {
    let text = match files.text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other.map_err(|source| MakeError::File { path: path.to_owned(), source })?,
    };
    let (servers, unread) = from_resolv_conf(&text);
    let path = path.display();
    for line in unread {
        tracing::warn!(line, %path, "line ignored: it has no valid server");
    }
    let (others, loops) = refuse_loops(servers, &own.listen, &own.local);
    for own in loops {
        tracing::warn!(%own, %path, "upstream server ignored: it is this server itself");
    }
    Ok(others)
}

/// Fixed addresses of the configuration and of a file.
fn fixed(plan: &HostsPlan, files: &dyn Files) -> Result<Hosts, MakeError> {
    let HostsPlan { inline, file, lenient } = plan;
    let Some(path) = file else { return Ok(inline.clone()) };
    let text = match files.text(path) {
        Err(error) if *lenient && error.kind() == io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "the file with fixed addresses does not exist");
            String::new()
        }
        other => other.map_err(|source| MakeError::File { path: path.clone(), source })?,
    };
    if *lenient {
        let (hosts, wrong) = Hosts::parse_leniently(&text);
        for line in wrong {
            tracing::warn!(path = %path.display(), %line, "invalid line ignored");
        }
        return Ok(inline.clone().and(hosts));
    }
    let hosts = Hosts::parse(&text).map_err(|source| MakeError::Hosts { path: path.clone(), source })?;
    Ok(inline.clone().and(hosts))
}
