//! The command line.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Over;
use fairlead_dns::forward::tls::{self, Tls};
use fairlead_dns::forward::{
    self, Forwarder, Limits, Policy, Rules, UpstreamError, from_resolv_conf, parse_stub, parse_upstream, refuse_loops,
};
use fairlead_dns::full::Responder;
use fairlead_dns::hosts::Hosts;
use fairlead_dns::name::strip_suffix;
use fairlead_dns::server::TlsConfig;
use fairlead_dns::{WireName, descriptors};
use fairlead_objects::Source;
use fairlead_objects::kubernetes::{Access, Cluster, Interest};
use fairlead_observe::any;
use fairlead_settings::HEADING;
use tracing_subscriber::EnvFilter;

use crate::health::Places;

/// What is not logged unless a filter names it: the watches say themselves what is wrong with them, and how often.
pub(crate) const QUIET: &str = "kube_client=off,kube_runtime=off";

/// The DNS server of a Kubernetes cluster: answers for the cluster's zone from its Services and EndpointSlices, and
/// asks other servers about the rest.
#[derive(Debug, Clone, Parser)]
#[command(name = "fairlead-dns", version)]
pub(crate) struct Args {
    /// Read objects from the manifests in this directory instead of the Kubernetes API.
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_OBJECTS")]
    objects: Option<PathBuf>,
    /// Kubeconfig for the Kubernetes API. [default: the pod's service account, else as kubectl]
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    kubeconfig: Option<PathBuf>,
    /// Read settings from this YAML file: the flags below in camelCase.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log level: error, warn, info, debug or trace, optionally with levels of modules after commas.
    #[arg(
        long, help_heading = HEADING, env = "RUST_LOG", value_name = "FILTER", default_value = "info",
        value_parser = log_filter
    )]
    pub(crate) log_level: String,
    /// The cluster's zone.
    #[arg(long, help_heading = HEADING, value_name = "NAME", default_value = "cluster.local", value_parser = WireName::parse)]
    pub(crate) zone: WireName,
    /// Listen here over UDP and TCP, on port 53 unless given. Repeat it, or separate addresses with commas. [default: every
    /// address of both families]
    #[arg(
        long, help_heading = HEADING, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_upstream
    )]
    listen: Vec<SocketAddr>,
    /// Forward queries for other zones to this server, at port 53 unless given. Repeat it, or separate servers with commas:
    /// the next is asked after a failure or half a second. [default: the servers in --resolv-conf; if there are none,
    /// queries for other zones are refused]
    #[arg(
        long, help_heading = HEADING, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_upstream
    )]
    upstream: Vec<SocketAddr>,
    /// Forward queries for names below a domain to these servers instead. May be repeated.
    #[arg(long, help_heading = HEADING, value_name = "DOMAIN=ADDR[:PORT][,...]", value_parser = parse_stub)]
    stub_domain: Vec<(WireName, Vec<SocketAddr>)>,
    /// A fixed address for one or more names, as a line of hosts(5). May be repeated.
    #[arg(long, help_heading = HEADING, value_name = "ADDR NAME...", value_parser = Hosts::parse)]
    host: Vec<Hosts>,
    /// A file of fixed addresses in the format of hosts(5). It is reloaded when it changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    hosts_file: Option<PathBuf>,
    /// Order in which upstream servers are asked: sequential (as listed), random, or fastest (lowest latency first). A
    /// server that does not answer is asked last.
    #[arg(long, help_heading = HEADING, value_name = "POLICY", default_value_t = Policy::Sequential)]
    policy: Policy,
    /// Ask upstream servers over TCP only.
    #[arg(long, help_heading = HEADING)]
    force_tcp: bool,
    /// Ask upstream servers over TLS, and verify that their certificates have this name. The port is 853 unless one other
    /// than 53 is given. Servers of stub domains are asked without TLS.
    #[arg(long, help_heading = HEADING, value_name = "NAME", conflicts_with = "force_tcp")]
    tls_server_name: Option<String>,
    /// Certificate authorities of those certificates, in PEM. [default: the system's]
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Maximum number of queries that wait for upstream servers; one client may have a quarter of it. Beyond it, the oldest
    /// query of the client with the most fails.
    #[arg(
        long, help_heading = HEADING, value_name = "COUNT", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(4..=100_000)
    )]
    max_concurrent: u32,
    /// Maximum size of the cache of upstream answers, in bytes; 0 turns it off.
    #[arg(
        long, help_heading = HEADING, value_name = "BYTES", default_value_t = 16 << 20,
        value_parser = clap::value_parser!(u32).range(0..=1 << 30)
    )]
    cache_size: u32,
    /// Maximum time that an upstream answer is cached, in seconds, and the highest TTL that clients get.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    cache_ttl: u32,
    /// How long expired answers are served while no upstream server answers, in seconds; 0 turns it off.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(0..=604_800)
    )]
    serve_stale: u32,
    /// Take upstream servers from this file when none is given. It is reloaded when it changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE", default_value = "/etc/resolv.conf")]
    resolv_conf: PathBuf,
    /// TTL of answers from the cluster's zone, in seconds, negative ones included.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=3600)
    )]
    pub(crate) ttl: u32,
    /// Maximum size of UDP responses, in bytes, even if a client accepts more. Longer ones are truncated, and clients retry
    /// over TCP.
    #[arg(
        long, help_heading = HEADING, value_name = "BYTES", default_value_t = 1232,
        value_parser = clap::value_parser!(u16).range(512..)
    )]
    pub(crate) max_udp: u16,
    /// Threads that serve UDP on each address. [default: one for each core]
    #[arg(long, help_heading = HEADING, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Maximum number of TCP connections; one client may have a quarter of it. Beyond it, the longest idle connection of the
    /// client with the most is closed. Lower if the limit of open files is.
    #[arg(
        long, help_heading = HEADING, value_name = "COUNT", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(4..=100_000)
    )]
    tcp_connections: u32,
    /// Answer over TLS here (RFC 7858; port 853 by convention); the connections count as TCP connections. [default: nowhere]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    tls_bind: Option<SocketAddr>,
    /// Certificate for clients over TLS, followed by its intermediate certificates, in PEM. It is reloaded when it changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of this certificate, in PEM.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Serve liveness here: /health. [default: port 8080 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    health_bind: Option<SocketAddr>,
    /// Serve readiness here: /ready. [default: port 8181 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    ready_bind: Option<SocketAddr>,
    /// Serve Prometheus metrics here: /metrics. [default: port 9153 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    metrics_bind: Option<SocketAddr>,
    /// How long to keep serving after SIGTERM while reporting not ready, in seconds. Must be longer than endpoints take to
    /// be removed everywhere: clients that keep their source port come until then.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=600)
    )]
    lameduck: u32,
    /// How long to stay ready without changes from the API server, in seconds. Must be longer than a restart of the API
    /// server, which affects every DNS server of the cluster at once.
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 300)]
    patience: u32,
}

impl Args {
    /// Where objects come from.
    pub(crate) fn source(&self) -> Source {
        match &self.objects {
            Some(dir) => Source::Directory(dir.clone()),
            None => {
                let access = Access { kubeconfig: self.kubeconfig.clone(), ..Access::default() };
                Source::Kubernetes(Cluster::new(access), Interest::Names)
            }
        }
    }

    /// The addresses to listen on.
    pub(crate) fn listen(&self) -> Vec<SocketAddr> {
        if !self.listen.is_empty() {
            return self.listen.clone();
        }
        vec![any(53)]
    }

    /// The servers to ask about other zones.
    ///
    /// # Errors
    /// A server that was asked for is this one itself, or the file with servers can't be read.
    fn upstreams(&self, listen: &[SocketAddr]) -> Result<Vec<SocketAddr>> {
        let local = local_addresses().context("can't read the addresses of this machine")?;
        if !self.upstream.is_empty() {
            let (others, own) = refuse_loops(self.upstream.clone(), listen, &local);
            if let Some(own) = own.first() {
                return Err(UpstreamError::Loop(*own).into());
            }
            return Ok(others);
        }
        let path = self.resolv_conf.display();
        let text = self.resolv_conf()?;
        let others = self.upstreams_in(&text, listen, &local);
        if others.is_empty() {
            tracing::warn!(%path, "no upstream server: refusing queries for other zones; set --upstream to forward them");
        }
        Ok(others)
    }

    /// The text of the file with servers.
    fn resolv_conf(&self) -> Result<String> {
        let path = self.resolv_conf.display();
        match std::fs::read_to_string(&self.resolv_conf) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            other => other.with_context(|| format!("can't read {path}: check its permissions or give --upstream")),
        }
    }

    /// The servers in the text of a resolv.conf. What is left out of it is said.
    fn upstreams_in(&self, text: &str, listen: &[SocketAddr], local: &[IpAddr]) -> Vec<SocketAddr> {
        let path = self.resolv_conf.display();
        let (servers, unread) = from_resolv_conf(text);
        for line in unread {
            tracing::warn!(line, %path, "ignoring a line: no server address in it");
        }
        let (others, own) = refuse_loops(servers, listen, local);
        for own in own {
            tracing::warn!(%own, %path, "ignoring an upstream server: it is this server itself");
        }
        others
    }

    /// Gives a forwarder the servers in the file whenever it changes, for ever.
    pub(crate) async fn follow_resolv_conf(&self, forwarder: &Forwarder, listen: &[SocketAddr]) {
        let mut known = self.resolv_conf().unwrap_or_default();
        while self.upstream.is_empty() {
            tokio::time::sleep(Duration::from_secs(5)).await;
            // While it is being replaced it may not be there.
            let Ok(text) = self.resolv_conf() else { continue };
            if text == known || text.is_empty() {
                continue;
            }
            let servers = self.upstreams_in(&text, listen, &local_addresses().unwrap_or_default());
            let path = self.resolv_conf.display();
            if servers.is_empty() {
                tracing::warn!(%path, "no upstream server in the file any more: keeping the previous ones");
            } else {
                tracing::info!(%path, ?servers, "upstream servers changed");
                forwarder.set_upstreams(&self.ported(servers));
            }
            known = text;
        }
        std::future::pending::<()>().await;
    }

    /// Servers with the port of what they are asked over.
    fn ported(&self, mut servers: Vec<SocketAddr>) -> Vec<SocketAddr> {
        for server in servers.iter_mut().filter(|server| self.tls_server_name.is_some() && server.port() == 53) {
            server.set_port(tls::PORT);
        }
        servers
    }

    fn stubs(&self) -> Result<Vec<(WireName, Vec<SocketAddr>)>> {
        for (domain, _) in &self.stub_domain {
            let inside = strip_suffix(domain.as_wire(), self.zone.as_wire()).is_some();
            ensure!(!inside, "the stub domain {domain} is in the cluster's zone, which is answered here: leave it out");
        }
        Ok(self.stub_domain.clone())
    }

    /// Names with fixed addresses.
    ///
    /// # Errors
    /// The file can't be read, or a line of it.
    pub(crate) fn hosts(&self) -> Result<Hosts> {
        let given = self.host.iter().cloned().fold(Hosts::default(), Hosts::and);
        let Some(file) = &self.hosts_file else { return Ok(given) };
        let path = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {path}"))?;
        Ok(given.and(Hosts::parse(&text).with_context(|| format!("{path} is not as hosts(5) says"))?))
    }

    /// Gives a responder the fixed addresses whenever the file with them changes, for ever.
    pub(crate) async fn follow_hosts(&self, responder: &Responder) {
        let mut wrong = None;
        while self.hosts_file.is_some() {
            tokio::time::sleep(Duration::from_secs(5)).await;
            match self.hosts() {
                Ok(hosts) => {
                    wrong = None;
                    let mut known = responder.hosts.write().unwrap_or_else(PoisonError::into_inner);
                    if **known != hosts {
                        tracing::info!("fixed addresses reloaded");
                        *known = Arc::new(hosts);
                    }
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if wrong.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "can't reload fixed addresses: keeping the previous ones");
                        wrong = Some(text);
                    }
                }
            }
        }
    }

    /// How to forward.
    ///
    /// # Errors
    /// See [`Self::upstreams`].
    pub(crate) fn forward(&self, listen: &[SocketAddr]) -> Result<forward::Config> {
        let named = self.tls_ca.is_none() || self.tls_server_name.is_some();
        ensure!(named, "--tls-ca is for servers that are asked over TLS: give --tls-server-name too, or leave it out");
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let all = size(self.max_concurrent);
        Ok(forward::Config {
            upstreams: self.ported(self.upstreams(listen)?),
            stubs: self.stubs()?,
            limits: Limits { in_flight: Bounds { all, each: all / 4 }, ..Limits::default() },
            rules: Rules {
                bytes: size(self.cache_size),
                ttl: self.cache_ttl,
                stale: self.serve_stale,
                ..Rules::default()
            },
            policy: self.policy,
            over: match &self.tls_server_name {
                Some(name) => Over::Tls(Tls::new(name, self.tls_ca.as_deref())?),
                None if self.force_tcp => Over::Tcp,
                None => Over::Udp,
            },
        })
    }

    /// How many TCP connections there may be below a limit of open files.
    pub(crate) fn connections(&self, open_files: u64) -> Bounds {
        let wanted = usize::try_from(self.tcp_connections).unwrap_or(usize::MAX);
        let all = descriptors::connections(open_files, wanted);
        Bounds { all, each: (all / 4).max(1) }
    }

    /// Where and as whom to answer over TLS.
    ///
    /// # Errors
    /// One of the three settings is given without the others.
    pub(crate) fn tls(&self) -> Result<Option<TlsConfig>> {
        match (self.tls_bind, self.tls_cert.clone(), self.tls_key.clone()) {
            (None, None, None) => Ok(None),
            (Some(listen), Some(certificate), Some(key)) => Ok(Some(TlsConfig { listen, certificate, key })),
            _ => bail!("--tls-bind, --tls-cert and --tls-key go together: give all of them or none"),
        }
    }

    /// Where health, readiness and metrics are.
    pub(crate) fn places(&self) -> Places {
        Places {
            health: self.health_bind.unwrap_or_else(|| any(8080)),
            ready: self.ready_bind.unwrap_or_else(|| any(8181)),
            metrics: self.metrics_bind.unwrap_or_else(|| any(9153)),
        }
    }

    /// How long to go on after SIGTERM.
    pub(crate) fn lameduck(&self) -> Duration {
        Duration::from_secs(self.lameduck.into())
    }

    /// How long to stay ready without changes.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience.into())
    }

    /// Threads for each address.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.map_or_else(cores, usize::from)
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("{error}; use error, warn, info, debug or trace, and levels of modules after commas"))
        }
    }
}

/// The addresses of this machine.
pub(crate) fn local_addresses() -> Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| a.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
        })
        .collect())
}
