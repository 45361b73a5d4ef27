//! Servers to forward to.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::syntax::{Directive, Mistake, Word, beside};
use super::{duration, number, zone, zones};
use crate::forward::{Policy, Rules, parse_upstream};
use crate::plan::{ForwardPlan, OverPlan, Target};

/// Options that say how servers are watched, which is done without them.
const WATCHED: [&str; 9] = [
    "expire",
    "max_fails",
    "health_check",
    "max_connect_attempts",
    "failfast_all_unhealthy_upstreams",
    "prefer_udp",
    "max_idle_conns",
    "doh_method",
    "read_timeout",
];

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
        max_concurrent: 2000,
        cache: Rules { bytes: 0, stale: 0, prefetch: false, ..Rules::default() },
    };
    let mut encrypted = Vec::new();
    for server in servers {
        let (target, is_encrypted) = target(server)?;
        encrypted.push(is_encrypted.then_some(target.clone()));
        plan.to.push(target);
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
            "max_concurrent" => plan.max_concurrent = number(line.one()?, 0..=u32::MAX)?.clamp(4, 100_000),
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
        plan.over = OverPlan::Tls { name: name.or(address).unwrap_or_default(), authorities };
    }
    Ok(plan)
}

/// A server or a file, and whether it is asked over TLS.
fn target(word: &Word) -> Result<(Target, bool), Mistake> {
    let text = word.text.as_str();
    let (text, encrypted) = match text.split_once("://") {
        None => (text, false),
        Some(("dns", rest)) => (rest, false),
        Some(("tls", rest)) => (rest, true),
        Some((scheme, _)) => {
            return Err(
                word.wrong(format!("servers are not asked over {scheme} here: use an address, or tls://ADDRESS"))
            );
        }
    };
    // A server's name in its certificate may stand behind its address.
    if let Ok(server) = parse_upstream(text) {
        let port = if encrypted && server.port() == 53 { 853 } else { server.port() };
        return Ok((Target::Server(SocketAddr::new(server.ip(), port)).scoped(server), encrypted));
    }
    if text.contains('/') && !encrypted {
        return Ok((Target::File(beside(&word.place.file, text)), false));
    }
    Err(word.wrong(format!("{text:?} is neither an address nor a file: write one of them; names are not looked up")))
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
