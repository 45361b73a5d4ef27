//! Servers to forward to.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::syntax::{Directive, Mistake, Word, beside};
use super::{duration, number, zone, zones};
use crate::forward::tls::PORT;
use crate::forward::{Policy, Rules, parse_upstream};
use crate::plan::{ForwardPlan, OverPlan, Target};

/// Options that say how servers are watched, which is done without them.
const WATCHED: [&str; 10] = [
    "expire",
    "max_age",
    "max_fails",
    "health_check",
    "max_connect_attempts",
    "failfast_all_unhealthy_upstreams",
    "prefer_udp",
    "max_idle_conns",
    "doh_method",
    "read_timeout",
];

/// How many queries may wait where a Corefile sets no limit, as CoreDNS has none, or a higher one.
const MOST: u32 = 100_000;

/// `forward FROM TO... { OPTIONS }`. What is kept of answers is another plugin's.
pub(crate) fn forward(directive: &Directive, notes: &mut Vec<String>) -> Result<ForwardPlan, Mistake> {
    let [from, servers @ ..] = &directive.args[..] else {
        return Err(
            directive.wrong("forward needs a zone and a server: write them, for example forward . /etc/resolv.conf")
        );
    };
    if servers.is_empty() {
        return Err(from.wrong("forward needs a server after the zone: an address, or a file such as /etc/resolv.conf"));
    }
    let mut plan = ForwardPlan {
        from: zone(from)?,
        except: Vec::new(),
        to: Vec::new(),
        stubs: Vec::new(),
        // CoreDNS' own default.
        policy: Policy::Random,
        over: OverPlan::Udp,
        max_concurrent: MOST,
        cache: Rules { bytes: 0, stale: 0, prefetch: false, ..Rules::default() },
    };
    let mut encrypted = Vec::new();
    let mut named: Option<(String, &Word)> = None;
    for server in servers {
        let To { target, is_encrypted, name } = target(server)?;
        encrypted.push(is_encrypted.then_some(target.clone()));
        plan.to.push(target);
        if let Some(name) = name {
            if named.as_ref().is_some_and(|(other, _)| *other != name) {
                return Err(server.wrong("the servers of one forward have one name: remove those with another"));
            }
            named = Some((name, server));
        }
    }
    let (mut authorities, mut name): (Option<PathBuf>, Option<String>) = (None, None);
    for line in &directive.body {
        match line.plain()?.name.text.as_str() {
            "except" => plan.except.extend(zones(&line.args, &[])?),
            "force_tcp" => {
                line.bare()?;
                plan.over = OverPlan::Tcp;
            }
            "policy" => plan.policy = policy(line.one()?)?,
            "max_concurrent" => {
                plan.max_concurrent = match number(line.one()?, 0..=u32::MAX)? {
                    // No limit.
                    0 => MOST,
                    count => count.clamp(4, MOST),
                };
            }
            "tls_servername" => name = Some(line.one()?.text.clone()),
            "tls" => match &line.args[..] {
                [] => {}
                [ca] => authorities = Some(beside(&ca.place.file, &ca.text)),
                _ => return Err(line.wrong("certificates of clients are not shown to servers: give a CA file only")),
            },
            option if WATCHED.contains(&option) => {
                if option == "expire" {
                    duration(line.one()?)?;
                }
                notes
                    .push(format!("{}: {option} has no effect: servers are watched by their answers", line.name.place));
            }
            _ => {
                return Err(line.unknown(
                    "forward",
                    "except, force_tcp, policy, max_concurrent, tls, tls_servername, expire, max_fails, health_check",
                ));
            }
        }
    }
    if encrypted.iter().any(Option::is_some) {
        let all: Option<Vec<Target>> = encrypted.into_iter().collect();
        let all =
            all.ok_or_else(|| from.wrong("all servers of one forward are asked alike: give each tls:// or none"))?;
        let address = all.iter().find_map(|target| match target {
            Target::Server(server) => Some(server.ip().to_string()),
            Target::File(_) => None,
        });
        if let (Some(_), Some((_, server))) = (&name, &named) {
            return Err(server.wrong("its name is at tls_servername too: write it in one place"));
        }
        let name = name.or(named.map(|(name, _)| name)).or(address).unwrap_or_default();
        plan.over = OverPlan::Tls { name, authorities };
    }
    Ok(plan)
}

/// A server or a file.
struct To {
    target: Target,
    is_encrypted: bool,
    /// The name in the server's certificate.
    name: Option<String>,
}

fn target(word: &Word) -> Result<To, Mistake> {
    let text = word.text.as_str();
    let (text, is_encrypted) = match text.split_once("://") {
        None => (text, false),
        Some(("dns", rest)) => (rest, false),
        Some(("tls", rest)) => (rest, true),
        Some((scheme, _)) => {
            return Err(
                word.wrong(format!("servers are not asked over {scheme} here: use an address, or tls://ADDRESS"))
            );
        }
    };
    if let Ok(server) = parse_upstream(text) {
        let port = if is_encrypted && server.port() == 53 { PORT } else { server.port() };
        let target = Target::Server(SocketAddr::new(server.ip(), port)).scoped(server);
        return Ok(To { target, is_encrypted, name: None });
    }
    if let Some((server, name)) = named(text).filter(|_| is_encrypted) {
        return Ok(To { target: Target::Server(server), is_encrypted, name: Some(name) });
    }
    if text.contains('/') && !is_encrypted {
        return Ok(To { target: Target::File(beside(&word.place.file, text)), is_encrypted, name: None });
    }
    Err(word.wrong(format!("{text:?} is neither an address nor a file: write one of them; names are not looked up")))
}

/// A server with the name in its certificate behind its address: `9.9.9.9%dns.quad9.net`, `[2620:fe::fe%dns.quad9.net]:853`.
fn named(text: &str) -> Option<(SocketAddr, String)> {
    let (address, rest) = text.rsplit_once('%')?;
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (rest, PORT),
    };
    let bracketed = address.strip_prefix('[').zip(name.strip_suffix(']'));
    let (address, name) = bracketed.unwrap_or((address, name));
    let server = SocketAddr::new(address.parse().ok()?, port);
    (!name.is_empty()).then(|| (server, name.to_owned()))
}

impl Target {
    /// With the link of a link-local address.
    fn scoped(self, server: SocketAddr) -> Self {
        match (self, server) {
            (Self::Server(SocketAddr::V6(mut own)), SocketAddr::V6(server)) => {
                own.set_scope_id(server.scope_id());
                Self::Server(own.into())
            }
            (own, _) => own,
        }
    }
}

fn policy(word: &Word) -> Result<Policy, Mistake> {
    match word.text.as_str() {
        "random" | "round_robin" => Ok(Policy::Random),
        "sequential" => Ok(Policy::Sequential),
        _ => Err(word.wrong(format!("{:?} is not a policy: use random, round_robin or sequential", word.text))),
    }
}
