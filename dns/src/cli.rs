//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::{Policy, parse_stub, parse_upstream};
use fairlead_dns::hosts::Hosts;
use fairlead_dns::plan::Plan;
use fairlead_dns::server::TlsConfig;
use fairlead_dns::site::rewrite::Rewrite;
use fairlead_dns::site::template::Template;
use fairlead_dns::zone::PodMode;
use fairlead_dns::{WireName, descriptors};
use fairlead_objects::Source;
use fairlead_objects::kubernetes::{Access, Cluster, Interest};
use fairlead_observe::any;
use fairlead_settings::HEADING;
use tracing_subscriber::EnvFilter;

use crate::health::Places;
use crate::values::{Wanted, rewrite_rule, template_rule};

/// What is not logged unless a filter names it: the watches say themselves what is wrong with them, and how often.
pub(crate) const QUIET: &str = "kube_client=off,kube_runtime=off";

/// The DNS server of a Kubernetes cluster: answers for the cluster's zone from its Services and EndpointSlices, and
/// asks other servers about the rest.
#[derive(Debug, Clone, Parser)]
#[command(name = "fairlead-dns", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Verb>,
    /// Read objects from the manifests in this directory instead of the Kubernetes API.
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_OBJECTS")]
    objects: Option<PathBuf>,
    /// Kubeconfig for the Kubernetes API. [default: the pod's service account, or else what kubectl would use]
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    kubeconfig: Option<PathBuf>,
    /// Read settings from this YAML file: the flags below in camelCase.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use this Corefile of CoreDNS in place of the settings for other zones. It and the files that it imports are
    /// reloaded when they change.
    #[arg(
        long, help_heading = HEADING, value_name = "FILE", env = "FAIRLEAD_COREFILE",
        conflicts_with_all = [
            "zone", "ttl", "upstream", "zones", "stub_domain", "rewrite", "template", "host", "hosts_file", "policy",
            "force_tcp", "tls_server_name", "tls_ca", "max_concurrent", "cache_size", "cache_ttl", "serve_stale", "resolv_conf",
        ]
    )]
    pub(crate) corefile: Option<PathBuf>,
    /// Log level: error, warn, info, debug or trace, optionally with levels of modules after commas.
    #[arg(
        long, help_heading = HEADING, env = "RUST_LOG", value_name = "FILTER", default_value = "info",
        value_parser = log_filter
    )]
    pub(crate) log_level: String,
    /// The cluster's zone.
    #[arg(long, help_heading = HEADING, value_name = "NAME", default_value = "cluster.local", value_parser = WireName::parse)]
    pub(crate) zone: WireName,
    /// Listen on this address, over UDP and TCP; the default port is 53. May be given several times or as a list with
    /// commas. [default: every address of both families]
    #[arg(
        long, help_heading = HEADING, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_upstream
    )]
    listen: Vec<SocketAddr>,
    /// Forward queries for other zones to this server; the default port is 53. May be given several times or as a list
    /// with commas: the next is asked after a failure or half a second. [default: the servers
    /// in --resolv-conf; without any, other zones are refused]
    #[arg(
        long, help_heading = HEADING, value_name = "ADDR[:PORT]", value_delimiter = ',', value_parser = parse_upstream
    )]
    pub(crate) upstream: Vec<SocketAddr>,
    /// Forward queries for names below a domain to these servers instead. May be repeated; in the settings file a map of
    /// domains with lists of servers.
    #[arg(long, help_heading = HEADING, value_name = "DOMAIN=ADDR[:PORT][,...]", value_parser = parse_stub)]
    pub(crate) zones: Vec<(WireName, Vec<SocketAddr>)>,
    /// The same, by its older name.
    #[arg(long, help_heading = HEADING, value_name = "DOMAIN=ADDR[:PORT][,...]", value_parser = parse_stub)]
    pub(crate) stub_domain: Vec<(WireName, Vec<SocketAddr>)>,
    /// A fixed address for one or more names, as a line of hosts(5). May be repeated.
    #[arg(long, help_heading = HEADING, value_name = "ADDR NAME...", value_parser = Hosts::parse)]
    pub(crate) host: Vec<Hosts>,
    /// Rewrite queries, and restore the names in their answers; one rule in the syntax of CoreDNS' plugin rewrite: `name
    /// suffix .old.example .new.example`. May be given several times.
    #[arg(long, help_heading = HEADING, value_name = "RULE", value_parser = rewrite_rule)]
    pub(crate) rewrite: Vec<Rewrite>,
    /// Answer from a template; one in the syntax of CoreDNS' plugin template, with its options in braces on lines of their
    /// own: `IN AAAA example.org` answers that there are no such records. May be given several times.
    #[arg(long, help_heading = HEADING, value_name = "TEMPLATE", value_parser = template_rule)]
    pub(crate) template: Vec<Template>,
    /// Log queries for names in this zone, or from this network; `.` is all. May be given several times or as a list with
    /// commas. Changes in the settings file take effect at once.
    #[arg(long, help_heading = HEADING, value_name = "ZONE|NETWORK", value_delimiter = ',', value_parser = Wanted::parse)]
    pub(crate) query_log: Vec<Wanted>,
    /// Maximum number of queries that are logged per second.
    #[arg(
        long, help_heading = HEADING, value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) query_log_rate: u32,
    /// A file of fixed addresses in the format of hosts(5). It is reloaded when it changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub(crate) hosts_file: Option<PathBuf>,
    /// Order in which upstream servers are asked: sequential (as listed), random, or fastest (lowest latency first). A
    /// server that does not answer is asked last.
    #[arg(long, help_heading = HEADING, value_name = "POLICY", default_value_t = Policy::Sequential)]
    pub(crate) policy: Policy,
    /// Ask upstream servers over TCP only.
    #[arg(long, help_heading = HEADING)]
    pub(crate) force_tcp: bool,
    /// Ask upstream servers over TLS, and verify that their certificates have this name. The port is 853 unless one other
    /// than 53 is given. Servers of stub domains are asked without TLS.
    #[arg(long, help_heading = HEADING, value_name = "NAME", conflicts_with = "force_tcp")]
    pub(crate) tls_server_name: Option<String>,
    /// Certificate authorities of those certificates, in PEM. The file is reloaded when it changes. [default: the system's]
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Maximum number of queries that wait for upstream servers; one client may have a quarter of it. Beyond it, the oldest
    /// query of the client with the most fails.
    #[arg(
        long, help_heading = HEADING, value_name = "COUNT", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(4..=100_000)
    )]
    pub(crate) max_concurrent: u32,
    /// Maximum size of the cache of upstream answers, in bytes; 0 turns it off.
    #[arg(
        long, help_heading = HEADING, value_name = "BYTES", default_value_t = 16 << 20,
        value_parser = clap::value_parser!(u32).range(0..=1 << 30)
    )]
    pub(crate) cache_size: u32,
    /// Maximum time that an upstream answer is cached, in seconds, and the highest TTL that clients get.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400)
    )]
    pub(crate) cache_ttl: u32,
    /// How long expired answers are served while no upstream server answers, in seconds; 0 turns it off.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 3600,
        value_parser = clap::value_parser!(u32).range(0..=604_800)
    )]
    pub(crate) serve_stale: u32,
    /// Take upstream servers from this file when none is given. It is reloaded when it changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// TTL of answers from the cluster's zone, in seconds, negative ones included.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(0..=3600)
    )]
    pub(crate) ttl: u32,
    /// Maximum size of a UDP response in bytes, even if the client accepts more; longer ones are truncated, and the client retries over TCP.
    #[arg(
        long, help_heading = HEADING, value_name = "BYTES", default_value_t = 1232,
        value_parser = clap::value_parser!(u16).range(512..)
    )]
    pub(crate) max_udp: u16,
    /// How many threads serve UDP on each address. [default: one for each core]
    #[arg(long, help_heading = HEADING, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Maximum number of TCP connections; one client may have a quarter of it. One more closes the connection that has
    /// been idle longest of the client with the most. Lower if the limit of open files is low.
    #[arg(
        long, help_heading = HEADING, value_name = "COUNT", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(4..=100_000)
    )]
    tcp_connections: u32,
    /// Answer over TLS here (RFC 7858; port 853 by convention); the connections count as TCP connections. [default: nowhere]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    tls_bind: Option<SocketAddr>,
    /// Answer over HTTPS here, at /dns-query over HTTP/2 (RFC 8484); the connections count as TCP connections. [default: nowhere]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    https_bind: Option<SocketAddr>,
    /// The certificate for clients over TLS and HTTPS, followed by its intermediate certificates, in PEM. It is reloaded when it
    /// changes.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of this certificate, in PEM.
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Serve /health here: whether the process works. [default: port 8080 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    health_bind: Option<SocketAddr>,
    /// Serve /ready here: whether this server should get queries. [default: port 8181 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    ready_bind: Option<SocketAddr>,
    /// Serve /metrics here. [default: port 9153 of every address]
    #[arg(long, help_heading = HEADING, value_name = "ADDR:PORT")]
    metrics_bind: Option<SocketAddr>,
    /// Directory that the node's agent shares, `names` in its run directory: answers for names that `domainNames` of
    /// ClusterNetworkPolicies have wait until it has opened their addresses to the pod. [default: none, and such names open nothing]
    #[arg(long, help_heading = HEADING, value_name = "DIR")]
    pub(crate) names_dir: Option<PathBuf>,
    /// How long to keep serving after SIGTERM, not ready any more, in seconds. It must be longer than it takes until all
    /// nodes know that the endpoint no longer serves: clients that keep their port come until then.
    #[arg(
        long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(0..=600)
    )]
    lameduck: u32,
    /// After how many seconds without changes /ready and the log say that answers may be old. It stays ready: an API server
    /// that is away is so for every DNS server of the cluster at once.
    #[arg(long, help_heading = HEADING, value_name = "SECONDS", default_value_t = 300)]
    patience: u32,
}

/// What else can be done.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Verb {
    /// Print what a Corefile of CoreDNS would do here, and fail if it can't be served.
    Check {
        /// The Corefile.
        #[arg(long, value_name = "FILE", default_value = "/etc/coredns/Corefile")]
        corefile: PathBuf,
    },
}

impl Args {
    /// Where the objects that a plan needs come from.
    pub(crate) fn source(&self, plan: &Plan) -> Source {
        match &self.objects {
            Some(dir) => Source::Directory(dir.clone()),
            None => {
                let access = Access { kubeconfig: self.kubeconfig.clone(), ..Access::default() };
                let pods = plan.options.pods == PodMode::Verified;
                let interest = match &plan.labels {
                    None if !pods => Interest::Names,
                    labels => Interest::Selected { labels: labels.clone(), pods },
                };
                Source::Kubernetes(Cluster::new(access), interest)
            }
        }
    }

    /// The settings that are looked at when the process starts, and only then.
    pub(crate) fn at_start(&self) -> String {
        let Self { log_level, listen, max_udp, threads, tcp_connections, tls_bind, tls_cert, tls_key, .. } = self;
        let Self { health_bind, ready_bind, metrics_bind, lameduck, patience, names_dir, .. } = self;
        let server = (log_level, listen, max_udp, threads, tcp_connections, tls_bind, tls_cert, tls_key);
        format!(
            "{server:?} {:?}",
            (health_bind, ready_bind, metrics_bind, lameduck, patience, &self.https_bind, names_dir)
        )
    }

    /// The addresses to listen on.
    pub(crate) fn listen(&self, plan: &Plan) -> Vec<SocketAddr> {
        match (&self.listen[..], &plan.bind[..]) {
            ([], []) => vec![any(plan.port)],
            ([], bind) => bind.iter().map(|address| SocketAddr::new(*address, plan.port)).collect(),
            (listen, _) => listen.to_vec(),
        }
    }

    /// How many TCP connections there may be below a limit of open files.
    pub(crate) fn connections(&self, open_files: u64) -> Bounds {
        let wanted = usize::try_from(self.tcp_connections).unwrap_or(usize::MAX);
        let all = descriptors::connections(open_files, wanted);
        Bounds { all, each: (all / 4).max(1) }
    }

    /// Where and as whom to answer over TLS and HTTPS.
    ///
    /// # Errors
    /// There is an address without a certificate, or the other way round.
    pub(crate) fn tls(&self) -> Result<Option<TlsConfig>> {
        let (listen, https) = (self.tls_bind, self.https_bind);
        match (listen.or(https), self.tls_cert.clone(), self.tls_key.clone()) {
            (None, None, None) => Ok(None),
            (Some(_), Some(certificate), Some(key)) => Ok(Some(TlsConfig { listen, https, certificate, key })),
            _ => bail!(
                "--tls-bind or --https-bind, --tls-cert and --tls-key go together: give an address and both files, or nothing"
            ),
        }
    }

    /// Where health, readiness and metrics are.
    pub(crate) fn places(&self, plan: &Plan) -> Places {
        Places {
            health: self.health_bind.or(plan.health).unwrap_or_else(|| any(8080)),
            ready: self.ready_bind.or(plan.ready).unwrap_or_else(|| any(8181)),
            metrics: self.metrics_bind.or(plan.metrics).unwrap_or_else(|| any(9153)),
        }
    }

    /// How long to go on after SIGTERM.
    pub(crate) fn lameduck(&self, plan: &Plan) -> Duration {
        // A Corefile's is often too short for those who have not heard yet.
        plan.lameduck.unwrap_or_default().max(Duration::from_secs(self.lameduck.into()))
    }

    /// After which time without changes that is said.
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
