//! From the command line and the settings file to a plan.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use fairlead_dns::WireName;
use fairlead_dns::corefile::{Corefile, translate};
use fairlead_dns::files::Files;
use fairlead_dns::forward::{Failover, Rules};
use fairlead_dns::hosts::Hosts;
use fairlead_dns::name::strip_suffix;
use fairlead_dns::plan::{BlockPlan, ForwardPlan, HostsPlan, OverPlan, Plan, Source, Target};
use fairlead_dns::site::{self, HostsRules};
use fairlead_dns::zone::Options;

use crate::cli::Args;

impl Args {
    /// What the configuration asks for, and a Corefile's instead where one is named.
    ///
    /// # Errors
    /// Something in it is wrong.
    pub(crate) fn plan(&self, files: &dyn Files) -> Result<Plan> {
        let mut plan = match &self.corefile {
            Some(path) => translate(&Corefile::read(path, files)?, self.query_log_rate)?,
            None => self.own_plan()?,
        };
        // The flag adds to what the Corefile logs.
        for block in plan.blocks.iter_mut().filter(|_| self.corefile.is_some()) {
            let own = block.rules.zones.clone();
            block.rules.log.extend(self.query_log.iter().map(|wanted| wanted.rule(&own)));
        }
        Ok(plan)
    }

    /// What the flags and the settings file ask for.
    fn own_plan(&self) -> Result<Plan> {
        let named = self.tls_ca.is_none() || self.tls_server_name.is_some();
        ensure!(named, "--tls-ca is for servers that are asked over TLS: give --tls-server-name too, or leave it out");
        let root = vec![WireName::parse(".")?];
        let over = match &self.tls_server_name {
            Some(name) => OverPlan::Tls(name.clone()),
            None => self.over_of_stubs(),
        };
        let target = |source| Target { source, over: over.clone() };
        let forward = ForwardPlan {
            from: WireName::parse(".")?,
            except: Vec::new(),
            to: match &self.upstream[..] {
                [] => vec![target(Source::File(self.resolv_conf.clone()))],
                servers => servers.iter().map(|server| target(Source::Server(*server))).collect(),
            },
            stubs: self.stubs()?,
            policy: self.policy,
            failover: Failover::default(),
            authorities: self.tls_ca.clone(),
            max_concurrent: self.max_concurrent,
            cache: Rules {
                bytes: usize::try_from(self.cache_size).unwrap_or(usize::MAX),
                ttl: self.cache_ttl,
                denial: self.cache_ttl,
                stale: self.serve_stale,
                ..Rules::default()
            },
        };
        let rules = site::Rules {
            zones: root.clone(),
            log: self.query_log.iter().map(|wanted| wanted.rule(&root)).collect(),
            rewrites: self.rewrite.clone(),
            templates: self.template.clone(),
            hosts: HostsRules { zones: root, ..HostsRules::default() },
            cluster: Some(site::Cluster::usual(&self.zone)),
            ..site::Rules::default()
        };
        let inline = self.host.iter().cloned().fold(Hosts::default(), Hosts::and);
        let hosts = HostsPlan { inline, file: self.hosts_file.clone(), lenient: false };
        Ok(Plan {
            origin: self.zone.clone(),
            ttl: self.ttl,
            options: Options::default(),
            labels: None,
            bind: Vec::new(),
            port: 53,
            health: None,
            ready: None,
            metrics: None,
            lameduck: None,
            blocks: vec![BlockPlan { rules, hosts, forwards: vec![forward] }],
            log_rate: self.query_log_rate,
            notes: Vec::new(),
        })
    }

    /// Servers of stub domains are asked without TLS.
    fn over_of_stubs(&self) -> OverPlan {
        if self.force_tcp && self.tls_server_name.is_none() { OverPlan::Tcp } else { OverPlan::Udp }
    }

    fn stubs(&self) -> Result<Vec<(WireName, Vec<Target>)>> {
        let mut stubs = Vec::new();
        for (domain, servers) in self.zones.iter().chain(&self.stub_domain) {
            let inside = strip_suffix(domain.as_wire(), self.zone.as_wire()).is_some();
            ensure!(!inside, "the stub domain {domain} is in the cluster's zone, which is answered here: leave it out");
            let target = |server: &SocketAddr| Target { source: Source::Server(*server), over: self.over_of_stubs() };
            stubs.push((domain.clone(), servers.iter().map(target).collect()));
        }
        Ok(stubs)
    }
}
