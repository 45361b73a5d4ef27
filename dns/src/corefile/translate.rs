//! From a Corefile to a plan.

use super::plugins::{
    Kubernetes, acl, advice, bind, cache, dns64, errors, forward, health, hosts, k8s_external, kubernetes, loadbalance,
    log, place, ready, rewrite, template, transfer, zone,
};
use super::syntax::{Corefile, Directive, Mistake, Place, ServerBlock, Word};
use crate::WireName;
use crate::forward::Rules;
use crate::name::strip_suffix;
use crate::plan::{BlockPlan, Plan};
use crate::zone::Options;

/// Plugins that may be in a block once.
const ONCE: [&str; 7] = ["kubernetes", "cache", "hosts", "bind", "health", "dns64", "k8s_external"];

/// The port of DNS.
const PORT: u16 = 53;

/// What a configuration asks for.
///
/// # Errors
/// The first thing that can't be done here.
pub fn translate(corefile: &Corefile, log_rate: u32) -> Result<Plan, Mistake> {
    let mut draft = Draft::default();
    for place in &corefile.empty_imports {
        draft.notes.push(format!("{place}: no file matches this import yet; files that appear later are read"));
    }
    for block in &corefile.blocks {
        draft.block(block)?;
    }
    let Draft { kubernetes, bind, health, ready, metrics, lameduck, blocks, notes, port, last, .. } = draft;
    let Some((Kubernetes { cluster, ttl, options, labels }, _)) = kubernetes else {
        let place = last.unwrap_or(Place { file: "Corefile".into(), line: 1 });
        let text = "no block has the plugin kubernetes: add it, for example kubernetes cluster.local in-addr.arpa \
            ip6.arpa";
        return Err(Mistake { place, text: text.to_owned() });
    };
    let origin = cluster.origin;
    let options = Options { outside: blocks.iter().any(|block| block.rules.external.is_some()), ..options };
    let port = port.map_or(PORT, |(port, _)| port);
    Ok(Plan { origin, ttl, options, labels, bind, port, health, ready, metrics, lameduck, blocks, log_rate, notes })
}

#[derive(Default)]
struct Draft {
    kubernetes: Option<(Kubernetes, Place)>,
    bind: Vec<std::net::IpAddr>,
    health: Option<std::net::SocketAddr>,
    ready: Option<std::net::SocketAddr>,
    metrics: Option<std::net::SocketAddr>,
    lameduck: Option<std::time::Duration>,
    blocks: Vec<BlockPlan>,
    notes: Vec<String>,
    port: Option<(u16, Place)>,
    zones: Vec<WireName>,
    last: Option<Place>,
}

impl Draft {
    fn block(&mut self, block: &ServerBlock) -> Result<(), Mistake> {
        let mut plan = BlockPlan::default();
        // Fixed addresses are given where the plugin is.
        plan.rules.hosts.zones.clear();
        for key in &block.keys {
            self.last = Some(key.place.clone());
            let zone = self.key(key)?;
            if self.zones.contains(&zone) {
                return Err(key.wrong(format!("the zone {zone} is in two server blocks: join them")));
            }
            self.zones.push(zone.clone());
            plan.rules.zones.push(zone);
        }
        let mut kept = None;
        let mut seen: Vec<&str> = Vec::new();
        for directive in &block.directives {
            let name = directive.name.text.as_str();
            if ONCE.contains(&name) && seen.contains(&name) {
                return Err(directive.wrong(format!("{name} is in this server block twice: remove one")));
            }
            seen.push(name);
            self.plugin(directive, &mut plan, &mut kept)?;
        }
        let external = block.directives.iter().find(|directive| directive.name.text == "k8s_external");
        if let Some(external) = external.filter(|_| plan.rules.cluster.is_none()) {
            return Err(
                external.wrong("k8s_external is for a block with kubernetes: add it to this one, or move this there")
            );
        }
        if let Some(mut rules) = kept {
            if let Some(cluster) = &plan.rules.cluster {
                // Its zone is never kept.
                let is_other = |zone: &WireName| strip_suffix(zone.as_wire(), cluster.origin.as_wire()).is_none();
                rules.scope.no_records.retain(is_other);
                rules.scope.no_denials.retain(is_other);
            }
            plan.forwards.iter_mut().for_each(|forward| forward.cache = rules.clone());
        }
        self.blocks.push(plan);
        Ok(())
    }

    /// The zone of a block's key, as `.`, `.:53`, `dns://example.org` or `10.0.0.0/8`.
    fn key(&mut self, key: &Word) -> Result<WireName, Mistake> {
        let text = match key.text.split_once("://") {
            None => key.text.as_str(),
            Some(("dns", rest)) => rest,
            Some((scheme, _)) => {
                let text = "is not served from here: remove the block, and give --tls-bind for DNS over TLS";
                return Err(key.wrong(format!("{scheme}:// {text}")));
            }
        };
        let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let (name, port) = match text.rsplit_once(':').filter(|(_, port)| is_port(port)) {
            Some((name, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (name, port.ok_or_else(|| key.wrong(format!("{text:?} has no port from 1 to 65535")))?)
            }
            None => (text, PORT),
        };
        match &self.port {
            Some((known, place)) if *known != port => {
                return Err(key.wrong(format!(
                    "one process serves one port: port {port} here, {known} at {place}; remove one, or run another \
                     process for it"
                )));
            }
            Some(_) => {}
            None => self.port = Some((port, key.place.clone())),
        }
        let name = if name.is_empty() { "." } else { name };
        zone(&Word { text: name.to_owned(), ..key.clone() })
    }

    fn plugin(&mut self, directive: &Directive, plan: &mut BlockPlan, kept: &mut Option<Rules>) -> Result<(), Mistake> {
        let zones = plan.rules.zones.clone();
        match directive.name.text.as_str() {
            // What these are for is always done.
            "loop" | "reload" => drop(directive.plain()?),
            "errors" => errors(directive, &mut self.notes)?,
            "loadbalance" => loadbalance(directive)?,
            "health" => {
                let (address, lameduck) = health(directive)?;
                (self.health, self.lameduck) = (address.or(self.health), lameduck.or(self.lameduck));
            }
            "ready" => self.ready = ready(directive, &mut self.notes)?.or(self.ready),
            "prometheus" => self.metrics = place(directive)?.or(self.metrics),
            "bind" => {
                let addresses = bind(directive)?;
                if !self.bind.is_empty() && self.bind != addresses {
                    return Err(directive.wrong("one process listens for all blocks: give them the same addresses"));
                }
                self.bind = addresses;
            }
            "kubernetes" => {
                let own = kubernetes(directive, &zones, &mut self.notes)?;
                plan.rules.cluster = Some(own.cluster.clone());
                let known = self.kubernetes.get_or_insert_with(|| (own.clone(), directive.name.place.clone()));
                let (before, place) = known;
                let same = before.cluster.origin == own.cluster.origin
                    && (before.ttl, &before.options, &before.labels) == (own.ttl, &own.options, &own.labels);
                if !same {
                    return Err(directive.wrong(format!("there is one cluster's zone: say the same as at {place}")));
                }
            }
            "forward" => plan.forwards.push(forward(directive, &mut self.notes)?),
            "cache" => *kept = Some(cache(directive, &zones, &mut self.notes)?),
            "hosts" => (plan.rules.hosts, plan.hosts) = hosts(directive, &zones)?,
            "rewrite" => plan.rules.rewrites.push(rewrite(directive)?),
            "template" => plan.rules.templates.push(template(directive, &zones)?),
            "log" => plan.rules.log.push(log(directive, &zones)?),
            "dns64" => plan.rules.dns64 = Some(dns64(directive)?),
            "k8s_external" => plan.rules.external = Some(k8s_external(directive, &zones)?),
            "transfer" => plan.rules.transfers.push(transfer(directive, &zones, &mut self.notes)?),
            "acl" => plan.rules.acl.extend(acl(directive, &zones)?),
            name => {
                return Err(directive.wrong(match advice(name) {
                    Some(advice) => format!("the plugin {name} is not supported: {advice}"),
                    None => format!("there is no plugin {name:?}: correct its name, or remove it"),
                }));
            }
        }
        Ok(())
    }
}
