//! From a plan to what answers: files are read, and servers that stay keep what is known about them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{BlockPlan, ForwardPlan, HostsPlan, OverPlan, Plan, Target};
use crate::crowd::Bounds;
use crate::files::Files;
use crate::forward::tls::{PORT, Tls, TlsError};
use crate::forward::{Config, Forwarder, Limits, Over, UpstreamError, from_resolv_conf, refuse_loops};
use crate::hosts::{Hosts, WrongLine};
use crate::site::{Block, Route, Site};

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
    addresses: Vec<SocketAddr>,
    /// What the file with certificate authorities says.
    authorities: Option<String>,
    forwarder: Arc<Forwarder>,
}

impl Makers {
    /// Makes what a plan asks for.
    ///
    /// # Errors
    /// Something that it names can't be read or used. Nothing has changed then.
    pub fn make(&mut self, plan: &Plan, files: &dyn Files, own: &Own) -> Result<Site, MakeError> {
        let mut forwarders = Vec::new();
        let mut blocks = Vec::new();
        for BlockPlan { rules, hosts, forwards } in &plan.blocks {
            let mut block = Block { rules: rules.clone(), hosts: Arc::new(fixed(hosts, files)?), routes: vec![] };
            for forward in forwards {
                if let Some(known) = self.forwarder(forward, files, own)? {
                    let (from, except) = (forward.from.clone(), forward.except.clone());
                    block.routes.push(Route { from, except, forwarder: Arc::clone(&known.forwarder) });
                    forwarders.push(known);
                }
            }
            blocks.push(block);
        }
        // Nothing can go wrong any more.
        for known in &forwarders {
            known.forwarder.set_upstreams(&known.addresses);
        }
        self.forwarders = forwarders;
        Ok(Site::new(blocks, plan.log_rate))
    }

    /// A forwarder with its servers' addresses: the one that was there, if only addresses have changed.
    fn forwarder(&self, plan: &ForwardPlan, files: &dyn Files, own: &Own) -> Result<Option<Known>, MakeError> {
        let mut addresses = addresses(plan, files, own)?;
        let authorities = authorities(plan, files)?;
        let before = self.forwarders.iter().find(|known| known.plan == *plan);
        let before = before.filter(|known| {
            let same = known.authorities == authorities;
            if !same {
                tracing::info!("the certificate authorities of upstream servers have changed");
            }
            same
        });
        if let Some(before) = before {
            if addresses.is_empty() && !before.addresses.is_empty() {
                tracing::warn!("no upstream server is configured any more: keeping the previous ones");
                addresses.clone_from(&before.addresses);
            } else if addresses != before.addresses {
                tracing::info!(servers = ?addresses, "upstream servers have changed");
            }
            return Ok(Some(Known { addresses, ..before.clone() }));
        }
        if addresses.is_empty() {
            let zone = &plan.from;
            tracing::warn!(%zone, "no upstream server: other names are refused; give --upstream to change that");
        }
        let all = usize::try_from(plan.max_concurrent).unwrap_or(usize::MAX);
        let config = Config {
            upstreams: addresses.clone(),
            stubs: plan.stubs.clone(),
            limits: Limits { in_flight: Bounds { all, each: (all / 4).max(1) }, ..Limits::default() },
            rules: plan.cache,
            policy: plan.policy,
            over: match &plan.over {
                OverPlan::Udp => Over::Udp,
                OverPlan::Tcp => Over::Tcp,
                OverPlan::Tls { name, authorities: file } => {
                    Over::Tls(Tls::new(name, file.as_deref().zip(authorities.as_deref()))?)
                }
            },
        };
        let forwarder = Forwarder::new(config).map(Arc::new);
        Ok(forwarder.map(|forwarder| Known { plan: plan.clone(), addresses, authorities, forwarder }))
    }
}

/// The addresses of servers.
fn addresses(plan: &ForwardPlan, files: &dyn Files, own: &Own) -> Result<Vec<SocketAddr>, MakeError> {
    let mut addresses = Vec::new();
    for target in &plan.to {
        match target {
            Target::Server(server) => {
                let (others, loops) = refuse_loops(vec![*server], &own.listen, &own.local);
                if let Some(own) = loops.first() {
                    return Err(UpstreamError::Loop(*own).into());
                }
                addresses.extend(others);
            }
            Target::File(path) => addresses.extend(from_file(path, files, own)?),
        }
    }
    if matches!(plan.over, OverPlan::Tls { .. }) {
        addresses.iter_mut().filter(|server| server.port() == 53).for_each(|server| server.set_port(PORT));
    }
    Ok(addresses)
}

/// The text of the file with the certificate authorities of servers, if there is one.
fn authorities(plan: &ForwardPlan, files: &dyn Files) -> Result<Option<String>, MakeError> {
    let OverPlan::Tls { authorities: Some(path), .. } = &plan.over else { return Ok(None) };
    files.text(path).map(Some).map_err(|source| MakeError::File { path: path.clone(), source })
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
