//! What a configuration asks for, from whichever file it comes: pure data, compared to see what has changed.

mod make;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::WireName;
use crate::forward::{Failover, Policy, Rules as CacheRules};
use crate::hosts::Hosts;
use crate::site::Rules;
use crate::zone::Options;

pub use make::{MakeError, Makers, Own};

/// Everything.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The cluster's zone.
    pub origin: WireName,
    /// How long its records live, in seconds.
    pub ttl: u32,
    /// What of the cluster is in it.
    pub options: Options,
    /// Which objects are looked at, as a label selector; none: all.
    pub labels: Option<String>,
    /// The addresses to listen on; none: all.
    pub bind: Vec<IpAddr>,
    /// The port to listen on.
    pub port: u16,
    /// Where `/health` is, if the configuration says.
    pub health: Option<SocketAddr>,
    /// Where `/ready` is, if the configuration says.
    pub ready: Option<SocketAddr>,
    /// Where `/metrics` are, if the configuration says.
    pub metrics: Option<SocketAddr>,
    /// How long to go on after SIGTERM, if the configuration says.
    pub lameduck: Option<Duration>,
    /// The server blocks.
    pub blocks: Vec<BlockPlan>,
    /// How many lines of the query log are written in a second, at most.
    pub log_rate: u32,
    /// What is done otherwise here than the configuration's author may think.
    pub notes: Vec<String>,
}

impl Plan {
    /// What can't change while the process runs. Two plans that differ in it need a restart in between.
    #[must_use]
    pub fn fixed(&self) -> impl PartialEq + use<'_> {
        let verified = self.options.pods == crate::zone::PodMode::Verified;
        let Self { origin, labels, bind, port, health, ready, metrics, lameduck, .. } = self;
        (origin, labels, bind, port, health, ready, (metrics, lameduck, verified))
    }
}

/// A server block.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockPlan {
    /// What it does.
    pub rules: Rules,
    /// Its fixed addresses.
    pub hosts: HostsPlan,
    /// Where it forwards to, in order.
    pub forwards: Vec<ForwardPlan>,
}

/// Where fixed addresses are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostsPlan {
    /// In the configuration.
    pub inline: Hosts,
    /// In this file.
    pub file: Option<PathBuf>,
    /// What can't be read of the file is left out, and so is a file that isn't there.
    pub lenient: bool,
}

/// Servers to forward to.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardPlan {
    /// For names in this zone,
    pub from: WireName,
    /// and not in these.
    pub except: Vec<WireName>,
    /// The servers.
    pub to: Vec<Target>,
    /// Domains with servers of their own.
    pub stubs: Vec<(WireName, Vec<Target>)>,
    /// Which of them is asked first.
    pub policy: Policy,
    /// Whose answers are not the last word; the next route is the next of the block.
    pub failover: Failover,
    /// Who signs the certificates of servers that are asked over TLS; none: those that the machine knows.
    pub authorities: Option<PathBuf>,
    /// How many queries may wait.
    pub max_concurrent: u32,
    /// What is kept of their answers.
    pub cache: CacheRules,
}

/// Servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub source: Source,
    /// What they are asked over.
    pub over: OverPlan,
}

/// A server, or a file that names some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A server.
    Server(SocketAddr),
    /// Those in a file as resolv.conf(5).
    File(PathBuf),
}

/// What questions go over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverPlan {
    /// UDP, and TCP for what is too long.
    Udp,
    /// TCP.
    Tcp,
    /// TLS, with this name in the servers' certificates.
    Tls(String),
}
