//! Servers to forward to.

use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;

use super::super::syntax::{Directive, Mistake, Word, beside};
use super::{code, duration, number, zone, zones};
use crate::forward::tls::PORT;
use crate::forward::{Failover, Policy, Rules, parse_upstream};
use crate::plan::{ForwardPlan, OverPlan, Source, Target};

/// Options that change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 9] = [
    ("expire", "connections end when nothing comes on them for 10 s"),
    ("max_age", "connections end when nothing comes on them for 10 s"),
    ("max_idle_conns", "a server is asked on 8 connections at most"),
    ("max_fails", "servers are watched by their answers"),
    ("health_check", "servers are watched by their answers"),
    ("max_connect_attempts", "every server is asked twice at most, within 4 s"),
    ("read_timeout", "the next server is asked after 0.5 s, and the client has an answer after 4 s"),
    ("prefer_udp", "servers are asked over UDP first in any case"),
    ("doh_method", "servers are not asked over HTTPS"),
];

const KNOWN: &str = "except, force_tcp, policy, max_concurrent, tls, tls_servername, next, next_on_nodata, failover, \
                     failfast_all_unhealthy_upstreams";

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
        failover: Failover::default(),
        authorities: None,
        max_concurrent: MOST,
        cache: Rules { bytes: 0, stale: 0, prefetch: false, ..Rules::default() },
    };
    let servers: Vec<To<'_>> = servers.iter().map(target).collect::<Result<_, _>>()?;
    let (mut name, mut tcp): (Option<String>, bool) = (None, false);
    for line in &directive.body {
        option(line, &mut plan, &mut name, &mut tcp, notes)?;
    }
    for To { word, source, encryption } in servers {
        let over = match encryption {
            Encryption::None if tcp => OverPlan::Tcp,
            Encryption::None => OverPlan::Udp,
            Encryption::Of(own) if name.is_none() => OverPlan::Tls(own),
            Encryption::Of(_) => {
                return Err(word.wrong("its name is at tls_servername too: write it in one place"));
            }
            Encryption::Unnamed(address) => OverPlan::Tls(name.clone().unwrap_or(address)),
        };
        plan.to.push(Target { source, over });
    }
    Ok(plan)
}

/// An option in braces.
fn option(
    line: &Directive,
    plan: &mut ForwardPlan,
    name: &mut Option<String>,
    tcp: &mut bool,
    notes: &mut Vec<String>,
) -> Result<(), Mistake> {
    let codes = || -> Result<_, Mistake> {
        if line.args.is_empty() {
            return Err(line.wrong(format!("{} needs a code: write one such as NXDOMAIN", line.name.text)));
        }
        line.args.iter().map(code).collect()
    };
    match line.plain()?.name.text.as_str() {
        "except" => plan.except.extend(zones(&line.args, &[])?),
        "force_tcp" => {
            line.bare()?;
            *tcp = true;
        }
        "policy" => plan.policy = policy(line.one()?)?,
        "max_concurrent" => {
            plan.max_concurrent = match number(line.one()?, 0..=u32::MAX)? {
                // No limit.
                0 => MOST,
                count => count.clamp(4, MOST),
            };
        }
        "next" => plan.failover.route.extend(codes()?),
        "next_on_nodata" => {
            line.bare()?;
            plan.failover.without_data = true;
        }
        "failover" => {
            let codes: Vec<ResponseCode> = codes()?;
            if codes.contains(&ResponseCode::NoError) {
                return Err(line.wrong("failover can't be for NOERROR: use next_on_nodata, or remove it"));
            }
            plan.failover.server.extend(codes);
        }
        "failfast_all_unhealthy_upstreams" => {
            line.bare()?;
            plan.failover.fast = true;
        }
        "tls_servername" => *name = Some(line.one()?.text.clone()),
        "tls" => match &line.args[..] {
            [] => {}
            [ca] => plan.authorities = Some(beside(&ca.place.file, &ca.text)),
            _ => return Err(line.wrong("certificates of clients are not shown to servers: give a CA file only")),
        },
        "source_address" => {
            return Err(line.wrong("the node's routes choose the address that servers are asked from: remove it"));
        }
        "resolver" => {
            return Err(line.wrong("names of servers are not looked up: remove it, and write their addresses"));
        }
        option => {
            let Some((_, why)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == option) else {
                return Err(line.unknown("forward", KNOWN));
            };
            if matches!(option, "expire" | "max_age" | "read_timeout") {
                duration(line.one()?)?;
            }
            notes.push(format!("{}: {option} has no effect: {why}", line.name.place));
        }
    }
    Ok(())
}

/// A server or a file.
struct To<'w> {
    word: &'w Word,
    source: Source,
    encryption: Encryption,
}

/// Whether a server is asked over TLS, and as whom.
enum Encryption {
    None,
    /// By the name that is here.
    Of(String),
    /// By the name that is said for all, else by this address.
    Unnamed(String),
}

fn target(word: &Word) -> Result<To<'_>, Mistake> {
    let to = |source, encryption| Ok(To { word, source, encryption });
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
        let mut server = server;
        if is_encrypted && server.port() == 53 {
            server.set_port(PORT);
        }
        let address = Encryption::Unnamed(server.ip().to_string());
        return to(Source::Server(server), if is_encrypted { address } else { Encryption::None });
    }
    if let Some((server, name)) = named(text).filter(|_| is_encrypted) {
        return to(Source::Server(server), Encryption::Of(name));
    }
    if text.contains('/') && !is_encrypted {
        return to(Source::File(beside(&word.place.file, text)), Encryption::None);
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

fn policy(word: &Word) -> Result<Policy, Mistake> {
    match word.text.as_str() {
        "random" | "round_robin" => Ok(Policy::Random),
        "sequential" => Ok(Policy::Sequential),
        _ => Err(word.wrong(format!("{:?} is not a policy: use random, round_robin or sequential", word.text))),
    }
}
